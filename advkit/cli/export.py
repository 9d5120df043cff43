"""`advkit export`: checkpoints in formats that others read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import listing
from advkit.cli.common import options, stage
from advkit.cli.common.options import Call, Command, shown
from advkit.doors.options import ExportOptions

KINDS = ("checkpoint",)


def run(call: Call) -> Iterator[Record]:
    """Export every checkpoint that comes in."""
    wanted = call.build(ExportOptions)
    once = stage.Once(call, wanted.out)

    def work(source: Record) -> Record:
        from advkit.doors.exporting import carry_out  # imports torch, which --help does without

        path = Path(records.wanted(source, KINDS))
        here = replace(wanted, out=once.take())
        record = carry_out(path, here, call.reporter("export"))
        once.used = True  # an input that failed leaves -o to the next one
        return record

    return stage.each(call, "export", KINDS, work)


COMMAND = Command(
    "export",
    listing.COMMANDS["export"].help,
    (*shown(ExportOptions), options.OUT, options.OVERWRITE),
    run,
    argument="[CHECKPOINT]...",
    example="advkit export runs/digits-small-cnn-adr-s0/best.safetensors --to hf -o mynet",
)

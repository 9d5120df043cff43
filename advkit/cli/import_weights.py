"""`advkit import`: other people's weights as checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import listing
from advkit.cli.common import options, stage
from advkit.cli.common.options import Call, Command, shown
from advkit.doors.options import ImportOptions

KINDS = ("export",)


def run(call: Call) -> Iterator[Record]:
    """Import every file that comes in."""
    wanted = call.build(ImportOptions, parts=call.pick(registry.shared_options("models")))
    once = stage.Once(call, wanted.out)

    def work(source: Record) -> Record:
        from advkit.doors.importing import bring_in  # imports torch, which --help does without

        path = Path(records.wanted(source, KINDS))
        here = replace(wanted, out=once.take())
        imported = bring_in(path, here, call.reporter("import"))
        once.used = True  # an input that failed leaves -o to the next one
        return imported.record

    return stage.each(call, "import", KINDS, work, noun="weights")


COMMAND = Command(
    "import",
    listing.COMMANDS["import"].help,
    lambda: (*shown(ImportOptions), *registry.shared_options("models"), *options.STAGE),
    run,
    argument="[FILE|DIR]...",
    listing=("models",),
    example="advkit import net.pt --arch wrn-34-10 --form deepmind --data cifar10:data",
)

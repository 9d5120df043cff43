"""`advkit softlabels`: a teacher's logits for the whole training split, once for many runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import listing
from advkit.cli.common import options, shards, stage
from advkit.cli.common.options import Call, Command, shown
from advkit.config.machine import Output
from advkit.softlabels.options import SoftlabelsOptions


def run(call: Call) -> Iterator[Record]:
    """Label with every teacher that comes in, or join the shards of one labels file."""
    shards.check(call)
    if call.build(options.Merge).merge:
        return _joined(call)
    wanted = call.build(SoftlabelsOptions)
    once = stage.Once(call, wanted.out)
    return stage.each(
        call, "softlabels", ("checkpoint",), lambda source: _labelled(call, wanted, once, source)
    )


def _labelled(
    call: Call, wanted: SoftlabelsOptions, once: stage.Once, source: Record
) -> Record | None:
    from advkit.softlabels.stage import label

    path = Path(records.wanted(source, ("checkpoint",)))
    here = replace(wanted, data=stage.data_of(wanted.data, source), out=once.take())
    labelled = label(path, here, call.reporter("softlabels"))
    once.used = True  # an input that failed leaves -o to the next one
    return None if labelled is None else labelled.record


def _joined(call: Call) -> Iterator[Record]:
    from advkit.softlabels.stage import join

    pieces, output = shards.inputs(call, "labels"), call.build(Output)
    out = shards.merged_place(output.out, pieces)
    reporter = call.reporter("softlabels")
    yield join(pieces, out, overwrite=output.overwrite, reporter=reporter).record


COMMAND = Command(
    "softlabels",
    listing.COMMANDS["softlabels"].help,
    (
        *shown(SoftlabelsOptions),
        *shown(options.Merge),
        options.DATA_ROOT,
        *options.MACHINE,
        options.SHARD,
        options.OUT,
        options.OVERWRITE,
    ),
    run,
    argument="[CHECKPOINT]...",
    example="advkit softlabels runs/digits-small-cnn-natural-s0/best.safetensors --views all",
)

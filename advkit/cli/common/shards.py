"""Shards on the command line: `--shard`, `--merge`, and one for each process of torchrun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advkit.artifacts.record import Record
from advkit.cli.common import stage
from advkit.cli.common.options import Call
from advkit.config.machine import Sharded
from advkit.errors import UsageError
from advkit.parallel import ranks, shards

WITH_MERGE = {"merge", "out", "overwrite", "fail_under", "data_root"}
WITH_MERGE |= {"json", "quiet", "verbose", "debug"}


def check(call: Call) -> None:
    """Refuse options that do not go together, before any work.

    Raises:
        UsageError: something that `--merge` has no use for, or stdin shared between processes.
    """
    typed = call.typed
    if typed.get("merge"):
        useless = sorted(key for key, value in typed.items() if value and key not in WITH_MERGE)
        if useless:
            raise UsageError(f"--{useless[0].replace('_', '-')} has no meaning for --merge")
        if ranks.world() > 1:
            raise UsageError("--merge is for one process: call it without torchrun")
        return
    shard = call.build(Sharded).shard
    shards.chosen(shard)
    if shard and "fail_under" in typed:
        raise UsageError("--fail-under judges the whole: give it to --merge, not to --shard")
    if shards.launched(shard) and (not call.files or "-" in call.files):
        raise UsageError("under torchrun name the input files: its processes share one stdin")


def inputs(call: Call, kind: str) -> list[Record]:
    """Return all shards named on the command line or on stdin."""
    texts = list(stage.sources(call, f"{kind} shards"))
    return [stage.record_of(text, (kind,)) for text in texts]


def merged_place(out: str | None, records: Sequence[Record]) -> Path:
    """Return where the whole goes: `-o`, else the name that the shards' names agree on.

    Raises:
        UsageError: they agree on none.
    """
    if out:
        return Path(out)
    names = {shards.whole(Path(record["path"])) for record in records}
    place = names.pop()
    if names or place is None:
        raise UsageError("the shards' names do not say where the whole file goes: give -o FILE")
    return place

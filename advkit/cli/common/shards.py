"""Shards on the command line: `--shard`, `--merge`, and one for each process of torchrun."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from advkit.artifacts import record as records
from advkit.artifacts.claims import claims, require_same_work, whole_info
from advkit.artifacts.identity import identity, require_same
from advkit.artifacts.record import Record
from advkit.cli.common import machine, stage
from advkit.cli.common.options import Given
from advkit.errors import BusyError, MismatchError, Stopped, UsageError
from advkit.parallel import ranks
from advkit.parallel.shards import Shard, parse, said, whole

EVERY = 0.5
"""Seconds between two looks for the other shards' files."""
WITH_MERGE = {"files", "merge", "out", "overwrite", "fail_under", "data_root"}
WITH_MERGE |= {"json", "quiet", "verbose", "debug"}

T = TypeVar("T")


def launched(given: Given) -> bool:
    """Whether this is one of several processes that share the work by themselves."""
    return ranks.world() > 1 and not given["shard"]


def chosen(given: Given) -> Shard | None:
    """Return the shard to do: the one given, else under torchrun this process's."""
    if given["shard"]:
        return parse(given["shard"])
    return Shard(ranks.rank() + 1, ranks.world()) if launched(given) else None


def check(given: Given) -> None:
    """Refuse options that do not go together, before any work.

    Raises:
        UsageError: something that `--merge` has no use for, or stdin shared between processes.
    """
    if given["merge"]:
        useless = sorted(key for key, value in given.items() if value and key not in WITH_MERGE)
        if useless:
            raise UsageError(f"--{useless[0].replace('_', '-')} has no meaning for --merge")
        if ranks.world() > 1:
            raise UsageError("--merge is for one process: call it without torchrun")
        return
    chosen(given)
    if given["shard"] and given.get("fail_under") is not None:
        raise UsageError("--fail-under judges the whole: give it to --merge, not to --shard")
    files = given.get("files") or []
    if launched(given) and (not files or "-" in files):
        raise UsageError("under torchrun name the input files: its processes share one stdin")


def inputs(given: Given, kind: str) -> list[Record]:
    """Return all shards named on the command line or on stdin."""
    texts = list(stage.sources(given, f"{kind} shards"))
    return [stage.record_of(text, (kind,)) for text in texts]


def merged_place(given: Given, shards: Sequence[Record]) -> Path:
    """Return where the whole goes: `-o`, else the name that the shards' names agree on.

    Raises:
        UsageError: they agree on none.
    """
    if given["out"]:
        return Path(given["out"])
    names = {whole(Path(each["path"])) for each in shards}
    place = names.pop()
    if names or place is None:
        raise UsageError("the shards' names do not say where the whole file goes: give -o FILE")
    return place


def parent_file(shards: Sequence[Record], info: Mapping[str, Any]) -> Path | None:
    """Return the checkpoint that shards were made from: as a record says, or found beside them."""
    from advkit.artifacts import checkpoint

    for each in shards:
        if isinstance(each.get("checkpoint"), str):
            return Path(each["checkpoint"])
    parent = info["parents"][0]
    for each in shards:
        path = Path(each["path"]).with_name(f"{parent.get('role', 'best')}.safetensors")
        if path.exists() and checkpoint.read_info(path)["digest"] == parent["digest"]:
            return path
    return None


def require_whole(there: Mapping[str, Any], paths: Sequence[Path], out: Path) -> None:
    """Check that the whole file in place was made by the work that shards are of.

    Raises:
        MismatchError: it was not, or the shards are not all there; the message says what differs.
    """
    now = whole_info(claims(paths, there["kind"]))
    require_same(identity(there), identity(now), out)


def named(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a shard says beyond that of a whole file."""
    shard = said(info)
    return {"shard": shard.described} if shard else {}


def of(checkpoint: Path | None, out: Path) -> dict[str, Any]:
    """Return what a record says of the run and the checkpoint, null where nobody knows it."""
    folder = (checkpoint or out).resolve().parent.name
    return {"run": folder, "checkpoint": records.relative(checkpoint) if checkpoint else None}


def together(
    given: Given,
    name: str,
    place: Path,
    kind: str,
    find: Callable[[], T],
    work: Callable[[Path], object],
    merge: Callable[[Sequence[Path]], T],
) -> tuple[T, bool] | None:
    """Do this process's shard; in rank 0 wait for the others', merge them and remove them.

    Args:
        given: the command line.
        name: how the stage is called in messages.
        place: where the whole file goes.
        kind: of the files.
        find: gives the whole that lies there already.
        work: puts this process's shard at a path, unless it or the whole lies there.
        merge: puts the whole file in place from those of all shards.

    Returns:
        The whole and whether it was done before; None in the other ranks.
    """
    from advkit.artifacts import files

    paths = [Shard(number + 1, ranks.world()).beside(place) for number in range(ranks.world())]
    mine = paths[ranks.rank()]
    if ranks.rank() > 0:
        work(mine)
        return None
    parent = os.getppid()
    if place.exists() and not given["overwrite"]:
        result = find()
        remove(paths, parent)  # of a call that was ended between merging and tidying up
        return result, True
    with files.lock(place):
        work(mine)
        machine.speaker(name, given).note(f"shard 1/{len(paths)} is done: waiting for the others")
        for path in paths[1:]:
            while not _there(path, mine, kind, bool(given["overwrite"])):
                _pause(parent)
        result = merge(paths)
        remove(paths, parent)
    return result, False


def _there(path: Path, mine: Path, kind: str, overwrite: bool) -> bool:
    """Whether another shard of this work is in place.

    One of other work is on its way out with --overwrite, and stays for good without.
    """
    from advkit.artifacts import hdf5

    if not path.exists():
        return False
    try:
        claims = [hdf5.read_claim(each, kind)[0] for each in (mine, path)]
        require_same_work(mine, claims[0], path, claims[1])
    except MismatchError:
        if overwrite:
            return False
        raise
    return True


def remove(paths: Sequence[Path], parent: int) -> None:
    """Remove the shards' files once the whole is in place, each when nobody reads it any more."""
    from advkit.artifacts import files

    for path in paths:
        while path.exists():
            try:
                with files.lock(path):
                    path.unlink(missing_ok=True)
            except BusyError:
                _pause(parent)


def _pause(parent: int) -> None:
    """Wait a moment.

    Raises:
        Stopped: torchrun, which would have ended us with the others, is gone.
    """
    if os.getppid() != parent:
        what = "torchrun is gone: ended; finished shards are kept, start it again to go on"
        raise Stopped(signal.SIGHUP, what)
    time.sleep(EVERY)

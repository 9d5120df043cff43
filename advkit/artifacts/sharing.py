"""Work that several processes share: each a file of its own, joined by the first of them."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

from advkit.artifacts import checkpoint, hdf5, locks
from advkit.artifacts import record as records
from advkit.artifacts.claims import claims, require_same_work, whole_info
from advkit.artifacts.descriptions import Described, Description
from advkit.artifacts.identity import identity, require_same
from advkit.artifacts.record import Record
from advkit.errors import BusyError, MismatchError, Stopped
from advkit.parallel import ranks
from advkit.parallel.shards import Shard, said
from advkit.runtime.reporting import Reporter

EVERY = 0.5
"""Seconds between two looks for the other shards' files."""

T = TypeVar("T")


class ShardedWork(ABC, Generic[T]):
    """Work on one artifact that shards can share, in the eyes of the process that does one."""

    kind: str
    """Of the files."""

    def __init__(self, place: Path, overwrite: bool, reporter: Reporter) -> None:
        self.place, self.overwrite, self.reporter = place, overwrite, reporter

    @abstractmethod
    def find(self) -> T:
        """Return the whole that lies in its place already."""

    @abstractmethod
    def work(self, out: Path) -> object:
        """Put this process's shard at a path, unless it or the whole lies there."""

    @abstractmethod
    def merge(self, paths: Sequence[Path]) -> T:
        """Put the whole in place from the files of all shards."""


def together(work: ShardedWork[T]) -> tuple[T, bool] | None:
    """Do this process's shard; in rank 0 wait for the others', merge them and remove them.

    Returns:
        The whole and whether it was done before; None in the other ranks.
    """
    paths = [Shard(k + 1, ranks.world()).beside(work.place) for k in range(ranks.world())]
    mine = paths[ranks.rank()]
    if ranks.rank() > 0:
        work.work(mine)
        return None
    # Seen to change when torchrun dies: this process is then somebody else's child.
    parent = os.getppid()
    if work.place.exists() and not work.overwrite:
        result = work.find()
        remove(paths, parent)  # of a call that was ended between merging and tidying up
        return result, True
    # Held for the whole: rank 0 alone merges, and a second torchrun is refused at once.
    with locks.lock(work.place):
        work.work(mine)
        work.reporter.note(f"shard 1/{len(paths)} is done: waiting for the others")
        for path in paths[1:]:
            while not _there(path, mine, work.kind, work.overwrite):
                _pause(parent)
        result = work.merge(paths)
        remove(paths, parent)
    return result, False


def _there(path: Path, mine: Path, kind: str, overwrite: bool) -> bool:
    """Whether another shard of this work is in place.

    One of other work is on its way out with --overwrite, and stays for good without.
    """
    if not path.exists():
        return False
    try:
        require_same_work(
            mine, hdf5.read_claim(mine, kind)[0], path, hdf5.read_claim(path, kind)[0]
        )
    except MismatchError:
        if overwrite:
            return False
        raise
    return True


def remove(paths: Sequence[Path], parent: int) -> None:
    """Remove the shards' files once the whole is in place, each when nobody reads it any more."""
    for path in paths:
        # A rank that found its shard done may still be reading it under its lock.
        while path.exists():
            try:
                with locks.lock(path):
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


def parent_file(shards: Sequence[Record], info: Description) -> Path | None:
    """Return the checkpoint that shards were made from: as a record says, or found beside them."""
    for record in shards:
        if isinstance(record.get("checkpoint"), str):
            return Path(record["checkpoint"])
    parent = cast(Described, info)["parents"][0]
    for record in shards:
        path = Path(record["path"]).with_name(f"{parent.get('role', 'best')}.safetensors")
        if path.exists() and checkpoint.read_info(path)["digest"] == parent["digest"]:
            return path
    return None


def require_whole(there: Description, paths: Sequence[Path], out: Path) -> None:
    """Check that the whole file in place was made by the work that shards are of.

    Raises:
        MismatchError: it was not, or the shards are not all there; the message says what differs.
    """
    now = whole_info(claims(paths, str(there["kind"])))
    require_same(identity(there), identity(now), out)


def named(info: Description) -> dict[str, list[int]]:
    """Return what the record of a shard says beyond that of a whole file."""
    shard = said(info)
    return {"shard": shard.described} if shard else {}


def origin(made_from: Path | None, out: Path) -> dict[str, str | None]:
    """Return what a record says of the run and the checkpoint, null where nobody knows it."""
    folder = (made_from or out).resolve().parent.name
    return {"run": folder, "checkpoint": records.relative(made_from) if made_from else None}

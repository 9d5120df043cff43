"""Joining the labels files of all shards into the whole one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from advkit.artifacts import soft_labels
from advkit.artifacts.claims import Claim, claims, require_digest, whole_info
from advkit.artifacts.descriptions import Labels
from advkit.artifacts.rows import loaded
from advkit.artifacts.soft_labels import Arrays
from advkit.errors import MismatchError
from advkit.softlabels.labelling import part_rows, view_count


def labels(paths: Sequence[Path], out: Path) -> Labels:
    """Join the shards of one labels file into `out` and return its description.

    Raises:
        InputError: a file is missing, corrupt, or no labels.
        MismatchError: they are not all shards of one labels file.
        StorageError: disk full, folder gone.
    """
    shards = claims(paths, "labels")
    info = whole_info(shards)
    total = shards[0][1]["config"]["examples"]
    views = view_count(info["config"]["views"], info["pad"], info["flip"])
    # An accuracy is a share of whole hits: rounding undoes the division exactly.
    hits = sum(round(shard["teacher_accuracy"] * size * views) for _, shard, size in shards)
    info["teacher_accuracy"] = hits / (total * views)
    parts = _parts(shards, part_rows(len(info["data"]["classes"]), views), total)
    return cast(Labels, {**info, "digest": soft_labels.write(out, parts, info)})


def _parts(shards: Sequence[Claim], size: int, total: int) -> Iterator[Arrays]:
    """Yield the parts that one process would have written, `size` examples each."""
    # Shards end where batches do, parts where one process would have ended them.
    pending: Arrays = {}
    end = 0
    for path, claim, _ in shards:
        shard, info = soft_labels.read_parts(path)
        arrays = {name: loaded(array).numpy() for name, array in shard.items()}
        require_digest(path, claim, info["digest"])
        if int(arrays["/index"][0]) != end:
            raise MismatchError(f"{path} does not begin at example {end}, where the last one ended")
        end += len(arrays["/index"])
        pending = _joined(pending, arrays, path)
        while len(pending["/index"]) >= size:
            yield {name: array[:size] for name, array in pending.items()}
            pending = {name: array[size:] for name, array in pending.items()}
    if end != total:
        raise MismatchError(f"the shards end at example {end} of {total}")
    if len(pending["/index"]):
        yield pending


def _joined(pending: Arrays, more: Arrays, path: Path) -> Arrays:
    if not pending:
        return more
    if {n: a.shape[1:] for n, a in pending.items()} != {n: a.shape[1:] for n, a in more.items()}:
        raise MismatchError(f"{path} holds other arrays than the shards before it")
    return {name: np.concatenate((array, more[name])) for name, array in pending.items()}

"""The shards of one evaluation or labelling, joined into what one process would have written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advkit.artifacts import hdf5
from advkit.artifacts.claims import Claim, claims, require_digest, whole_info
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import loaded
from advkit.errors import MismatchError

FIELDS = ("index", "labels", "clean", "adversarial", "norm", "broken_by", "images")


def logits(paths: Sequence[Path]) -> Logits:
    """Join the logits files of all shards of one evaluation; one shard at a time is in memory.

    Example j of the whole is example j // N of shard j mod N + 1.

    Raises:
        InputError: a file is missing, corrupt, or no logits.
        MismatchError: they are not all shards of one evaluation.
    """
    shards = claims(paths, "logits")
    total, count = sum(size for *_, size in shards), len(shards)
    whole: dict[str, Tensor] = {}
    for place, (path, info, size) in enumerate(shards):
        if size != len(range(place, total, count)):
            raise MismatchError(
                f"{path} holds {size} of {total} examples: no share of one of {count} shards"
            )
        require_digest(path, info, _spread(whole, path, slice(place, total, count), total))
    if len(set(whole["index"].tolist())) != total:
        raise MismatchError("two shards hold the same example: they are of other evaluations")
    return Logits(info=_logits_info(shards, total), **whole)  # type: ignore[arg-type]


def _spread(whole: dict[str, Tensor], path: Path, rows: slice, total: int) -> str:
    """Put a shard's tensors in their rows of the whole ones; return its digest."""
    shard = hdf5.read_logits(path)
    for name in FIELDS:
        mine = getattr(shard, name)
        if mine is None:
            continue
        if name not in whole:
            whole[name] = torch.empty(total, *mine.shape[1:], dtype=mine.dtype)
        whole[name][rows] = loaded(mine)
    return str(shard.info["digest"])


def _logits_info(shards: Sequence[Claim], total: int) -> dict[str, Any]:
    info = whole_info(shards)
    shares = [(shard["zero_gradient"], size) for _, shard, size in shards]
    # A share of whole examples: rounding undoes the division exactly.
    flat = [round(share * size) for share, size in shares if share is not None]
    info["zero_gradient"] = sum(flat) / total if len(flat) == len(shares) else None
    return info

"""The shards of one evaluation or labelling, joined into what one process would have written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advkit.artifacts import hdf5, soft_labels
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import loaded
from advkit.artifacts.soft_labels import Arrays
from advkit.errors import InputError, MismatchError
from advkit.parallel import shards
from advkit.parallel.shards import Shard
from advkit.softlabels.labelling import part_rows, view_count

OWN = {"digest", "environment", "zero_gradient", "teacher_accuracy", "config", "parents"}
"""What shards of one work may say differently, or what is compared piece by piece."""
OF_SHARDS = {"logits": {"shard"}, "labels": {"shard", "batch_size", "examples"}}
"""What the configuration of a shard says beyond the whole one's."""
FIELDS = ("index", "labels", "clean", "adversarial", "norm", "broken_by", "images")

Claim = tuple[Path, Mapping[str, Any], int]
"""A shard's file, what it says of itself, and how many examples it holds."""


def claims(paths: Sequence[Path], kind: str) -> list[Claim]:
    """Return the shards of one work in their order, none missing and none twice.

    Raises:
        InputError: a file is missing, corrupt, or of another kind.
        MismatchError: they are not all shards of one work; the message says what is wrong.
    """
    found = [(path, *hdf5.read_claim(path, kind)) for path in paths]
    there: dict[int, Claim] = {}
    for claim in found:
        path, info, _ = claim
        shard = shards.said(info)
        if shard is None:
            raise MismatchError(f"{path} is no shard but a whole {kind} file: leave it out")
        require_same_work(found[0][0], found[0][1], path, info)
        if shard.number in there:
            before = there[shard.number][0]
            raise MismatchError(f"shard {shard} is there twice: {before} and {path}")
        there[shard.number] = claim
    count = found[0][1]["config"]["shard"][1]
    missing = [str(Shard(k, count)) for k in range(1, count + 1) if k not in there]
    if missing:
        raise MismatchError(f"of {count} shards these are missing: {', '.join(missing)}")
    return [there[number] for number in sorted(there)]


def require_same_work(
    first: Path, mine: Mapping[str, Any], other: Path, its: Mapping[str, Any]
) -> None:
    """Check that two descriptions are of shards of one work.

    Raises:
        MismatchError: they are not; the message lists what differs.
    """
    mine, its = _work(mine), _work(its)
    differs = [
        key if isinstance(mine.get(key, its.get(key)), dict | list)
        else f"{key}: {mine.get(key)} -> {its.get(key)}"
        for key in sorted(mine.keys() | its.keys())
        if mine.get(key) != its.get(key)
    ]  # fmt: skip
    if differs:
        raise MismatchError(f"{other} is no shard of the work of {first} ({', '.join(differs)})")


def _work(info: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in info["config"].items() if key != "shard"}
    first, *others, last = (each["digest"] for each in info["parents"])
    parents = {"checkpoint": first, "surrogate": "".join(others), "data digest": last}
    rest = {key: value for key, value in info.items() if key not in OWN}
    return {**rest, **parents, **config, "shards": getattr(shards.said(info), "count", 0)}


def logits(paths: Sequence[Path]) -> Logits:
    """Join the logits files of all shards of one evaluation; one shard at a time is in memory.

    Example j of the whole is example j // N of shard j mod N + 1.

    Raises:
        InputError: a file is missing, corrupt, or no logits.
        MismatchError: they are not all shards of one evaluation.
    """
    found = claims(paths, "logits")
    total, count = sum(size for *_, size in found), len(found)
    whole: dict[str, Tensor] = {}
    for place, (path, info, size) in enumerate(found):
        if size != len(range(place, total, count)):
            raise MismatchError(
                f"{path} holds {size} of {total} examples: no share of one of {count} shards"
            )
        _require_digest(path, info, _spread(whole, path, slice(place, total, count), total))
    if len(set(whole["index"].tolist())) != total:
        raise MismatchError("two shards hold the same example: they are of other evaluations")
    return Logits(info=_logits_info(found, total), **whole)  # type: ignore[arg-type]


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


def _require_digest(path: Path, info: Mapping[str, Any], found: str) -> None:
    if info.get("digest") != found:
        raise InputError(f"{path}: it changed while it was read")


def _logits_info(found: Sequence[Claim], total: int) -> dict[str, Any]:
    info = whole_info(found)
    if info["zero_gradient"] is not None:
        flat = sum(round(each["zero_gradient"] * size) for _, each, size in found)
        info["zero_gradient"] = flat / total
    return info


def whole_info(found: Sequence[Claim]) -> dict[str, Any]:
    """Return the description of the whole but for figures; where environments differ, their sets.

    With shards made on a CPU and on a GPU its device is `["cpu", "cuda"]`.
    """
    first = found[0][1]
    strip = OF_SHARDS[first["kind"]]
    environments = [info["environment"] for _, info, _ in found]
    values = {key: [each.get(key) for each in environments] for key in environments[0]}
    return {
        **{key: value for key, value in first.items() if key != "digest"},
        "config": {key: value for key, value in first["config"].items() if key not in strip},
        "environment": {key: _one(each) for key, each in values.items()},
    }


def _one(values: Sequence[Any]) -> Any:
    distinct = sorted(set(values))
    return distinct[0] if len(distinct) == 1 else distinct


def labels(paths: Sequence[Path], out: Path) -> dict[str, Any]:
    """Join the shards of one labels file into `out` and return its description.

    Raises:
        InputError: a file is missing, corrupt, or no labels.
        MismatchError: they are not all shards of one labels file.
        StorageError: disk full, folder gone.
    """
    found = claims(paths, "labels")
    info = whole_info(found)
    total = found[0][1]["config"]["examples"]
    views = view_count(info["config"]["views"], info["pad"], info["flip"])
    hits = sum(round(each["teacher_accuracy"] * size * views) for _, each, size in found)
    info["teacher_accuracy"] = hits / (total * views)
    parts = _parts(found, part_rows(len(info["data"]["classes"]), views), total)
    return {**info, "digest": soft_labels.write(out, parts, info)}


def _parts(found: Sequence[Claim], size: int, total: int) -> Iterator[Arrays]:
    """Yield the parts that one process would have written, `size` examples each."""
    held: Arrays = {}
    end = 0
    for path, claim, _ in found:
        shard, info = soft_labels.read_parts(path)
        arrays = {name: loaded(array).numpy() for name, array in shard.items()}
        _require_digest(path, claim, info["digest"])
        if int(arrays["/index"][0]) != end:
            raise MismatchError(f"{path} does not begin at example {end}, where the last one ended")
        end += len(arrays["/index"])
        held = _joined(held, arrays, path)
        while len(held["/index"]) >= size:
            yield {name: array[:size] for name, array in held.items()}
            held = {name: array[size:] for name, array in held.items()}
    if end != total:
        raise MismatchError(f"the shards end at example {end} of {total}")
    if len(held["/index"]):
        yield held


def _joined(held: Arrays, more: Arrays, path: Path) -> Arrays:
    if not held:
        return more
    if {n: a.shape[1:] for n, a in held.items()} != {n: a.shape[1:] for n, a in more.items()}:
        raise MismatchError(f"{path} holds other arrays than the shards before it")
    return {name: np.concatenate((array, more[name])) for name, array in held.items()}

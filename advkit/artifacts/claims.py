"""What shards of one piece of work claim to be, and whether they are all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from advkit.artifacts import describing
from advkit.artifacts.descriptions import Described, Description
from advkit.artifacts.identity import differences, identity
from advkit.errors import InputError, MismatchError
from advkit.parallel import shards
from advkit.parallel.shards import Shard

OWN = {"digest", "environment", "zero_gradient", "teacher_accuracy", "config", "parents"}
"""What shards of one work may say differently, or what is compared piece by piece."""
OF_SHARDS = {"logits": {"shard"}, "labels": {"shard", "batch_size", "examples"}}
"""What the configuration of a shard says beyond the whole one's."""


T = TypeVar("T", str, int)


class Claim(NamedTuple):
    """A shard's file, what it says of itself, and how many examples it holds."""

    path: Path
    info: Mapping[str, Any]
    size: int


def claims(paths: Sequence[Path], kind: str) -> list[Claim]:
    """Return the shards of one work in their order, none missing and none twice.

    Raises:
        InputError: a file is missing, corrupt, or of another kind.
        MismatchError: they are not all shards of one work; the message says what is wrong.
    """
    from advkit.artifacts import hdf5  # heavy; the command line imports this module to start

    read = [Claim(path, *hdf5.read_claim(path, kind)) for path in paths]
    first = read[0]
    there: dict[int, Claim] = {}
    for claim in read:
        path = claim.path
        shard = shards.said(claim.info)
        if shard is None:
            raise MismatchError(f"{path} is no shard but a whole {kind} file: leave it out")
        require_same_work(first.path, first.info, path, claim.info)
        if shard.number in there:
            before = there[shard.number].path
            raise MismatchError(f"shard {shard} is there twice: {before} and {path}")
        there[shard.number] = claim
    count = first.info["config"]["shard"][1]
    missing = [str(Shard(k, count)) for k in range(1, count + 1) if k not in there]
    if missing:
        raise MismatchError(f"of {count} shards these are missing: {', '.join(missing)}")
    return [there[number] for number in sorted(there)]


def require_same_work(first: Path, mine: Description, other: Path, its: Description) -> None:
    """Check that two descriptions are of shards of one work.

    Raises:
        MismatchError: they are not; the message lists what differs.
    """
    differs = differences(_work(mine), _work(its), brief=True)
    if differs:
        raise MismatchError(f"{other} is no shard of the work of {first} ({', '.join(differs)})")


def _work(info: Description) -> dict[str, object]:
    own = {key: value for key, value in identity(info).items() if key != "shard"}
    others = "".join(parent["digest"] for parent in cast(Described, info)["parents"][1:-1])
    rest = {key: value for key, value in info.items() if key not in OWN}
    count = getattr(shards.said(info), "count", 0)
    return {"surrogate": others, **rest, **own, "shards": count}


def require_digest(path: Path, info: Description, digest: str) -> None:
    """Check that a shard has not changed since its claim was read.

    Raises:
        InputError: it has.
    """
    if info.get("digest") != digest:
        raise InputError(f"{path}: it changed while it was read")


def whole_info(claimed: Sequence[Claim]) -> dict[str, Any]:
    """Return the description of the whole but for figures; where environments differ, their sets.

    With shards made on a CPU and on a GPU its device is `["cpu", "cuda"]`.
    """
    first = claimed[0].info
    # Whatever shards differ in must go, so that the whole is what one process would have written.
    strip = OF_SHARDS[first["kind"]]
    environments = [claim.info["environment"] for claim in claimed]
    names = dict.fromkeys(name for environment in environments for name in environment)
    whole = {
        **{key: value for key, value in first.items() if key != "digest"},
        "config": {key: value for key, value in first["config"].items() if key not in strip},
        "environment": {name: _distinct(environments, name) for name in names},
    }
    describing.require_whole(whole)
    return whole


def _distinct(environments: Sequence[Mapping[str, T | list[T]]], name: str) -> T | list[T]:
    """Return what the shards say of it: one value, or a sorted list of several."""
    values: set[T] = set()
    for environment in environments:
        value = environment.get(name, [])  # a shard may say less than another
        values.update(value if isinstance(value, list) else [value])
    ordered = sorted(values)
    return ordered[0] if len(ordered) == 1 else ordered

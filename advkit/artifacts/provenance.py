"""The description that every artifact carries, and the digest that binds it to the content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from advkit import __version__
from advkit.artifacts import describing, descriptions, files
from advkit.artifacts.descriptions import Description
from advkit.errors import InputError, MismatchError, brief

SCHEMA = 1


class Array(NamedTuple):
    """One named array as the digest sees it; `data` may come in pieces."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview | bytes | Iterable[memoryview | bytes]


def canonical(value: object) -> str:
    """Return JSON with one spelling: sorted keys, no spaces, no NaN.

    >>> canonical({"b": 1, "a": [0.1]})
    '{"a":[0.1],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(description: Description, arrays: Iterable[Array]) -> str:
    """Return the sha256 over the arrays in name order and the description but for its digest."""
    sha = hashlib.sha256()
    # Name, dtype and shape go in too: the same bytes under another shape are another array.
    for array in sorted(arrays, key=lambda array: array.name):
        sha.update(canonical([array.name, array.dtype, list(array.shape)]).encode())
        for piece in [array.data] if isinstance(array.data, bytes | memoryview) else array.data:
            sha.update(piece)
    # Its own digest is in the description: left out, it can be checked with what is read back.
    rest = {key: value for key, value in description.items() if key != "digest"}
    sha.update(canonical(rest).encode())
    return f"sha256:{sha.hexdigest()}"


def describe(
    kind: str,
    *,
    config: Mapping[str, object],
    seed: int | None,
    parents: Sequence[Mapping[str, object]],
    environment: Mapping[str, object],
    **more: object,
) -> dict[str, object]:
    """Return the description of a new artifact, without time, host or path.

    Args:
        kind: checkpoint, labels, logits or analysis.
        config: the resolved configuration that made it.
        seed: the seed of its random streams; None for an imported net, whose nobody knows.
        parents: what it was made from, see `parent`.
        environment: what rounding depends on: device kind, threads.
        more: the figures of that kind.

    Raises:
        ValueError: it is not what the definition of that kind asks for.
    """
    import torch  # the version belongs to the description; importing it here keeps reads light

    versions = {"advkit": __version__, "torch": torch.__version__}
    description = {
        "schema": SCHEMA,
        "kind": kind,
        "config": dict(config),
        "seed": seed,
        "versions": versions,
        "environment": dict(environment),
        "parents": [dict(parent) for parent in parents],
        **more,
    }
    describing.require_whole(description)
    return description


def parent(info: Description) -> dict[str, object]:
    """Return an artifact as its children name it, with its own parents: the chain to the data."""
    keep = ("kind", "digest", "method", "arch", "role", "seed", "parents")
    link = {key: info[key] for key in keep if key in info}
    config = info.get("config")
    # A student's targets depend on the temperature, which no other key of the chain tells.
    temperature = config.get("temperature") if isinstance(config, Mapping) else None
    return link if temperature is None else {**link, "temperature": temperature}


def data_parent(
    name: str, split: str, fingerprint: str, how: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return a data set as the first link of a chain, with what decided which images it has."""
    return {"kind": "data", "name": name, "split": split, "digest": fingerprint, **(how or {})}


def data_digest(parents: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the digest of the first data set among parents; None where there is none."""
    return next((parent.get("digest") for parent in parents if parent["kind"] == "data"), None)


def check(
    text: str | None, arrays: Iterable[Array], where: object, wanted: str
) -> dict[str, object]:
    """Parse a description and prove that it and the arrays are what was written.

    Raises:
        InputError: no description, another kind, or a digest that does not match.
        MismatchError: written by a newer or older format version.
    """
    # Kind and version first: a digest that does not match would be said of the wrong thing.
    info = parse(text, where, wanted)
    try:
        actual = digest(info, arrays)
    except (ValueError, RecursionError):  # NaN or broken text, which no writer of ours leaves
        raise InputError(f"{where}: corrupt: its description is not canonical JSON") from None
    if actual != info.get("digest"):
        raise InputError(f"{where}: corrupt: the content does not match its digest; make it anew")
    return info


def parse(text: str | None, where: object, wanted: str) -> dict[str, object]:
    """Parse a description and check it against the definition of its kind (not the digest).

    Raises:
        InputError: no description, another kind, or a key that is missing or impossible.
        MismatchError: another format version.
    """
    info = claimed(text, where)
    if info["schema"] != SCHEMA:
        raise MismatchError(
            f"{where}: format version {brief(info['schema'])}, this advkit reads {SCHEMA}: "
            "use the advkit version that wrote it"
        )
    if info["kind"] != wanted:
        made = files.maker(wanted)
        raise InputError(
            f"{where}: this is a file of {brief(info['kind'])}; wanted: {wanted}{made}"
        )
    if wanted in descriptions.DEFINITIONS:
        describing.require(info, where)
    return info


def claimed(text: str | None, where: object) -> dict[str, object]:
    """Parse a description without believing it yet.

    Raises:
        InputError: there is none, or it is not a description.
    """
    if text is None:
        raise InputError(f"{where}: not made by advkit: it carries no description")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: corrupt: its description is not JSON") from None
    if not isinstance(info, dict) or not isinstance(info.get("kind"), str) or "schema" not in info:
        raise InputError(f"{where}: corrupt: its description lacks kind and schema")
    return info

"""Records: the JSON lines that one stage prints and the next one reads."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from advkit.artifacts import files
from advkit.errors import InputError, brief

KINDS = ("checkpoint", "labels", "logits", "analysis")
Record = dict[str, Any]
"""A line of JSON on its way in or out: what its keys hold depends on the stage."""


def make(kind: str, path: Path | str | None, digest: str, **figures: object) -> Record:
    """Return a record; figures that are not finite numbers become null."""
    record: Record = {"kind": kind, "path": relative(path) if path else None, "digest": digest}
    record.update({name: _plain(value) for name, value in figures.items()})
    return record


def relative(path: Path | str) -> str:
    """Return a path relative to the working directory where it lies below it, else absolute."""
    # Links are not followed: the name that somebody chose is the one that the next stage gets.
    absolute = os.path.abspath(path)
    here = os.getcwd()
    inside = absolute == here or absolute.startswith(here.rstrip("/") + "/")
    return os.path.relpath(absolute, here) if inside else absolute


def line(record: Record) -> str:
    """Return the record as one JSON line."""
    return json.dumps(record, allow_nan=False)


def parse(text: str, kinds: tuple[str, ...] = ()) -> Record:
    """Read one stdin line: a record, or a bare path.

    Args:
        text: the line.
        kinds: that are usable, where that is known.

    >>> parse("runs/a/best.safetensors")
    {'path': 'runs/a/best.safetensors'}

    Raises:
        InputError: JSON without a path, or of another kind.
    """
    text = text.strip()
    if not text.startswith("{"):
        return {"path": text}
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"stdin holds a broken record: {shown(text)}") from None
    if not isinstance(record.get("path"), str):
        kind = record.get("kind")
        if kind is None:
            raise InputError(f"stdin holds no record of advkit's, but {shown(text)}")
        if kinds:
            _require_kind(kind, kinds)
        raise InputError(f"{_a(kind)} record on stdin has no path")
    return dict(record)


def wanted(record: Record, kinds: tuple[str, ...]) -> str:
    """Return the record's path, having checked that its kind is usable.

    Raises:
        InputError: another kind.
    """
    _require_kind(record.get("kind"), kinds)
    return str(record["path"])


def _a(kind: object) -> str:
    word = brief(kind)
    return f"{'an' if word[:1] in 'aeiou' else 'a'} {word}"


def _require_kind(kind: object, kinds: tuple[str, ...]) -> None:
    if kind is not None and kind not in kinds:
        words = " or ".join(kinds)
        raise InputError(f"got {_a(kind)} record, wanted: {words}{files.maker(words)}")


def shown(text: str, width: int = 60) -> str:
    """Return a piece of foreign text that is safe in one line."""
    clean = text.encode("unicode_escape").decode()
    return repr(clean if len(clean) <= width else clean[: width - 1] + "…")


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has neither NaN nor infinity, and jq stops at them
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value

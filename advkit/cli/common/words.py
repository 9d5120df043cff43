"""Words of a record's line: a figure in percent, a number with its interval, a run by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath

from advkit.artifacts.record import Record

Words = Callable[[Record], str]
"""A record → a few words of its line, none where there is nothing to say."""


def share(key: str, label: str, interval: str = "") -> Words:
    """Give an accuracy or another share in percent, with its interval where it has one."""

    def say(record: Record) -> str:
        value = record.get(key)
        if not isinstance(value, int | float):
            return ""
        return f"{label} {100 * value:.1f} %{_ends(record.get(interval), '.1f')}"

    return say


def number(key: str, label: str = "", interval: str = "") -> Words:
    """Give a number to four digits, with its interval where it has one."""

    def say(record: Record) -> str:
        value = record.get(key)
        if not isinstance(value, int | float):
            return ""
        return f"{label or key} {_digits(value)}{_ends(record.get(interval), '')}"

    return say


def text(key: str, label: str = "") -> Words:
    """Give a word of the record."""

    def say(record: Record) -> str:
        value = record.get(key)
        return f"{label} {value}".strip() if value not in (None, "") else ""

    return say


def difference(what: str) -> Words:
    """Give the difference of two files' accuracies in points, with its interval."""

    def say(record: Record) -> str:
        value = record.get(f"{what}_difference")
        if not isinstance(value, int | float):
            return ""
        ends = [record.get(f"{what}_difference_{end}") for end in ("low", "high")]
        return f"{what} {100 * value:+.1f} points{_ends(ends, '+.1f')}"

    return say


def run_named(record: Record) -> str:
    """Return the run that a record is about, and which of its checkpoints unless it is the best.

    >>> run_named({"run": "at-s0", "path": "runs/at-s0/final.safetensors"})
    'at-s0/final'
    """
    path = record.get("checkpoint") or record.get("path")
    stem = PurePath(str(path)).stem if path else ""
    run = record.get("run")
    if run is None:
        return file_named(str(path)) if path else ""
    return str(run) if stem in ("", "best") else f"{run}/{stem}"


def file_named(path: str) -> str:
    """Return the run of a file and what else its name says.

    >>> file_named("runs/at-s0/best.fgsm-linf-0.15.h5"), file_named("a.h5")
    ('at-s0 fgsm-linf-0.15', 'a')
    """
    place = PurePath(path)
    folder, stem = place.parent.name, place.stem
    if not folder:
        return stem
    return folder if stem == "best" else f"{folder} {stem.removeprefix('best.')}"


def _digits(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _ends(pair: object, form: str) -> str:
    """Return an interval, in percent where a form is given; nothing where one end is missing."""
    if not isinstance(pair, Sequence) or not all(isinstance(end, int | float) for end in pair):
        return ""
    shown = [f"{100 * end:{form}}" if form else _digits(end) for end in pair]
    return f" [{', '.join(shown)}]"

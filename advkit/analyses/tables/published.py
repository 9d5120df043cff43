"""The papers' and the leaderboard's figures, as the files of `figures/` beside it hold them."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

from advkit.analyses.gathering.groups import Column
from advkit.errors import UsageError, unknown

FOLDER = Path(__file__).parent / "figures"
KEY = ("data", "arch", "label", "settings", "extra", "point")
"""Columns that runs of one line of a paper's table share."""


@dataclass(frozen=True)
class Line:
    """One line of a published table at one point of training.

    `label` is the paper's name of the method and `method` ours (empty: none of ours); `settings`
    are options that make it another line of the same method. `point` is best, final or unsaid
    (empty). `robust` and `clean` are shares in [0, 1], one a run.
    """

    data: str
    arch: str
    label: str
    method: str
    settings: Mapping[str, float | str]
    extra: bool
    point: str
    attack: str
    eps: str
    robust: tuple[float, ...]
    clean: tuple[float, ...]
    seconds: float | None
    note: str

    def column(self, what: str) -> Column:
        """Return `robust` or `clean` accuracy."""
        return Column(self.robust if what == "robust" else self.clean)


class Paper(TypedDict):
    """How a source made its figures, where that is known; see `figures/sources.toml`.

    `training` are beginnings of the sources of the rules of `preset` that say how it trained.
    """

    source: str
    training: list[str]
    preset: str
    examples: dict[str, int]
    selection: str
    attack_bn: str
    awp_form: str
    autoattack: str
    notes: list[str]


@dataclass(frozen=True)
class Published:
    """One published table: its lines, and how its figures were made."""

    title: str
    paper: Paper
    notes: tuple[str, ...]
    lines: tuple[Line, ...]


def names(*, seconds: bool = False) -> list[str]:
    """Return the tables there are, of accuracies or of seconds per epoch."""
    timed = {row["table"]: bool(row["seconds"]) for row in _rows()}
    return [name for name, is_time in timed.items() if is_time == seconds]


def read(name: str, *, seconds: bool = False) -> Published:
    """Return a published table by name.

    Raises:
        UsageError: there is none of that name, or it holds what the other analysis compares.
    """
    if name in names(seconds=not seconds):
        figures, other = ("accuracies", "table") if seconds else ("seconds per epoch", "cost")
        raise UsageError(f"{name} holds {figures}: advkit analyze {other} --against {name}")
    known = names(seconds=seconds)
    if name not in known:
        raise unknown("published table", name, known)
    sources = tomllib.loads((FOLDER / "sources.toml").read_text(encoding="utf-8"))
    # `adr-table1` is a table of the paper `adr`.
    table, paper = sources["table"][name], sources["paper"][name.split("-")[0]]
    notes = (*table.get("notes", ()), *(() if seconds else paper["notes"]))
    return Published(table["title"], paper, notes, _lines(name))


def _lines(name: str) -> tuple[Line, ...]:
    """Return the lines in the order of the file, runs of one line taken together."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in _rows():
        if row["table"] == name:
            groups.setdefault(tuple(row[key] for key in KEY), []).append(row)
    return tuple(_line(rows) for rows in groups.values())


def _line(rows: list[dict[str, str]]) -> Line:
    first = rows[0]
    # Percent by 100 may miss the float nearest to the printed figure; rounding restores it.
    robust, clean = (
        tuple(round(float(row[what]) / 100, 6) for row in rows if row[what])
        for what in ("robust", "clean")
    )
    pairs = (word.split("=") for word in first["settings"].split() if word)
    names = ("data", "arch", "label", "method", "point", "attack", "eps", "note")
    return Line(
        **{name: first[name] for name in names},
        settings={key: _setting(value) for key, value in pairs},
        extra=bool(first["extra"]),
        robust=robust,
        clean=clean,
        seconds=float(first["seconds"]) if first["seconds"] else None,
    )


def _setting(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:  # a choice, such as train_attack=fgsm-rs
        return word


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with (FOLDER / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))

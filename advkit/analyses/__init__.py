"""Analyses: numbers, a table and pictures from files, without a model.

Each part declares the artifact kinds it takes in `KINDS`, and `COMPARES = True` if it looks at
all its inputs at once (otherwise it gets them one by one). `PROBES = True` asks for a checkpoint's
model and data, a `_probe.Probe` each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from advkit.artifacts.document import Document
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import Rows, height
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import InputError, UsageError

Number = float | int | str | list[float] | None
"""A figure of a record; a list is an interval (low, high)."""

Panel = Callable[[Any], None]
"""Draws on one matplotlib Axes."""

Layer = Callable[[Any, str, int], None]
"""Draws on one matplotlib Axes that others draw on too, under a name and in the place's colour."""


@dataclass(frozen=True)
class Histogram:
    """Counts of several series over the same bins: what a terminal can draw."""

    title: str
    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Curve:
    """Values of several series over the same x: what a terminal can draw. None is a gap."""

    title: str
    x: tuple[float, ...]
    series: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Result:
    """What an analysis found.

    `numbers` go to the record, under stable names; `columns` and `rows` are the whole table;
    `panels` draw the picture side by side; `sketches` serve a terminal; `text` is a table for
    a person; `groups` are rows taken together, plain objects for the record and JSON. `verdict`
    says why a verdict that was asked for is negative; empty if it is not. Where several results
    with an `overlay` are drawn, layers in the same place share a panel, instead of a row each.
    `more` are other plain lists and objects for the record and JSON; `document` is what
    `-o FILE.md`, `.tex` and `.html` hold, for parts that name them in `FORMATS`.
    """

    numbers: Mapping[str, Number]
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    panels: tuple[Panel, ...] = ()
    sketches: tuple[Histogram | Curve, ...] = ()
    text: str = ""
    groups: tuple[dict[str, Any], ...] = ()
    verdict: str = ""
    overlay: tuple[Layer, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    document: Document | None = None


def rows_of(artifact: Logits | SoftLabels) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (logits (B, C), labels (B,), rows (B,)) piece by piece: clean ones, or all views.

    `rows` are the examples' places in the file.
    """
    step = height(artifact.clean if isinstance(artifact, Logits) else artifact.logits)
    for start in range(0, len(artifact.labels), step):
        here = slice(start, start + step)
        y = artifact.labels[here]
        rows = torch.arange(start, start + len(y))
        if isinstance(artifact, Logits):
            yield artifact.clean[here], y, rows
            continue
        piece = artifact.piece(here)
        for view in range(piece.logits.shape[1]):
            yield piece.at(rows - start, torch.full_like(rows, view)), y, rows


def parse_temperatures(text: str) -> list[float]:
    """Read `1,2,5` as increasing temperatures.

    Raises:
        UsageError: not positive numbers apart by commas.
    """
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] <= 0 or not math.isfinite(found[-1]):
        raise UsageError(f"--temperatures {text!r}: positive numbers apart by commas")
    return found


def aligned(lines: Sequence[Sequence[object]]) -> str:
    """Return a table as text, columns aligned; floats with three decimals.

    >>> print(aligned([("T", "entropy"), (1.0, 0.25)]))
    T  entropy
    1  0.250
    """
    shown = [[_cell(column, cell) for column, cell in enumerate(line)] for line in lines]
    widths = [max(len(line[place]) for line in shown) for place in range(len(shown[0]))]
    padded = ["  ".join(c.ljust(w) for c, w in zip(x, widths, strict=True)) for x in shown]
    return "\n".join(line.rstrip() for line in padded)


def _cell(column: int, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}" if column == 0 else f"{value:.3f}"
    return str(value)


def conditions(logits: Logits) -> dict[str, Rows]:
    """Return the logits (N, C) of each condition there is: clean, and adversarial if attacked."""
    found = {"clean": logits.clean}
    if logits.adversarial is not None:
        found["adversarial"] = logits.adversarial
    return found


def require_labels(logits: Logits, what: str) -> Tensor:
    """Return the labels (N,).

    Raises:
        InputError: the file holds out-of-distribution data, which has none.
    """
    if bool((logits.labels < 0).any()):
        raise InputError(f"{logits.path}: {what} needs labels; this file is out-of-distribution")
    return logits.labels

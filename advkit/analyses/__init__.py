"""Analyses: numbers, a table and pictures from files, without a model.

Each part declares the artifact kinds it takes in `KINDS`, and `COMPARES = True` if it looks at
all its inputs at once (otherwise it gets them one by one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError

Panel = Callable[[Any], None]
"""Draws on one matplotlib Axes."""


@dataclass(frozen=True)
class Histogram:
    """Counts of several series over the same bins: what a terminal can draw."""

    title: str
    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Result:
    """What an analysis found.

    `numbers` go to the record, under stable names; `columns` and `rows` are the whole table;
    `panels` draw the picture side by side; `histograms` serve a terminal; `text` is a table for
    a person.
    """

    numbers: dict[str, float | int | str | None]
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    panels: tuple[Panel, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    text: str = ""


def conditions(logits: Logits) -> dict[str, Tensor]:
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

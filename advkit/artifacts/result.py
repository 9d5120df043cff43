"""What an analysis gives: numbers, a table's rows, and what to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from advkit.artifacts.document import Document

Number = float | int | str | list[float] | None
"""A figure of a record; a list is an interval (low, high)."""


if TYPE_CHECKING:  # an analysis that draws nothing does not wait for matplotlib
    from matplotlib.axes import Axes

Panel = Callable[["Axes"], None]
"""Draws on one matplotlib Axes."""


Layer = Callable[["Axes", str, int], None]
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
    """What an analysis gives.

    `numbers` go to the record, under stable names; `columns` and `rows` are the whole table;
    `panels` draw the picture side by side; `sketches` serve a terminal; `text` is a table for
    a person; `groups` are rows taken together, plain objects for the record and JSON. `verdict`
    says why a verdict that was asked for is negative; empty if it is not. Where several results
    with an `overlay` are drawn into shared panels, layers in the same place share one; with
    `together` they are so without being asked.
    `heading` stands over the panels of several inputs taken together: the one net that they are of.
    `more` are other plain lists and objects for the record and JSON; `document` is what
    `-o FILE.md`, `.tex` and `.html` hold, for parts that name them in `FORMATS`. The record of a
    result with a `text` holds its rows too, unless `brief` says that they are too many.
    """

    numbers: Mapping[str, Number]
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    panels: tuple[Panel, ...] = ()
    sketches: tuple[Histogram | Curve, ...] = ()
    text: str = ""
    groups: tuple[Mapping[str, object], ...] = ()
    verdict: str = ""
    overlay: tuple[Layer, ...] = ()
    together: bool = False
    heading: str = ""
    more: Mapping[str, object] = field(default_factory=dict)
    document: Document | None = None
    brief: bool = False

"""A difference with its interval, and the panel that shows several against zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from advkit.analyses.drawing.panels import Interval, forest
from advkit.artifacts.result import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, Interval | None]
LEGEND = 0.14
"""Share of the axis that a line of the legend needs."""


def differences(
    names: Sequence[str],
    series: Mapping[str, Sequence[Point | None]],
    *,
    xlabel: str,
    title: str = "",
) -> Panel:
    """Return a panel of points and intervals, top down, with a line where nothing differs.

    Args:
        names: of the lines.
        series: name → difference and interval of each line, None where there is none. A single
            series is not named in the picture.
        xlabel: with its unit.
        title: above the panel.
    """
    # matplotlib leaves a name that begins with _ out of the legend.
    shown = {"_": next(iter(series.values()))} if len(series) == 1 else series
    inner = forest(names, shown, xlabel=xlabel, title=title)

    def draw(axes: Axes) -> None:
        axes.axvline(0, color="black", linewidth=0.8)
        inner(axes)
        axes.margins(x=0.08)
        if len(series) > 1:  # a place below the lines, so that the legend covers none
            free = LEGEND * len(series)
            axes.set_ylim(-0.5 + len(names) / (1 - free), -0.5)

    return draw


def interval_text(ends: tuple[float, float, float], digits: int, unit: str = "") -> str:
    """Return (value, low, high) as `+1.20 [-0.30, +2.70] unit`.

    >>> interval_text((1.2, -0.3, 2.7), 2, "points")
    '+1.20 [-0.30, +2.70] points'
    """
    value, low, high = (f"{end:+.{digits}f}" for end in ends)
    return f"{value} [{low}, {high}] {unit}".rstrip()

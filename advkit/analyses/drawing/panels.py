"""Panels that analyses share: histogram, curve, intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from advkit.analyses.drawing.style import GREY, Look, look
from advkit.artifacts.result import Layer, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 1.3
"""Least ratio of two labelled points on a logarithmic axis."""
NEAR = 0.015
"""Share of an axis within which two curves lie on each other."""
EDGE = 0.03
"""Room beyond 0 and 1, so that points there are whole."""

Interval = tuple[float, float]
Values = Sequence[float | None]


def in_percent(axes: Axes, which: Literal["x", "y"], label: str) -> None:
    """Write an axis of shares in percent, with its label."""
    from advkit.analyses.drawing.ticks import Percents, Shares

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(Shares(nbins="auto", steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(Percents(1, symbol=None))
    what, comma, more = label.partition(",")
    axis.set_label_text(f"{what} (%){comma}{more}")


def whole(axes: Axes, which: Literal["x", "y"]) -> None:
    """Show an axis from 0 to 1 with room beyond both ends."""
    (axes.set_xlim if which == "x" else axes.set_ylim)(-EDGE, 1 + EDGE)


def curve(
    x: Sequence[float],
    series: Mapping[str, Values],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    logx: bool = False,
    percent: bool = False,
    intervals: Mapping[str, Sequence[Interval | None]] | None = None,
    level: tuple[str, float] | None = None,
) -> Panel:
    """Return a panel with a line and markers a series; None leaves a gap.

    A series that runs behind a later one is drawn broad and pale under it, with open markers.

    Args:
        x: shared by all series.
        series: name → values.
        xlabel: with its unit.
        ylabel: with its unit, which is left out where `percent` writes it.
        title: above the panel.
        logx: logarithmic x axis.
        percent: values are shares, written in percent.
        intervals: name → (low, high) of each value, shaded behind the line.
        level: a name and a value that the curves are measured by: a line across.
    """

    def draw(axes: Axes) -> None:
        if level is not None:
            axes.axhline(level[1], color=GREY, linewidth=1, linestyle="--", label=level[0])
        covered = hidden(list(series.values()))
        for place, (name, values) in enumerate(series.items()):
            line(axes, x, values, name, look(place), beneath=place in covered)
            if intervals and name in intervals:
                shade(axes, x, intervals[name], look(place).colour)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if percent:
            in_percent(axes, "y", ylabel)
        if logx:
            logarithmic(axes, x)

    return draw


def layer(
    x: Sequence[float],
    values: Values,
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    logx: bool = False,
    percent: bool = False,
    intervals: Sequence[Interval | None] | None = None,
) -> Layer:
    """Return a layer with one curve, for a panel of several nets; see `curve`."""

    def draw(axes: Axes, name: str, place: int) -> None:
        line(axes, x, values, name, look(place), size=size(place))
        if intervals is not None:
            shade(axes, x, intervals, look(place).colour)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if percent:
            in_percent(axes, "y", ylabel)
        if logx:
            logarithmic(axes, x)

    return draw


def line(
    axes: Axes,
    x: Sequence[float],
    values: Values,
    name: str,
    own: Look,
    *,
    beneath: bool = False,
    size: float = 1.0,
) -> None:
    """Draw one curve; `beneath` another one, so broad that it shows on both sides of that.

    `size` enlarges its line and markers.
    """
    y = [math.nan if value is None else value for value in values]  # NaN breaks the line
    axes.plot(
        x,
        y,
        marker=own.marker,
        markersize=8 if beneath else 3.5 * size,
        markerfacecolor="none" if beneath else own.colour,
        linewidth=4.5 if beneath else 1.3 * size,
        linestyle="-" if beneath else own.line,
        color=f"{own.colour}80" if beneath else own.colour,
        markeredgecolor=own.colour,
        label=name,
        clip_on=False,  # points on the frame are whole
    )


def size(place: int) -> float:
    """Return how much larger a net's line is than the last ones': those above leave it seen.

    >>> [size(place) for place in range(5)]
    [2.05, 1.7, 1.35, 1.0, 1.0]
    """
    return round(max(1.0, 2.05 - 0.35 * place), 2)


def shade(
    axes: Axes, x: Sequence[float], intervals: Sequence[Interval | None], colour: str
) -> None:
    """Draw intervals as a band."""
    ends = [interval or (math.nan, math.nan) for interval in intervals]
    low, high = zip(*ends, strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def logarithmic(axes: Axes, x: Sequence[float]) -> None:
    """Make the x axis logarithmic, with the measured points as its ticks."""
    axes.set_xscale("log")
    axes.set_xticks(list(x), _spread(x))
    axes.minorticks_off()


def hidden(series: Sequence[Values]) -> set[int]:
    """Return the places of the curves that a later one covers wherever both are known.

    >>> hidden([[1.0, 0.5], [1.0, 0.501], [0.0, 0.0]])
    {0}
    """
    known = [value for values in series for value in values if value is not None]
    near = NEAR * ((max(known) - min(known)) if known else 0.0)
    covered = set()
    for place, values in enumerate(series):
        for later in series[place + 1 :]:
            both = [
                (a, b)
                for a, b in zip(values, later, strict=True)
                if a is not None and b is not None
            ]
            if both and all(abs(a - b) <= near for a, b in both):
                covered.add(place)
    return covered


def forest(
    names: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, Interval | None] | None]],
    *,
    xlabel: str,
    title: str = "",
    percent: bool = False,
) -> Panel:
    """Return a panel with a line a name, top down: a point and its interval for each series.

    Args:
        names: of the lines.
        series: name → point and interval of each line, None where there is none.
        xlabel: with its unit, which is left out where `percent` writes it.
        title: above the panel.
        percent: values are shares, written in percent.
    """

    def draw(axes: Axes) -> None:
        shift = 0.6 / max(len(series), 1)
        for place, (name, values) in enumerate(series.items()):
            own = look(place)
            known = [(row, *point) for row, point in enumerate(values) if point is not None]
            centres = [value for _, value, _ in known]
            ends = [interval or (value, value) for _, value, interval in known]
            # Series of one line lie beside each other around its middle.
            heights = [row + (place - (len(series) - 1) / 2) * shift for row, _, _ in known]
            axes.errorbar(
                centres,
                heights,
                xerr=lengths(centres, ends),
                fmt=own.marker,
                color=own.colour,
                markersize=4,
                capsize=2,
                linewidth=1.2,
                label=name,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first name on top
        axes.set(xlabel=xlabel, title=title)
        axes.grid(visible=False, axis="y")
        if percent:
            in_percent(axes, "x", xlabel)

    return draw


def lengths(centres: Sequence[float], ends: Sequence[Interval]) -> list[list[float]]:
    """Return how far intervals reach below and above their centres, as `errorbar` wants it."""
    # Rounding can put an end a little on the wrong side, and a negative length is an error.
    below = [max(c - low, 0) for c, (low, _) in zip(centres, ends, strict=True)]
    above = [max(high - c, 0) for c, (_, high) in zip(centres, ends, strict=True)]
    return [below, above]


def _spread(x: Sequence[float]) -> list[str]:
    """Label points of a logarithmic axis, but for those too near to the label before."""
    labels, last = [], 0.0
    for value in x:
        near = last > 0 and value / last < APART
        labels.append("" if near else f"{value:g}")
        last = last if near else value
    return labels

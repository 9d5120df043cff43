"""Panels that analyses share: histogram, curve, intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advkit.analyses.drawing.plot import COLOURS, CYCLE, HATCHES
from advkit.artifacts.result import Histogram, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADROOM = 1.35
"""Of a histogram's axis over its highest bar, so that the legend has a place."""
APART = 1.3
"""Least ratio of two labelled points on a logarithmic axis."""
MARKERS = "os^Dv"
BINS = ("series", "low", "high", "count")
"""Columns of `bin_rows`."""

Interval = tuple[float, float]


def look(place: int) -> tuple[str, str]:
    """Return colour and marker of a series by its place among those of a panel."""
    return CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)]


def histogram(data: Histogram, xlabel: str) -> Panel:
    """Return a panel with the share of examples per bin, one outline a series."""

    def draw(axes: Axes) -> None:
        for place, (series, counts) in enumerate(data.counts.items()):
            total = max(sum(counts), 1)  # no example, such as none wrong: an outline along zero
            shares = [count / total for count in counts]
            colour = COLOURS.get(series, CYCLE[place % len(CYCLE)])
            axes.stairs(
                shares,
                data.edges,
                fill=True,
                facecolor=f"{colour}40",  # a quarter opaque: series behind show through
                edgecolor=colour,
                linewidth=1.2,
                hatch=HATCHES.get(series),
                label=f"{series} (n = {sum(counts)})",
            )
        axes.set(xlabel=xlabel, ylabel="share of examples", title=data.title)
        axes.set_xlim(data.edges[0], data.edges[-1])
        axes.set_ylim(0, axes.dataLim.ymax * HEADROOM or 1)  # 0 to 0 would be no axis

    return draw


def curve(
    x: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    logx: bool = False,
    intervals: Mapping[str, Sequence[Interval | None]] | None = None,
) -> Panel:
    """Return a panel with a line and markers a series; None leaves a gap.

    Args:
        x: shared by all series.
        series: name → values.
        xlabel: with its unit.
        ylabel: with its unit.
        title: above the panel.
        logx: logarithmic x axis.
        intervals: name → (low, high) of each value, shaded behind the line.
    """

    def draw(axes: Axes) -> None:
        for place, (name, values) in enumerate(series.items()):
            colour, marker = look(place)
            y = [math.nan if value is None else value for value in values]  # NaN breaks the line
            axes.plot(x, y, marker=marker, markersize=3.5, linewidth=1.3, color=colour, label=name)
            if intervals and name in intervals:
                ends = [interval or (math.nan, math.nan) for interval in intervals[name]]
                low, high = zip(*ends, strict=True)
                axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if logx:
            axes.set_xscale("log")
            # A log axis marks powers of ten by itself: here its ticks are the measured points.
            axes.set_xticks(list(x), _spread(x))
            axes.minorticks_off()

    return draw


def forest(
    names: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, Interval | None] | None]],
    *,
    xlabel: str,
    title: str = "",
) -> Panel:
    """Return a panel with a line a name, top down: a point and its interval for each series."""

    def draw(axes: Axes) -> None:
        shift = 0.6 / max(len(series), 1)
        for place, (name, values) in enumerate(series.items()):
            colour, marker = look(place)
            known = [(row, *point) for row, point in enumerate(values) if point is not None]
            centres = [value for _, value, _ in known]
            ends = [interval or (value, value) for _, value, interval in known]
            # Series of one line lie beside each other around its middle.
            heights = [row + (place - (len(series) - 1) / 2) * shift for row, _, _ in known]
            axes.errorbar(
                centres,
                heights,
                xerr=lengths(centres, ends),
                fmt=marker,
                color=colour,
                markersize=4,
                capsize=2,
                linewidth=1.2,
                label=name,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first name on top
        axes.set(xlabel=xlabel, title=title)
        axes.grid(visible=False, axis="y")

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


def counted(values: Tensor, bins: int, top: float) -> tuple[int, ...]:
    """Count values over equal bins of [0, top]; rounding beyond the ends counts inside."""
    counts = torch.histc(values.double().clamp(0, top), bins, 0, top)
    return tuple(int(count) for count in counts)


def bin_rows(
    edges: Sequence[float], counts: Mapping[str, Sequence[int]]
) -> tuple[tuple[str, float, float, int], ...]:
    """Return a table of histograms over the same bins, a row a bin of a series."""
    return tuple(
        (series, low, high, count)
        for series, of_bins in counts.items()
        for low, high, count in zip(edges, edges[1:], of_bins, strict=False)
    )


def edges(bins: int, top: float) -> tuple[float, ...]:
    """Return the bins + 1 edges of equal bins of [0, top]."""
    return tuple(top * place / bins for place in range(bins + 1))

"""Histograms: counts over bins, their panels, and nets that share one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advkit.analyses.drawing.panels import in_percent
from advkit.analyses.drawing.style import COLOURS, CYCLE, HATCHES, Look, look
from advkit.artifacts.result import Histogram, Layer, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADROOM = 1.35
"""Of a histogram's axis over its highest bar, so that the legend has a place."""
FEW = 10
"""Examples below which a histogram shows each one: as bars they would dwarf those of hundreds."""
BINS = ("series", "low", "high", "count")
"""Columns of `bin_rows`."""


def histogram(data: Histogram, xlabel: str, top: float | None = None) -> Panel:
    """Return a panel with the share of examples per bin, one outline a series.

    Beside longer ones, a series of few examples is drawn as a mark each, over its bin.

    Args:
        data: what is drawn.
        xlabel: with its unit.
        top: highest bar that the axis is to hold; the panel's own if not given.
    """

    def draw(axes: Axes) -> None:
        totals = {series: sum(counts) for series, counts in data.counts.items()}
        plenty = any(total >= FEW for total in totals.values())
        for place, (series, counts) in enumerate(data.counts.items()):
            own = look(place)._replace(colour=COLOURS.get(series, look(place).colour))
            if plenty and totals[series] < FEW:
                _marks(
                    axes, data.edges, counts, own, f"{series} (n = {totals[series]}, a mark each)"
                )
                continue
            axes.stairs(
                shares(counts),
                data.edges,
                fill=True,
                facecolor=f"{own.colour}40",  # a quarter opaque: series behind show through
                edgecolor=own.colour,
                linewidth=1.2,
                linestyle=own.line,
                hatch=HATCHES.get(series),
                label=f"{series} (n = {totals[series]})",
            )
        axes.set(xlabel=xlabel, title=data.title)
        axes.set_xlim(data.edges[0], data.edges[-1])
        axes.set_ylim(
            0, (highest(data) if top is None else top) * HEADROOM or 1
        )  # 0 to 0 would be no axis
        in_percent(axes, "y", "examples")

    return draw


def outline(data: Histogram, series: str, xlabel: str, title: str) -> Layer:
    """Return a layer with one series as an outline, for a panel of several nets.

    Each net has its marks at places of its own, so that outlines which coincide are seen.
    """

    def draw(axes: Axes, name: str, place: int) -> None:
        own, counts = look(place), data.counts[series]
        axes.stairs(
            shares(counts),
            data.edges,
            color=own.colour,
            linewidth=1.6,
            linestyle=own.line,
        )
        at = (place % len(CYCLE) + 0.5) / len(CYCLE)
        tops = [
            (low + at * (high - low), share)
            for low, high, share in zip(data.edges, data.edges[1:], shares(counts), strict=False)
            if share
        ]
        axes.plot(*zip(*tops, strict=True), own.marker, color=own.colour, markersize=3.5)
        axes.plot(
            [],
            [],
            color=own.colour,
            marker=own.marker,
            markersize=3.5,
            linewidth=1.6,
            linestyle=own.line,
            label=f"{name} (n = {sum(counts)})",
        )
        axes.set(xlabel=xlabel, title=title)
        axes.set_xlim(data.edges[0], data.edges[-1])
        axes.set_ylim(0, max(axes.get_ylim()[1] if place else 0, max(shares(counts)) * HEADROOM))
        in_percent(axes, "y", "examples")

    return draw


def shares(counts: Sequence[int]) -> list[float]:
    """Return counts as shares of their sum; zeros where there is no example."""
    total = max(sum(counts), 1)
    return [count / total for count in counts]


def highest(data: Histogram) -> float:
    """Return the highest bar of the series that are drawn as bars."""
    bars = [counts for counts in data.counts.values() if sum(counts) >= FEW]
    return max(max(shares(counts)) for counts in bars or data.counts.values())


def _marks(
    axes: Axes, edges: Sequence[float], counts: Sequence[int], own: Look, label: str
) -> None:
    """Draw a mark for each example in the middle of its bin, one over the other from below."""
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    x = [middle for middle, count in zip(middles, counts, strict=True) for _ in range(count)]
    y = [0.04 + 0.06 * level for count in counts for level in range(count)]
    axes.scatter(
        x,
        y,
        marker="D",
        s=22,
        facecolors="white",
        edgecolors=own.colour,
        linewidths=1.3,
        transform=axes.get_xaxis_transform(),  # heights in shares of the axis
        clip_on=False,
        zorder=4,
        label=label,
    )


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

"""Panels that analyses share: histogram, curve, map, scatter, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from advkit.analyses.drawing.plot import COLOURS, CYCLE, HATCHES
from advkit.artifacts.result import Histogram, Panel

HEADROOM = 1.35
"""Of a histogram's axis over its highest bar, so that the legend has a place."""
APART = 1.3
"""Least ratio of two labelled points on a logarithmic axis."""
MARKERS = "os^Dv"

Interval = tuple[float, float]


def histogram(data: Histogram, xlabel: str) -> Panel:
    """Return a panel with the share of examples per bin, one outline a series."""

    def draw(axes: Any) -> None:
        for place, (series, counts) in enumerate(data.counts.items()):
            total = max(sum(counts), 1)
            shares = [count / total for count in counts]
            colour = COLOURS.get(series, CYCLE[place % len(CYCLE)])
            axes.stairs(
                shares,
                data.edges,
                fill=True,
                facecolor=f"{colour}40",
                edgecolor=colour,
                linewidth=1.2,
                hatch=HATCHES.get(series),
                label=f"{series} (n = {sum(counts)})",
            )
        axes.set(xlabel=xlabel, ylabel="share of examples", title=data.title)
        axes.set_xlim(data.edges[0], data.edges[-1])
        axes.set_ylim(0, axes.dataLim.ymax * HEADROOM or 1)

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

    def draw(axes: Any) -> None:
        for place, (name, values) in enumerate(series.items()):
            colour = CYCLE[place % len(CYCLE)]
            y = [float("nan") if value is None else value for value in values]
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(x, y, marker=marker, markersize=3.5, linewidth=1.3, color=colour, label=name)
            if intervals and name in intervals:
                nothing = (float("nan"), float("nan"))
                ends = [each or nothing for each in intervals[name]]
                low, high = ([end[side] for end in ends] for side in (0, 1))
                axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if logx:
            axes.set_xscale("log")
            axes.set_xticks(list(x), _spread(x))
            axes.minorticks_off()

    return draw


def heatmap(
    x: Sequence[str],
    y: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    xlabel: str,
    ylabel: str,
    unit: str,
    title: str = "",
) -> Panel:
    """Return a panel with a coloured, numbered cell for each (row of `y`, column of `x`)."""

    def draw(axes: Any) -> None:
        shown = [[float("nan") if v is None else v for v in line] for line in values]
        image = axes.imshow(shown, cmap="cividis", aspect="auto", origin="lower")
        low, high = image.get_clim()
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if value is not None:
                    dark = high > low and (value - low) / (high - low) < 0.6
                    axes.text(
                        column,
                        row,
                        f"{value:.3g}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else "black",
                    )
        axes.set_xticks(range(len(x)), x)
        axes.set_yticks(range(len(y)), y)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axes.grid(visible=False)
        axes.figure.colorbar(image, ax=axes, label=unit)

    return draw


def scatter(
    points: Mapping[str, Sequence[tuple[float, float]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    hollow: Sequence[str] = (),
) -> Panel:
    """Return a panel with a cloud a series; `hollow` series are drawn as rings."""

    def draw(axes: Any) -> None:
        for place, (name, cloud) in enumerate(points.items()):
            colour = COLOURS.get(name, CYCLE[place % len(CYCLE)])
            face = "none" if name in hollow else colour
            axes.scatter(
                [point[0] for point in cloud],
                [point[1] for point in cloud],
                s=7,
                marker=MARKERS[place % len(MARKERS)],
                facecolors=face,
                edgecolors=colour,
                linewidths=0.6,
                alpha=0.8,
                label=f"{name} (n = {len(cloud)})",
            )
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)

    return draw


def forest(
    names: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, Interval | None] | None]],
    *,
    xlabel: str,
    title: str = "",
) -> Panel:
    """Return a panel with a line a name, top down: a point and its interval for each series."""

    def draw(axes: Any) -> None:
        shift = 0.6 / max(len(series), 1)
        for place, (name, values) in enumerate(series.items()):
            colour, marker = CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)]
            rows = [row for row, value in enumerate(values) if value is not None]
            known = [value for value in values if value is not None]
            centres = [value for value, _ in known]
            ends = [interval or (value, value) for value, interval in known]
            below = [max(c - low, 0) for c, (low, _) in zip(centres, ends, strict=True)]
            above = [max(high - c, 0) for c, (_, high) in zip(centres, ends, strict=True)]
            height = [row + (place - (len(series) - 1) / 2) * shift for row in rows]
            axes.errorbar(
                centres,
                height,
                xerr=[below, above],
                fmt=marker,
                color=colour,
                markersize=4,
                capsize=2,
                linewidth=1.2,
                label=name,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(xlabel=xlabel, title=title)
        axes.grid(visible=False, axis="y")

    return draw


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


def edges(bins: int, top: float) -> tuple[float, ...]:
    """Return the bins + 1 edges of equal bins of [0, top]."""
    return tuple(top * place / bins for place in range(bins + 1))

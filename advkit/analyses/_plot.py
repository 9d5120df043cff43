"""How every picture looks, and where it goes.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; text is legible at the
width of a paper's column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.analyses import Histogram, Panel, Result
from advkit.artifacts import files
from advkit.errors import UsageError

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", GREY)
COLOURS = {
    "clean": BLUE,
    "adversarial": ORANGE,
    "clean, right": BLUE,
    "clean, wrong": GREEN,
    "adversarial, right": ORANGE,
    "adversarial, wrong": "#CC79A7",
}
HATCHES = {"clean, wrong": "////", "adversarial, wrong": "////"}
SUFFIXES = (".png", ".svg", ".pdf")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "advkit",
}
PANEL = (3.4, 2.7)
"""Width and height of one panel in inches."""
HEADROOM = 1.35
"""Of a histogram's axis over its highest bar, so that the legend has a place."""
APART = 1.3
"""Least ratio of two labelled points on a logarithmic axis."""
BARS = " ▁▂▃▄▅▆▇█"


def check(path: Path) -> None:
    """Refuse a picture format or a folder early.

    Raises:
        UsageError: not PNG, SVG or PDF.
        StorageError: the folder cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(SUFFIXES)}")
    files.folder(path.parent)


def save(path: Path, results: Sequence[tuple[str, Result]]) -> None:
    """Draw one row of panels for each named result and write the picture atomically.

    Raises:
        UsageError: the analysis has no picture.
        StorageError: the file cannot be written.
    """
    import matplotlib as mpl  # a second to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = max(len(result.panels) for _, result in results)
    if columns == 0:
        raise UsageError("this analysis has no picture")
    width, height = PANEL
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(results),
            columns,
            figsize=(width * columns, height * len(results)),
            squeeze=False,
            layout="constrained",
        )
        for row, (name, result) in zip(axes, results, strict=True):
            _fill(row, name, result.panels)
        _legends(figure, [each for each in axes.flat if each.get_visible()])
        stamp = {"Date": None} if path.suffix.lower() == ".svg" else {}
        stamp = {"CreationDate": None} if path.suffix.lower() == ".pdf" else stamp
        with files.replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=200, metadata=stamp)
        plt.close(figure)


def _fill(row: Sequence[Any], name: str, panels: Sequence[Panel]) -> None:
    for axes, panel in zip(row, panels, strict=False):
        panel(axes)
    for axes in row[len(panels) :]:
        axes.set_visible(False)
    row[0].set_title(f"{name}\n{row[0].get_title(loc='left')}".strip())


def _legends(figure: Any, axes: Sequence[Any]) -> None:
    """Draw one legend below everything where all panels share it, else one in each panel."""
    labels = [each.get_legend_handles_labels() for each in axes]
    if len(axes) > 1 and all(names == labels[0][1] for _, names in labels):
        figure.legend(*labels[0], loc="outside lower center", ncols=len(labels[0][1]), fontsize=8)
        return
    for each, (handles, names) in zip(axes, labels, strict=True):
        if names:
            each.legend(handles, names, fontsize=8)


def histogram(data: Histogram, xlabel: str) -> Panel:
    """Return a panel with the share of examples per bin, one outline a series."""

    def draw(axes: Any) -> None:
        for series, counts in data.counts.items():
            total = max(sum(counts), 1)
            shares = [count / total for count in counts]
            colour = COLOURS.get(series, GREY)
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
    logx: bool = False,
) -> Panel:
    """Return a panel with a line and markers a series; None leaves a gap."""

    def draw(axes: Any) -> None:
        for (name, values), colour in zip(series.items(), CYCLE, strict=False):
            y = [float("nan") if value is None else value for value in values]
            axes.plot(x, y, marker="o", markersize=3.5, linewidth=1.3, color=colour, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if logx:
            axes.set_xscale("log")
            axes.set_xticks(list(x), _spread(x))
            axes.minorticks_off()

    return draw


def _spread(x: Sequence[float]) -> list[str]:
    """Label points of a logarithmic axis, but for those too near to the label before."""
    labels, last = [], 0.0
    for value in x:
        near = last > 0 and value / last < APART
        labels.append("" if near else f"{value:g}")
        last = last if near else value
    return labels


def spark(data: Histogram) -> list[str]:
    """Return the histogram as lines of text, one a series.

    >>> spark(Histogram("h", (0.0, 1.0, 2.0), {"clean": (1, 4)}))
    ['clean  0 ▂█ 2  (n = 5)']
    """
    widest = max(len(series) for series in data.counts)
    lines = []
    for series, counts in data.counts.items():
        top = max(*counts, 1)
        bars = "".join(BARS[round(count / top * (len(BARS) - 1))] for count in counts)
        low, high = f"{data.edges[0]:g}", f"{data.edges[-1]:.3g}"
        lines.append(f"{series:<{widest}}  {low} {bars} {high}  (n = {sum(counts)})")
    return lines

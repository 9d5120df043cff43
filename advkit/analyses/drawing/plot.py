"""How every picture looks, and where it goes.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; text is legible at the
width of a paper's column.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from advkit.artifacts import files
from advkit.artifacts.result import Layer, Panel, Result
from advkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

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
STYLE: dict[RcKeyType, object] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # names of runs and classes are no formulas
    "svg.hashsalt": "advkit",  # else every SVG names its elements anew
}
PANEL = (3.4, 2.7)
"""Width and height of one panel in inches."""
LETTER = 0.065
"""Width of a letter of a legend in inches, about."""


def check(path: Path) -> None:
    """Refuse a picture format or a folder early.

    Raises:
        UsageError: not PNG, SVG or PDF, or nothing to draw with.
        StorageError: the folder cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise UsageError(
            "the package matplotlib is not installed: python -m pip install matplotlib"
        )
    files.folder(path.parent)


def save(path: Path, results: Sequence[tuple[str, Result]]) -> None:
    """Draw one row of panels for each named result and write the picture atomically.

    Results that all have an `overlay` share one row.

    Raises:
        UsageError: the analysis has no picture.
        StorageError: the file cannot be written.
    """
    from matplotlib import rc_context  # a second to import

    drawn = figure(results)
    suffix = path.suffix.lower()
    # Without the time of writing, the same results give the same bytes.
    dates = {".svg": "Date", ".pdf": "CreationDate"}
    stamp = {dates[suffix]: None} if suffix in dates else {}
    with rc_context(STYLE), files.replacing(path) as temporary:
        drawn.savefig(temporary, format=suffix[1:], dpi=200, metadata=stamp)


def figure(results: Sequence[tuple[str, Result]]) -> Figure:
    """Draw one row of panels for each named result, without a window.

    Raises:
        UsageError: the analysis has no picture.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = _overlaid(results)
    columns = max(len(result.panels) for _, result in results)
    heights = [
        max((inches(panel) for panel in result.panels), default=PANEL[1]) for _, result in results
    ]
    if columns == 0:
        raise UsageError("this analysis has no picture")
    widths = [
        max(across(result.panels[place]) for _, result in results if place < len(result.panels))
        for place in range(columns)
    ]
    with rc_context(STYLE):
        drawn = Figure(figsize=(sum(widths), sum(heights)), layout="constrained")
        FigureCanvasAgg(drawn)
        axes = drawn.subplots(
            len(results), columns, height_ratios=heights, width_ratios=widths, squeeze=False
        )
        for row, (name, result) in zip(axes, results, strict=True):
            _fill(row, name, result.panels)
        _legends(drawn, [panel for panel in axes.flat if panel.get_visible()])
    return drawn


def _overlaid(results: Sequence[tuple[str, Result]]) -> Sequence[tuple[str, Result]]:
    """Return one result in place of several that lie over each other."""
    if len(results) < 2 or not all(result.overlay for _, result in results):
        return results
    layers = zip(*(result.overlay for _, result in results), strict=True)
    names = [name for name, _ in results]
    return [("", Result({}, panels=tuple(_stacked(names, shared) for shared in layers)))]


def _stacked(names: Sequence[str], layers: Sequence[Layer]) -> Panel:
    def draw(axes: Axes) -> None:
        for place, (name, layer) in enumerate(zip(names, layers, strict=True)):
            layer(axes, name, place)

    return draw


def inches(panel: Panel) -> float:
    """Return the height of a panel: its own `inches` if it says so."""
    return float(getattr(panel, "inches", PANEL[1]))


def across(panel: Panel) -> float:
    """Return the width of a panel in inches: its own `width` if it says so."""
    return float(getattr(panel, "width", PANEL[0]))


def _fill(row: Sequence[Axes], name: str, panels: Sequence[Panel]) -> None:
    for axes, panel in zip(row, panels, strict=False):
        panel(axes)
    for axes in row[len(panels) :]:
        axes.set_visible(False)
    row[0].set_title(f"{name}\n{row[0].get_title(loc='left')}".strip())


def _legends(figure: Figure, panels: Sequence[Axes]) -> None:
    """Draw one legend below everything where all panels share it, else one in each panel."""
    labels = [panel.get_legend_handles_labels() for panel in panels]
    handles, shared = labels[0]
    if len(panels) > 1 and shared and all(names == shared for _, names in labels):
        ncols = _fitting(figure.get_figwidth(), shared)
        figure.legend(handles, shared, loc="outside lower center", ncols=ncols, fontsize=8)
        return
    for panel, (handles, names) in zip(panels, labels, strict=True):
        if names:
            panel.legend(handles, names, fontsize=8)


def _fitting(width: float, names: Sequence[str]) -> int:
    """Return how many columns of a legend fit into so many inches."""
    # Eight letters' room for the line with its marker and the gap to the next column.
    room = int(width / (LETTER * (max(map(len, names), default=0) + 8)))
    return max(1, min(room, len(names)))

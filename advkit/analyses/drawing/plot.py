"""From panels to a picture: rows, widths, shared axes, legends, and where the file goes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from advkit.analyses.drawing.style import LEAST, PANEL, PLAIN, STYLE, Frame
from advkit.artifacts import files
from advkit.artifacts.result import Layer, Panel, Result
from advkit.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
LETTER = 0.072
"""Width of a letter of a legend in inches, about."""
BESIDE = 0.55
"""Inches left and right of an axes, but for its ticks' labels, about."""
HEAD = 0.25
"""Inches of the title over all panels."""
LINE = 0.17
"""Inches of a line of a legend."""
TITLE, LEGEND = 9, 8
"""Sizes of the letters of a panel's title and of a legend."""
TIED = "\N{NO-BREAK SPACE}"
"""A space at which no line ends."""
SHORTEST = 12
"""Letters of a line below which a title is not broken."""


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


def save(path: Path, results: Sequence[tuple[str, Result]], frame: Frame = PLAIN) -> None:
    """Draw the panels of each named result and write the picture atomically.

    Raises:
        UsageError: the analysis has no picture.
        MismatchError: these results cannot share panels.
        StorageError: the file cannot be written.
    """
    from matplotlib import rc_context  # a second to import

    drawn = figure(results, frame)
    suffix = path.suffix.lower()
    # Without the time of writing, the same results give the same bytes.
    dates = {".svg": "Date", ".pdf": "CreationDate"}
    stamp = {dates[suffix]: None} if suffix in dates else {}
    with rc_context(STYLE), files.replacing(path) as temporary:
        drawn.savefig(temporary, format=suffix[1:], dpi=200, metadata=stamp)


def figure(results: Sequence[tuple[str, Result]], frame: Frame = PLAIN) -> Figure:
    """Draw the panels of each named result, without a window.

    A result has a row of panels, or several where the picture is narrower than its panels;
    panels that stand below each other for several results share their axes.

    Raises:
        UsageError: the analysis has no picture.
        MismatchError: these results cannot share panels.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = _overlaid(results, overlay=frame.overlay)
    panels = [[_fitted(panel, frame.width) for panel in result.panels] for _, result in results]
    most = max(map(len, panels))
    if most == 0:
        raise UsageError("this analysis has no picture")
    columns = most if frame.width is None else max(1, min(most, int(frame.width / LEAST)))
    # Each result begins a row: (its number, the first of its panels there, those panels).
    rows = [
        (number, start, own[start : start + columns])
        for number, own in enumerate(panels)
        for start in range(0, max(len(own), 1), columns)
    ]
    widths = [
        max((across(row[place]) for *_, row in rows if place < len(row)), default=PANEL[0])
        for place in range(columns)
    ]
    shrunk = 1.0 if frame.width is None else min(1.0, frame.width / sum(widths))
    heights = [max((_height(panel, shrunk) for panel in row), default=PANEL[1]) for *_, row in rows]
    width = frame.width or sum(widths)
    title = [text for line in [frame.title] if line for text in _wrapped(line, width - 0.2)]
    size = (width, frame.height or sum(heights) + HEAD * len(title))
    with rc_context(STYLE):
        drawn = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(drawn)
        grid = drawn.subplots(
            len(rows), columns, height_ratios=heights, width_ratios=widths, squeeze=False
        )
        extra = 0
        for axes, (number, start, row) in zip(grid, rows, strict=True):
            heading = results[number][0] if start == 0 else ""
            lines = _fill(axes, heading, row, [width * shrunk for width in widths])
            extra += max(0, lines - 2)
        alike: dict[int, list[Axes]] = {}
        for axes, (_, start, row) in zip(grid, rows, strict=True):
            for place in range(len(row)):
                alike.setdefault(start + place, []).append(axes[place])
        for together in alike.values():
            _share(together)
        if frame.title:
            drawn.suptitle("\n".join(title), x=0.01, ha="left")
        lines = _legends(drawn, [axes for axes in grid.flat if axes.get_visible()])
        if frame.height is None:  # long titles and legends take no panel's place
            drawn.set_figheight(size[1] + LINE * (extra + max(0, lines - 2)))
    return drawn


def _overlaid(
    results: Sequence[tuple[str, Result]], *, overlay: bool
) -> Sequence[tuple[str, Result]]:
    """Return one result in place of several that lie over each other."""
    wanted = overlay or all(result.together for _, result in results)
    if len(results) < 2 or not wanted:
        return results
    counts = {len(result.overlay) for _, result in results}
    if counts == {0}:
        raise UsageError("--overlay: this analysis has nothing that several nets could share")
    if len(counts) > 1:
        raise MismatchError("--overlay: some of these files are attacked and some are not")
    layers = zip(*(result.overlay for _, result in results), strict=True)
    names = [name for name, _ in results]
    return [("", Result({}, panels=tuple(stacked(names, shared) for shared in layers)))]


def stacked(names: Sequence[str], layers: Sequence[Layer]) -> Panel:
    """Return a panel with a layer of each net."""

    def draw(axes: Axes) -> None:
        for place, (name, layer) in enumerate(zip(names, layers, strict=True)):
            layer(axes, name, place)

    return draw


def _fitted(panel: Panel, width: float | None) -> Panel:
    """Return a panel for a picture of a width, by its own `fit` if it has one."""
    fit = getattr(panel, "fit", None)
    return panel if fit is None or width is None else fit(width)


def _height(panel: Panel, shrunk: float) -> float:
    """Return the height of a panel; one without lines of its own keeps its shape, not too low."""
    own = getattr(panel, "inches", None)
    return max(PANEL[1] * shrunk, 2.1) if own is None else float(own)


def inches(panel: Panel) -> float:
    """Return the height of a panel: its own `inches` if it says so."""
    return _height(panel, 1.0)


def across(panel: Panel) -> float:
    """Return the width of a panel in inches: its own `width` if it says so."""
    return float(getattr(panel, "width", PANEL[0]))


def _fill(row: Sequence[Axes], name: str, panels: Sequence[Panel], widths: Sequence[float]) -> int:
    """Draw a row of panels under a name; return how many lines its highest title has."""
    highest = 0
    for axes, panel in zip(row, panels, strict=False):
        panel(axes)
    for axes in row[len(panels) :]:
        axes.set_visible(False)
    for place, axes in enumerate(row):
        lines = [name if place == 0 else "", *axes.get_title(loc="left").splitlines()]
        # A title has its panel's width; what is longer goes on below.
        room = widths[place] - BESIDE - _labels_width(axes)
        wrapped = [text for line in lines if line for text in _wrapped(line, room)]
        axes.set_title("\n".join(wrapped))
        highest = max(highest, len(wrapped))
        below = axes.get_xlabel().splitlines()
        axes.set_xlabel("\n".join(text for line in below for text in _wrapped(line, room)))
    return highest


def _wrapped(line: str, room: float) -> list[str]:
    """Return a line in lines of at most `room` inches; words longer than that are cut.

    `n = 100` is one word.
    """
    whole = line.replace(" = ", f"{TIED}={TIED}")
    for letters in range(len(line), SHORTEST, -1):
        lines = [text.replace(TIED, " ") for text in _lines(whole, letters)]
        if all(_width(text) <= room for text in lines):
            return lines
    return textwrap.wrap(line, SHORTEST)


def _lines(line: str, letters: int) -> list[str]:
    return textwrap.wrap(line, letters, break_on_hyphens=False)


def _labels_width(axes: Axes) -> float:
    """Return the width of the labels left of an axes in inches."""
    if not axes.axison:
        return 0.0
    size = float(axes.get_yticklabels()[0].get_fontsize()) if axes.get_yticklabels() else TITLE
    texts = [line for label in axes.get_yticklabels() for line in label.get_text().splitlines()]
    return max((_width(text, size) for text in texts), default=0.0)


def _width(text: str, size: float = TITLE) -> float:
    """Return the width of a text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(
        text, FontProperties(size=size), ismath=False
    )
    return float(width) / 72  # points


def _share(panels: Sequence[Axes]) -> None:
    """Give panels of several nets the same limits, where their axes are of numbers."""
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    if len(panels) < 2 or not all(panel.axison for panel in panels):
        return
    for which in ("x", "y"):
        axis = [getattr(panel, f"{which}axis") for panel in panels]
        # Words have fixed labels; t-SNE's coordinates, which no two nets share, have no ticks.
        if any(
            isinstance(own.get_major_formatter(), FixedFormatter | FuncFormatter) for own in axis
        ):
            continue
        if not all(len(own.get_ticklocs()) for own in axis):
            continue
        ends = [getattr(panel, f"get_{which}lim")() for panel in panels]
        low, high = min(map(min, ends)), max(map(max, ends))
        for panel, (first, last) in zip(panels, ends, strict=True):
            getattr(panel, f"set_{which}lim")(*((low, high) if first <= last else (high, low)))


def _legends(figure: Figure, panels: Sequence[Axes]) -> int:
    """Draw one legend below everything where one serves all panels, else one in each.

    Returns:
        How many lines stand below everything.
    """
    letters = max(SHORTEST, int(figure.get_figwidth() / LETTER) - 10)
    labels = [
        (handles, [textwrap.fill(name, letters, break_on_hyphens=False) for name in names])
        for handles, names in (panel.get_legend_handles_labels() for panel in panels)
    ]
    handles, shared = labels[0]
    if shared and all(names == shared for _, names in labels):
        ncols = _fitting(figure.get_figwidth(), shared)
        figure.legend(handles, shared, loc="outside lower center", ncols=ncols, fontsize=LEGEND)
        return -(-sum(len(name.splitlines()) for name in shared) // ncols)
    for panel, (handles, names) in zip(panels, labels, strict=True):
        if names:
            panel.legend(handles, names, fontsize=LEGEND)
    return 0


def _fitting(width: float, names: Sequence[str]) -> int:
    """Return how many columns of a legend fit into so many inches."""
    # Ten letters' room for the line with its marker and the gap to the next column.
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    room = int(width / (LETTER * (longest + 10)))
    return max(1, min(room, len(names)))

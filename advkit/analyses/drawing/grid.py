"""Pictures of an ablation grid: a numbered map, or a curve with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advkit.analyses.drawing.panels import curve, forest
from advkit.analyses.drawing.style import LINES, ORANGE, look
from advkit.analyses.gathering.cells import Cell, Summary
from advkit.artifacts.result import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHATS = ("robust", "clean")


def split(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Return the cells of the grid, and those that share neither column nor row with another.

    An annealed run beside a grid of constants is such a one. Where all are, they are the grid.
    """
    columns = Counter(cell.x for cell in cells)
    rows = Counter(cell.y for cell in cells)
    alone = [
        cell
        for cell in cells
        if cell.y is not None
        and columns[cell.x] == 1
        and rows[cell.y] == 1
        and any(mark is not None and mark.value is None for mark in (cell.x, cell.y))
    ]
    grid = [cell for cell in cells if cell not in alone]
    return (grid, alone) if grid else (list(cells), [])


def percent(cell: Cell, what: str) -> str:
    """Return `mean ± sd`, or `share [low, high]` of one run, in percent."""
    summary = cell.summary(what)
    if summary is None:
        return "-"
    if summary.sd is not None:
        return f"{summary.mean * 100:.2f} ± {summary.sd * 100:.2f}"
    low, high = (end * 100 for end in summary.interval)
    return f"{summary.mean * 100:.2f} [{low:.1f}, {high:.1f}]"


def panels(
    cells: Sequence[Cell], axes: Sequence[str], attack: str, *, alike: bool = True
) -> tuple[Panel, ...]:
    """Return a map of each accuracy for two axes, one panel with both for one axis.

    Args:
        cells: what is drawn.
        axes: their settings, x first.
        attack: in words.
        alike: whether the cells differ in their methods alone.
    """
    known = [what for what in WHATS if any(cell.shares(what) for cell in cells)]
    if len(axes) == 2:
        return tuple(_map(cells, axes, what, attack, alike=alike) for what in known)
    return (_line(cells, axes, known, attack),)


def _line(cells: Sequence[Cell], axes: Sequence[str], known: Sequence[str], attack: str) -> Panel:
    """Return constants as curves with intervals, others as lines across; words as intervals."""
    constants = [cell for cell in cells if cell.x is not None and cell.x.value is not None]
    names = {"robust": attack, "clean": "clean"}
    if len(constants) < 2:
        points = {
            names[what]: [(s.mean, s.interval) if s else None for s in _summaries(cells, what)]
            for what in known
        }
        words = [cell.x.text if cell.x else "all" for cell in cells]
        return forest(words, points, xlabel="accuracy", title=axes[0] if axes else "", percent=True)
    x = [cell.x.value for cell in constants if cell.x and cell.x.value is not None]
    series = {names[what]: _summaries(constants, what) for what in known}
    drawn = curve(
        x,
        {name: [s.mean if s else None for s in line] for name, line in series.items()},
        xlabel=axes[0],
        ylabel="accuracy",
        percent=True,
        logx=min(x) > 0 and max(x) / min(x) >= 10,  # a decade: such grids are spaced by factors
        intervals={
            name: [s.interval if s else None for s in line] for name, line in series.items()
        },
    )
    return _with_lines(drawn, [cell for cell in cells if cell not in constants], known)


def _summaries(cells: Sequence[Cell], what: str) -> list[Summary | None]:
    return [cell.summary(what) for cell in cells]


def _with_lines(drawn: Panel, others: Sequence[Cell], known: Sequence[str]) -> Panel:
    """Add a broken line across with its band for each run that has no place on the axis."""

    def draw(axes: Axes) -> None:
        drawn(axes)
        for number, cell in enumerate(others):
            style = LINES[1 + number % (len(LINES) - 1)]  # whole ones are the curves
            for place, what in enumerate(known):
                summary = cell.summary(what)
                if summary and cell.x:
                    # One line of the legend a run, whatever the number of its accuracies.
                    name = cell.x.text if what == known[0] else None
                    colour = look(place).colour
                    axes.axhspan(*summary.interval, color=colour, alpha=0.08, linewidth=0)
                    axes.axhline(summary.mean, color=colour, ls=style, linewidth=1, label=name)

    return draw


def _map(
    cells: Sequence[Cell], axes: Sequence[str], what: str, attack: str, *, alike: bool
) -> Panel:
    """Return a numbered map; lone recipes as bands above it, the best cell framed.

    The frame is broken where another cell's interval reaches into the best one's, or where cells
    differ in more than their methods.
    """
    grid, alone = split(cells)
    columns = sorted({cell.x for cell in grid if cell.x})
    rows = sorted({cell.y for cell in grid if cell.y})
    boxes = [Box(0, len(rows) + k, len(columns), cell) for k, cell in enumerate(alone)]
    boxes += [
        Box(columns.index(cell.x), rows.index(cell.y), 1, cell)
        for cell in grid
        if cell.x and cell.y
    ]
    labels = ["∞ (LS)" if row.text == "∞" else row.text for row in rows] + ["annealed"] * len(alone)
    title = f"robust accuracy (%), {attack}" if what == "robust" else "clean accuracy (%)"

    def draw(panel: Axes) -> None:
        _fill(panel, boxes, what, axes, alike=alike)
        panel.set_xlim(-0.02, len(columns) + 0.02)
        panel.set_ylim(-0.02, len(labels) + 0.02)
        panel.set_xticks([k + 0.5 for k in range(len(columns))], [mark.text for mark in columns])
        panel.set_yticks([k + 0.5 for k in range(len(labels))], labels)
        panel.set(xlabel=axes[0], ylabel=axes[1], title=title)
        panel.grid(visible=False)

    return draw


@dataclass(frozen=True)
class Box:
    """A cell's place on the map: left, bottom and width, in cells."""

    x: int
    y: int
    width: int
    cell: Cell

    def written(self, summary: Summary, names: Sequence[str]) -> str:
        """Return what is written into it, in percent; a band says where it stands."""
        low, high = (end * 100 for end in summary.interval)
        under = f"{low:.0f}–{high:.0f}" if summary.sd is None else f"±{summary.sd * 100:.1f}"
        mean, x, y = f"{summary.mean * 100:.1f}", self.cell.x, self.cell.y
        if self.width == 1 or x is None or y is None:
            return f"{mean}\n{under}"
        return f"{names[0]} {x.text}, {names[1]} {y.text}\n{mean}  {under}"


def _fill(
    panel: Axes, boxes: Sequence[Box], what: str, names: Sequence[str], *, alike: bool
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    summaries = [(box, summary) for box in boxes if (summary := box.cell.summary(what))]
    means = [summary.mean for _, summary in summaries]
    low, span = min(means), (max(means) - min(means)) or 1
    for box, summary in summaries:
        share = (summary.mean - low) / span
        colour = colormaps["cividis"](share)
        panel.add_patch(
            Rectangle((box.x, box.y), box.width, 1, facecolor=colour, edgecolor="white")
        )
        panel.text(
            box.x + box.width / 2,
            box.y + 0.5,
            box.written(summary, names),
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if share < 0.5 else "black",
        )
    best, top = max(summaries, key=lambda pair: pair[1].mean)
    rivals = any(s.interval[1] >= top.interval[0] for box, s in summaries if box is not best)
    panel.add_patch(
        Rectangle(
            (best.x, best.y),
            best.width,
            1,
            fill=False,
            edgecolor=ORANGE,
            linewidth=1.8,
            linestyle="--" if rivals or not alike else "-",
            zorder=5,
            clip_on=False,
        )
    )

"""One picture of a whole table: accuracies as bars, and reliability under attack beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advkit.analyses import calibration
from advkit.analyses.drawing import plot
from advkit.analyses.drawing.panels import lengths
from advkit.analyses.drawing.style import GREY, look
from advkit.analyses.gathering.entries import POINTS, Entry
from advkit.analyses.gathering.groups import Group
from advkit.analyses.tables.pictures import line_names, point_of
from advkit.artifacts.result import Panel
from advkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 6
"""Lines beyond which bars and curves cannot be told apart."""
TOP = 116
"""End of the axis of accuracy in percent: room for the figure over a bar of 100."""
CONDITIONS = {"clean": "clean", "robust": "under attack"}
WIDTH = 0.8
"""Share of the axis that the bars of one condition take."""


@dataclass(frozen=True)
class Bars:
    """Clean and robust accuracy of each line as bars with 95 % intervals, a colour a line."""

    groups: Sequence[Group]

    def __call__(self, axes: Axes) -> None:
        """Draw on one matplotlib Axes."""
        step = WIDTH / len(self.groups)
        # The same entries as the panel beside has, so that one legend serves both.
        axes.plot([], [], color=GREY, linewidth=1, linestyle="--", label="calibrated")
        for place, (name, group) in enumerate(
            zip(line_names(self.groups), self.groups, strict=True)
        ):
            own = look(place)
            axes.plot([], [], color=own.colour, marker=own.marker, linestyle=own.line, label=name)
            for middle, what in enumerate(CONDITIONS):
                point = point_of(group.column(what, _shown(group)))
                if point is None:
                    continue
                mean, ends = point
                low, high = ends or (mean, mean)
                x = middle + (place - (len(self.groups) - 1) / 2) * step
                axes.bar(x, mean, 0.9 * step, color=own.colour, alpha=0.75)
                axes.errorbar(
                    x, mean, lengths([mean], [(low, high)]), color="black", capsize=2, linewidth=1
                )
                axes.annotate(
                    f"{mean:.1f}", (x, high), (0, 2), textcoords="offset points", ha="center",
                    fontsize=7,
                )  # fmt: skip
        axes.set_xticks(range(len(CONDITIONS)), list(CONDITIONS.values()))
        axes.set(ylabel="accuracy (%)", ylim=(0, TOP), title="accuracy, 95 % intervals")
        axes.set_yticks(range(0, 101, 20))
        axes.grid(visible=False, axis="x")


def panels(groups: Sequence[Group]) -> tuple[Panel, ...]:
    """Return the bars, and the reliability under attack of the first file of each line.

    Of a line that has best and final checkpoints the best are shown.

    Raises:
        UsageError: too many lines, or one without an attack.
    """
    if len(groups) > MOST:
        raise UsageError(f"--picture summary: {len(groups)} lines, at most {MOST}")
    layers = []
    for group in groups:
        entry = _first(group)
        if entry.logits.broken_by is None:
            raise UsageError(f"--picture summary: {entry.path} is not attacked")
        layers.append(calibration.analyze([entry.logits], resamples=1).overlay[1])
    curves = plot.stacked(line_names(groups), layers)

    def reliability(axes: Axes) -> None:
        curves(axes)
        axes.set_title("reliability under attack, 95 % intervals")

    return Bars(groups), reliability


def _shown(group: Group) -> str:
    return next(point for point in POINTS if group.of_point(point))


def _first(group: Group) -> Entry:
    return next(iter(group.of_point(_shown(group)).values()))

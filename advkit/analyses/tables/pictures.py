"""Pictures of `table`: accuracies with intervals, and what each file's outputs look like."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advkit.analyses import calibration, divergence, entropy
from advkit.analyses.drawing import panels as _panels
from advkit.analyses.drawing import plot, style
from advkit.analyses.drawing.differences import Point
from advkit.analyses.gathering.entries import POINTS, WHATS, Entry
from advkit.analyses.gathering.groups import Column, Group
from advkit.analyses.tables.sheets import attack_of, name_of
from advkit.artifacts.document import Figure, Gallery
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Panel, Result
from advkit.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 6
"""Files whose outputs a page draws; more of them make it slow to read and to load."""
WIDTH = 24
"""Letters of a line's name before it is broken."""
ROW, FRAME = 0.15, 1.15
"""Inches of a line of a name, and of title, axis and legend together."""

LEGEND = 23
"""Letters of an entry of a legend that leave room for another beside it."""
CONDITIONS = ("clean", "adversarial")
INTERVALS = {
    (True, False): "Bars are 95 % intervals, Student's over seeds.",
    (False, True): "Bars are 95 % intervals, Wilson's of one run.",
    (True, True): "Bars are 95 % intervals: Student's over seeds, Wilson's of one run.",
}
"""Whether a line has several runs, and whether one has a single one → what its bars are."""


@dataclass(frozen=True)
class Forest:
    """A panel with a line a name, as high as its names need."""

    names: tuple[str, ...]
    series: Mapping[str, Sequence[Point | None]]
    xlabel: str
    title: str

    @property
    def inches(self) -> float:
        """Height in inches."""
        lines = sum(max(2, len(name.splitlines())) for name in self.names)
        return float(max(style.PANEL[1], FRAME + ROW * lines))

    def __call__(self, axes: Axes) -> None:
        """Draw on one matplotlib Axes."""
        _panels.forest(self.names, self.series, xlabel=self.xlabel, title=self.title)(axes)
        axes.set_yticks(range(len(self.names)), self.names, fontsize=7)
        axes.margins(x=0.08)


def forests(groups: Sequence[Group]) -> tuple[Forest, ...]:
    """Return robust and clean accuracy of each line, best and final, with 95 % intervals.

    Student's t-interval of the mean over seeds; Wilson's of one run.
    """
    forests = []
    for what, title in (("robust", "robust accuracy"), ("clean", "standard accuracy")):
        columns = {p: [group.column(what, p) for group in groups] for p in POINTS}
        rows = [k for k in range(len(groups)) if any(columns[p][k].shares for p in POINTS)]
        series = {
            p: [point_of(columns[p][k]) for k in rows]
            for p in POINTS
            if any(column.shares for column in columns[p])
        }
        if series:
            names = line_names([groups[k] for k in rows])
            forests.append(Forest(names, series, "accuracy (%), 95 % interval", title))
    return tuple(forests)


def gaps(groups: Sequence[Group]) -> Forest | None:
    """Return best − final robust accuracy of each line that has both; None if none has."""
    unbounded = (-math.inf, math.inf)
    points = [point_of(group.column("robust", "difference"), unbounded) for group in groups]
    known = [(group, point) for group, point in zip(groups, points, strict=True) if point]
    if not known:
        return None
    names = line_names([group for group, _ in known])
    series = {"difference": [point for _, point in known]}
    return Forest(names, series, "best − final (points)", "robust overfitting")


def line_names(groups: Sequence[Group]) -> tuple[str, ...]:
    """Return a short name a line: data, architecture and attack only where they differ."""
    labels = [group.labels for group in groups]
    attacks = [f"{attack_of(own)} {own.eps or ''}".strip() for own in labels]
    columns = [[own.data for own in labels], [own.arch for own in labels], attacks]
    varied = [column for column in columns if len(set(column)) > 1]
    lines = zip(map(name_of, groups), *varied, strict=True)
    return tuple("\n".join(textwrap.wrap(", ".join(words), WIDTH)) for words in lines)


def point_of(column: Column, bounds: tuple[float, float] = (0.0, 1.0)) -> Point | None:
    """Return a mean and its interval, within bounds that Student's knows not, in percent."""
    mean, ends = column.mean, column.ci95
    if mean is None:
        return None
    if column.sd is not None:
        from scipy.stats import t  # a second to import

        count = len(column.shares)
        half = float(t.ppf(0.975, count - 1)) * column.sd / count**0.5
        ends = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return 100 * mean, (100 * ends[0], 100 * ends[1]) if ends else None


def galleries(groups: Sequence[Group]) -> list[Gallery]:
    """Return all pictures of a page by heading; none where there is nothing to draw."""
    omitted, figures = of_files(groups)
    pictures = [
        Gallery("Accuracies", _intervals(groups), overview(groups)),
        Gallery("Outputs", omitted, figures),
    ]
    return [gallery for gallery in pictures if gallery.figures]


def _intervals(groups: Sequence[Group]) -> str:
    columns = [group.column(what, point) for group in groups for what in WHATS for point in POINTS]
    several = any(column.sd is not None for column in columns)
    return INTERVALS.get((several, any(column.ci95 for column in columns)), "")


def overview(groups: Sequence[Group]) -> tuple[Figure, ...]:
    """Return the forests as figures of a page."""
    panels = [(panel, panel.title) for panel in forests(groups)]
    if gap := gaps(groups):
        panels.append((gap, "best minus final robust accuracy"))
    return tuple(_figure(panel, f"{title} of each line", _alt(panel)) for panel, title in panels)


def _alt(panel: Forest) -> str:
    """Return in words what a forest shows."""
    parts = []
    for name, values in panel.series.items():
        for label, value in zip(panel.names, values, strict=True):
            if value is not None:
                parts.append(f"{label.replace(chr(10), ' ')} {name} {value[0]:.2f}")
    return f"{panel.title}, {panel.xlabel}: {'; '.join(parts)}"


def of_files(groups: Sequence[Group]) -> tuple[str, tuple[Figure, ...]]:
    """Return reliability, entropy and divergence of some files, and which were left out.

    The files share pictures. The first file of each line comes before any second one; those
    without labels or attack are in the pictures that they can be in.
    """
    ranked = [
        (place, name_of(group), entry)
        for group in groups
        for place, entry in enumerate(x for p in POINTS for x in group.of_point(p).values())
    ]
    # Stable: files of equal place stay in the order of their lines.
    ranked.sort(key=lambda file: file[0])
    shown = ranked[:SHOWN]
    names = [name for _, name, _ in shown]
    files = [
        (name if names.count(name) == 1 else f"{name}, {entry.role}, seed {entry.seed}", entry)
        for _, name, entry in shown
    ]
    few = f"Of {SHOWN} of {len(ranked)} files, each line's first ones first."
    figures = [figure for what in ANALYSES for figure in _of_kind(what, files)]
    return few if len(ranked) > SHOWN else "", tuple(figures)


ANALYSES: Mapping[str, Callable[[Sequence[Logits]], Result]] = {
    "reliability": calibration.analyze,
    "entropy": entropy.analyze,
    "divergence": divergence.analyze,
}


def _of_kind(what: str, files: Sequence[tuple[str, Entry]]) -> list[Figure]:
    """Return the pictures of one kind, one a condition, each with all files that have it."""
    results = []
    for name, entry in files:
        try:
            results.append((name, ANALYSES[what]([entry.logits])))
        except InputError:  # without labels or attack there is nothing to draw
            continue
    most = max((len(result.overlay) for _, result in results), default=0)
    told = "; ".join(f"{name}: {_told(result)}" for name, result in results)
    return [
        _figure(
            plot.stacked([name for name, _ in own], [result.overlay[place] for _, result in own]),
            f"{what}, {CONDITIONS[place] if most > 1 else 'by the attack'}",
            f"{what}. {told}",
        )
        for place in range(most)
        for own in [[(name, result) for name, result in results if len(result.overlay) > place]]
    ]


def _told(result: Result) -> str:
    """Return the figures of a result in words."""
    return ", ".join(
        f"{key.replace('_', ' ')} {value:.3g}"
        for key, value in result.numbers.items()
        if isinstance(value, float)
    )


def _figure(panel: Panel, title: str, alt: str) -> Figure:
    return Figure(title, alt, lambda: svg(panel))


def svg(panel: Panel) -> bytes:
    """Draw one panel as SVG, the same bytes each time."""
    import matplotlib as mpl  # a second to import

    mpl.use("Agg")  # needs no display
    from matplotlib import pyplot as plt

    with mpl.rc_context(style.STYLE):
        size = (style.PANEL[0], plot.inches(panel))
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        panel(axes)
        handles, names = axes.get_legend_handles_labels()
        if len(names) > 1:
            columns = 2 if max(map(len, names)) <= LEGEND else 1
            figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=8)
        out = io.BytesIO()
        # The date, and element names drawn at random without STYLE's salt, would differ each time.
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
    return out.getvalue()

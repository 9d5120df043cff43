"""Pictures of `table`: accuracies with intervals, and what each file's outputs look like."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advkit.analyses import calibration, divergence, entropy
from advkit.analyses.drawing import panels as _panels
from advkit.analyses.drawing import plot
from advkit.analyses.gathering.groups import POINTS
from advkit.analyses.tables.leads import Line
from advkit.analyses.tables.sheets import attack_of, name_of
from advkit.artifacts.document import Figure, Gallery
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Panel, Result
from advkit.errors import InputError

SHOWN = 6
"""Files whose outputs a page draws; more of them make it slow to read and to load."""
WIDTH = 24
"""Letters of a line's name before it is broken."""
ROW, FRAME = 0.15, 1.15
"""Inches of a line of a name, and of title, axis and legend together."""

LEGEND = 23
"""Letters of an entry of a legend that leave room for another beside it."""
INTERVALS = "Bars are 95 % intervals: Student's over seeds, Wilson's of one run."

Point = tuple[float, tuple[float, float] | None]


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
        return float(max(plot.PANEL[1], FRAME + ROW * lines))

    def __call__(self, axes: Any) -> None:
        """Draw on one matplotlib Axes."""
        _panels.forest(self.names, self.series, xlabel=self.xlabel, title=self.title)(axes)
        axes.set_yticks(range(len(self.names)), self.names, fontsize=7)
        axes.margins(x=0.08)


def forests(lines: Sequence[Line]) -> tuple[Forest, ...]:
    """Return robust and clean accuracy of each line, best and final, with 95 % intervals.

    Student's t-interval of the mean over seeds; Wilson's of one run.
    """
    rows = []
    for what, title in (("robust", "robust accuracy"), ("clean", "standard accuracy")):
        known = [x for x in lines if any(x.plain[f"{what}_{p}_mean"] is not None for p in POINTS)]
        points = {p: [_point(line, what, p) for line in known] for p in POINTS}
        series = {p: of for p, of in points.items() if any(each is not None for each in of)}
        if series:
            names = _names(known)
            rows.append(Forest(names, series, "accuracy (%), 95 % interval", title))
    return tuple(rows)


def gaps(lines: Sequence[Line]) -> Forest | None:
    """Return best − final robust accuracy of each line that has both; None if none has."""
    known = [line for line in lines if line.plain["robust_difference_mean"] is not None]
    points = [_gap(line) for line in known]
    label = "best − final (points)"
    title = "robust overfitting"
    return Forest(_names(known), {"difference": points}, label, title) if known else None


def _names(lines: Sequence[Line]) -> tuple[str, ...]:
    """Return a short name a line: data, architecture and attack only where they differ."""
    labels = [line.plain for line in lines]
    varied = [key for key in ("data", "arch") if len({each[key] for each in labels}) > 1]
    attacks = {attack_of(each) + str(each["eps"]) for each in labels}
    names = []
    for each in labels:
        words = [name_of(each), *(str(each[key]) for key in varied)]
        words += [f"{attack_of(each)} {each['eps'] or ''}".strip()] if len(attacks) > 1 else []
        names.append("\n".join(textwrap.wrap(", ".join(words), WIDTH)))
    return tuple(names)


def _point(line: Line, what: str, point: str) -> Point | None:
    name, plain = f"{what}_{point}", line.plain
    if plain[f"{name}_mean"] is None:
        return None
    ends = plain[f"{name}_ci95"]
    if plain[f"{name}_sd"] is not None:
        low, high = _around(plain[f"{name}_mean"], plain[f"{name}_sd"], plain[f"{name}_seeds"])
        ends = max(low, 0.0), min(high, 1.0)  # Student's knows no bounds, an accuracy does
    return 100 * plain[f"{name}_mean"], (100 * ends[0], 100 * ends[1]) if ends else None


def _gap(line: Line) -> Point:
    plain, name = line.plain, "robust_difference"
    mean, deviation = plain[f"{name}_mean"], plain[f"{name}_sd"]
    if deviation is None:
        return 100 * mean, None
    low, high = _around(mean, deviation, plain[f"{name}_seeds"])
    return 100 * mean, (100 * low, 100 * high)


def _around(mean: float, deviation: float, count: int) -> tuple[float, float]:
    """Return Student's 95 % interval of a mean."""
    from scipy.stats import t  # a second to import

    half = float(t.ppf(0.975, count - 1)) * deviation / count**0.5
    return mean - half, mean + half


def galleries(lines: Sequence[Line]) -> list[Gallery]:
    """Return all pictures of a page by heading; none where there is nothing to draw."""
    told, figures = of_files(lines)
    pictures = [
        Gallery("Accuracies", INTERVALS, overview(lines)),
        Gallery("Outputs", told, figures),
    ]
    return [each for each in pictures if each.figures]


def overview(lines: Sequence[Line]) -> tuple[Figure, ...]:
    """Return the forests as figures of a page."""
    panels: list[tuple[Forest, str]] = [(each, each.title) for each in forests(lines)]
    gap = gaps(lines)
    panels += [(gap, "best minus final robust accuracy")] if gap else []
    return tuple(_figure(panel, f"{told} of each line", _told(panel)) for panel, told in panels)


def _told(panel: Forest) -> str:
    """Return in words what a forest shows."""
    parts = []
    for name, values in panel.series.items():
        for label, value in zip(panel.names, values, strict=True):
            if value is not None:
                parts.append(f"{label.replace(chr(10), ' ')} {name} {value[0]:.2f}")
    return f"{panel.title}, {panel.xlabel}: {'; '.join(parts)}"


def of_files(lines: Sequence[Line]) -> tuple[str, tuple[Figure, ...]]:
    """Return reliability, entropy and divergence of some files, and which were left out.

    The first file of each line comes before any second one; those without labels or attack have
    the pictures that they can have.
    """
    ranked = [
        (place, name_of(line.plain), each)
        for line in lines
        for place, each in enumerate(x for p in POINTS for x in line.files.get(p, {}).values())
    ]
    ranked.sort(key=lambda entry: entry[0])
    figures = [figure for _, name, each in ranked[:SHOWN] for figure in _of_file(name, each)]
    left = len(ranked) - SHOWN
    told = f"Of {SHOWN} of {len(ranked)} files, each line's first ones first." if left > 0 else ""
    return told, tuple(figures)


def _of_file(name: str, logits: Logits) -> list[Figure]:
    analyses: dict[str, Callable[[Sequence[Logits]], Result]] = {
        "reliability": calibration.analyze,
        "entropy": entropy.analyze,
        "divergence": divergence.analyze,
    }
    run, config = Path(logits.path).resolve().parent.name, logits.info["config"]
    place = f"{run}, {logits.info['role']}, {config['attack']}"
    figures = []
    for what, analyze in analyses.items():
        try:
            result = analyze([logits])
        except InputError:  # without labels or attack there is nothing to draw
            continue
        told = "; ".join(
            f"{key.replace('_', ' ')} {value:.3g}"
            for key, value in result.numbers.items()
            if isinstance(value, float)
        )
        figures += [
            _figure(panel, f"{what}: {place}", f"{what} of {name}. {told}")
            for panel in result.panels
        ]
    return figures


def _figure(panel: Panel, title: str, alt: str) -> Figure:
    return Figure(title, alt, lambda: svg(panel))


def svg(panel: Panel) -> bytes:
    """Draw one panel as SVG, the same bytes each time."""
    import matplotlib as mpl  # a second to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(plot.STYLE):
        size = (plot.PANEL[0], plot.inches(panel))
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        panel(axes)
        handles, names = axes.get_legend_handles_labels()
        if len(names) > 1:
            columns = 2 if max(map(len, names)) <= LEGEND else 1
            figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=8)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
    return out.getvalue()

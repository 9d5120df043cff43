"""The panel of embedded points, coloured and named by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advkit.analyses.drawing.style import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY
from advkit.artifacts.result import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, BLACK, "#882255", "#999933", GREY)
"""Okabe and Ito's, without the yellow that white paper swallows; wine, olive and grey."""
MARKERS = "os^DvP<Xp>"
"""As many; each has an inside that can be left open."""
NAMED = 20
"""Classes that are written beside their points; of more only colours and marks show."""
LISTED = 10
"""Classes that the legend lists."""
MARGIN = 0.06


def cloud(
    points: Tensor,
    y: Tensor,
    wrong: Tensor,
    frame: Tensor,
    names: Sequence[str],
    *,
    title: str,
    corners: Mapping[int, Tensor],
) -> Panel:
    """Return a panel of points by class, rings where the prediction is wrong.

    Args:
        points: (N, 2).
        y: (N,) true classes.
        wrong: (N,) bool.
        frame: (M, 2), all points that the axes must hold, so that panels share them.
        names: of the classes.
        title: above the panel.
        corners: class → its one-hot label's point (2,), drawn as a star.
    """

    def draw(axes: Axes) -> None:
        for label in torch.unique(y).tolist():
            colour, marker = look(label)
            for ring in (False, True):
                x, up = points[(y == label) & (wrong == ring)].T.tolist()
                face = "none" if ring else colour
                axes.scatter(
                    x, up, s=9, linewidths=0.6, marker=marker, facecolors=face, edgecolors=colour
                )
            if len(names) <= NAMED:
                _name(axes, _middle(points[y == label]), names[label])
        for star in corners.values():
            x, up = star.tolist()
            axes.scatter(x, up, s=90, marker="*", facecolors="white", edgecolors="black")
        # One margin for both axes, by the longer side: points at the edge are not cut.
        low, high = frame.amin(0), frame.amax(0)
        margin = MARGIN * float((high - low).max())
        (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
        many = f" ({len(names)} classes by colour and mark)" if len(names) > NAMED else ""
        axes.set(
            xlim=(left, right),
            ylim=(bottom, top),
            xticks=[],
            yticks=[],
            title=title + many,
            xlabel="t-SNE 1 (no unit)",
            ylabel="t-SNE 2 (no unit)",
        )
        _legend(axes, [] if len(names) > LISTED else names)

    return draw


def _middle(points: Tensor) -> tuple[float, float]:
    """Return the point nearest to the median, so that a name lies on one of its class."""
    away = (points - points.median(0).values).square().sum(1)
    x, up = points[away.argmin()].tolist()
    return x, up


def look(label: int) -> tuple[str, str]:
    """Return colour and marker of a class.

    The first ten differ in both; the first hundred have no two alike.
    """
    rounds = label // len(COLOURS)
    return COLOURS[label % len(COLOURS)], MARKERS[(label + rounds) % len(MARKERS)]


def _name(axes: Axes, place: tuple[float, float], name: str) -> None:
    from matplotlib import patheffects

    # Points lie behind the name: white around its letters keeps it legible.
    outline = [patheffects.withStroke(linewidth=2, foreground="white")]
    axes.annotate(
        name,
        place,
        (0, 8),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        path_effects=outline,
    )


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Say what marks mean; every panel says the same, so that the picture has one legend."""
    for label, name in enumerate(names):
        colour, marker = look(label)
        axes.scatter(
            [],
            [],
            s=14,
            marker=marker,
            color=colour,
            label=f"class {name}" if name.isdecimal() else name,
        )
    axes.scatter([], [], s=12, color=GREY, label="predicted right")
    axes.scatter([], [], s=12, facecolors="none", edgecolors=GREY, label="predicted wrong")
    axes.scatter(
        [], [], s=60, marker="*", facecolors="white", edgecolors="black", label="one-hot label"
    )

"""Learning curves: accuracies against epochs, mean and spread over seeds, the best epoch marked."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from advkit.analyses.drawing.panels import in_percent
from advkit.analyses.drawing.style import BLUE, GREEN, ORANGE, PANEL, PINK
from advkit.analyses.drawing.style import look as look_of
from advkit.analyses.gathering import naming
from advkit.analyses.gathering.recipes import Recipe
from advkit.artifacts.result import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

OWN_PANELS = 3
"""Recipes up to which each has a panel of its own."""
LETTERS = 36
"""Of a line of the legend."""
LINE = 0.17
"""Height of a line of the legend in inches."""
MARKED = 8
"""Markers of a line, about."""


class Look(NamedTuple):
    """How a curve is drawn; filled markers are validation, open ones training."""

    label: str
    colour: str
    marker: str
    style: str | tuple[int, tuple[float, ...]]
    filled: bool


LOOKS = {
    "train_clean": Look("training, clean", BLUE, "o", "--", False),
    "train_robust": Look("training, robust", ORANGE, "s", "--", False),
    "val_clean": Look("validation, clean", BLUE, "o", "-", True),
    "val_robust": Look("validation, robust", ORANGE, "s", "-", True),
    "val_clean_ema": Look("validation, clean, average", GREEN, "^", "-", True),
    "val_robust_ema": Look("validation, robust, average", PINK, "D", "-", True),
}
COMPARED = {
    "val_robust": "validation, robust",
    "train_robust": "training, robust",
    "val_clean": "validation, clean",
}
"""Curves in which recipes are compared, → what the panel is called."""


class _Panel:
    """A panel with its legend below the axes: curves may lie anywhere in [0, 1]."""

    def __init__(self, title: str, curves: Sequence[tuple[Recipe, str, Look]]) -> None:
        self.title, self.curves = title, curves
        self.names = [textwrap.fill(look.label, LETTERS) for _, _, look in curves]
        lines = sum(len(name.splitlines()) for name in self.names)
        self.inches = PANEL[1] + LINE * (lines + 1)

    def __call__(self, axes: Axes) -> None:
        """Draw it."""
        handles = []
        for place, (recipe, name, look) in enumerate(self.curves):
            handles += _line(axes, recipe, name, look, place)
        for recipe, name, look in self.curves:
            for epoch, value in _best(recipe, name):
                handles[len(self.curves) :] = _star(axes, epoch, value, look.colour)
        axes.set(xlabel="epoch", title=self.title)
        axes.set_ylim(-0.02, 1.02)
        in_percent(axes, "y", "accuracy")
        axes.locator_params(axis="x", integer=True)
        labels = [*self.names, "best epoch"]
        axes.legend(
            handles,
            labels[: len(handles)],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            fontsize=8,
        )


def panels(recipes: Sequence[Recipe]) -> tuple[Panel, ...]:
    """Return a panel a recipe, or, where they are many, a panel a curve with all recipes in it.

    Several recipes that have panels of their own are compared in one more.
    """
    own = [_own(recipe, named=len(recipes) > 1) for recipe in recipes]
    known = [name for recipe in recipes for name in recipe.series]
    shared = [name for name in COMPARED if known.count(name) > 1]
    if len(recipes) > OWN_PANELS:
        return tuple(_compared(recipes, name) for name in shared)
    return (*own, _compared(recipes, shared[0])) if shared else tuple(own)


def _own(recipe: Recipe, *, named: bool) -> Panel:
    seeds = f" ({len(recipe.runs)} seeds)" if len(recipe.runs) > 1 else ""
    title = f"{_called(recipe)}{seeds}" if named or seeds else ""
    return _Panel(title, [(recipe, name, LOOKS[name]) for name in recipe.series])


def _called(recipe: Recipe) -> str:
    """Return what a recipe is called: by the label of its first run, or by its method."""
    return naming.beside(recipe.runs[0].trained, recipe.name)


def _compared(recipes: Sequence[Recipe], name: str) -> Panel:
    curves = []
    for place, recipe in enumerate(recipes):
        if name in recipe.series:
            own = look_of(place)
            look = Look(_called(recipe), own.colour, own.marker, own.line, True)
            curves.append((recipe, name, look))
    return _Panel(COMPARED[name], curves)


def _line(axes: Axes, recipe: Recipe, name: str, look: Look, place: int) -> list[Line2D]:
    """Draw the mean over seeds, with a band of one standard deviation where there are several."""
    points = recipe.over_seeds(name)
    epochs = [epoch for epoch, point in enumerate(points, start=1) if point is not None]
    known = [point for point in points if point is not None]
    means = [mean for mean, _, _ in known]
    step = max(1, math.ceil(len(epochs) / MARKED))
    lines = axes.plot(
        epochs,
        means,
        color=look.colour,
        linestyle=look.style,
        linewidth=1.3,
        marker=look.marker,
        markersize=4,
        markerfacecolor=look.colour if look.filled else "white",
        # Lines that run together show each other's markers, which stand at other epochs.
        markevery=(place % step, step),
        zorder=2.5 if look.filled else 2.2,
    )
    low = [mean - (spread or 0.0) for mean, spread, _ in known]
    high = [mean + (spread or 0.0) for mean, spread, _ in known]
    if any(spread is not None for _, spread, _ in known):
        axes.fill_between(epochs, low, high, color=look.colour, alpha=0.15, linewidth=0)
    return lines


def _best(recipe: Recipe, name: str) -> list[tuple[int, float]]:
    """Return epoch and accuracy of each seed's best net, on the curve by which it was chosen."""
    marked = []
    for run in recipe.runs:
        best = run.best(name.endswith("_ema"))
        if best is not None and best.series == name:
            marked.append((best.place + 1, best.accuracy))
    return marked


def _star(axes: Axes, epoch: int, value: float, colour: str) -> list[Line2D]:
    return axes.plot(
        [epoch],
        [value],
        marker="*",
        markersize=10,
        color=colour,
        markeredgecolor="black",
        markeredgewidth=0.7,
        linestyle="none",
        zorder=3,
    )

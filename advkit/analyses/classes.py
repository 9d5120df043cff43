"""Clean and robust accuracy of each class with its interval, and the worst class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advkit.analyses.drawing.differences import Point
from advkit.analyses.drawing.panels import forest
from advkit.analyses.gathering.rows import require_labels
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.result import Number, Panel, Result
from advkit.artifacts.rows import argmax
from advkit.formulas.stats import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("logits",)
_SPACIOUS = 12
"""Lines of a panel that have room for text of the usual size."""
_SHOWN = 20
"""Classes that a picture and a table at the terminal can show."""
_ENDS = ("accuracy", "low", "high")


@dataclass(frozen=True)
class Share:
    """Right answers of one class: how many of how many (n > 0), and the Wilson interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """Accuracy in [0, 1]."""
        return self.hits / self.n

    @property
    def ends(self) -> tuple[float, float]:
        """The 95 % interval."""
        return wilson(self.hits, self.n)


def analyze(inputs: Sequence[Logits]) -> Result:
    """Count right answers by class in one logits file.

    `worst_class` is the class of least robust accuracy (the first of equals), and
    `worst_class_robust_accuracy` its accuracy: the least of C noisy figures, so on the low side
    where classes have few examples; its interval is that of one class, not of the least one.
    `robust_spread` is the greatest minus the least. `worst_class_clean`,
    `worst_class_clean_accuracy` and `clean_spread` are the same for clean images. Classes without
    examples have no accuracy.

    Raises:
        InputError: out-of-distribution data, which has no labels.
    """
    (logits,) = inputs
    y = require_labels(logits, "classes")
    names = [str(name) for name in logits.info["data"]["classes"]]
    right = {"clean": argmax(logits.clean) == y}
    if logits.broken_by is not None:
        right["robust"] = logits.broken_by == ROBUST
    shares = {what: _shares(hit, y, len(names)) for what, hit in right.items()}
    numbers: dict[str, Number] = {"n": len(y), "classes": len(names)}
    for what, of_class in shares.items():
        numbers[f"{what}_accuracy"] = float(right[what].double().mean())
        numbers |= _extremes(what, names, of_class)
    rows = tuple(
        (k, name, int((y == k).sum()), *_cells([of_class.get(k) for of_class in shares.values()]))
        for k, name in enumerate(names)
    )
    header = ("class", "name", "n", *(f"{what}_{end}" for what in shares for end in _ENDS))
    order = _worst_first(shares[list(shares)[-1]])[:_SHOWN]
    few = len(names) <= _SHOWN
    series = {
        what: [(of_class[k].value, of_class[k].ends) for k in order]
        for what, of_class in shares.items()
    }
    title = "" if few else f"worst {len(order)} of {len(names)} classes"
    panel = _panel([names[k] for k in order], series, title)
    text = aligned([header, *rows]) if few else ""
    return Result(numbers, header, rows, (panel,), text=text)


def _panel(names: Sequence[str], series: Mapping[str, Sequence[Point | None]], title: str) -> Panel:
    def draw(axes: Axes) -> None:
        forest(names, series, xlabel="accuracy, 95 % interval", title=title, percent=True)(axes)
        axes.set_ylabel("class")
        if len(names) > _SPACIOUS:
            axes.tick_params(axis="y", labelsize=6)

    return draw


def _shares(hit: Tensor, y: Tensor, classes: int) -> dict[int, Share]:
    """Return class → its share, for classes that have examples."""
    count = torch.bincount(y, minlength=classes).tolist()
    hits = torch.bincount(y[hit], minlength=classes).tolist()
    return {k: Share(hits[k], n) for k, n in enumerate(count) if n}


def _worst_first(shares: Mapping[int, Share]) -> list[int]:
    """Return the classes, the least accuracy first, equals in order."""
    return sorted(shares, key=lambda k: (shares[k].value, k))


def _extremes(what: str, names: Sequence[str], shares: Mapping[int, Share]) -> dict[str, Number]:
    order = _worst_first(shares)
    low, high = shares[order[0]], shares[order[-1]]
    return {
        "worst_class" if what == "robust" else f"worst_class_{what}": names[order[0]],
        f"worst_class_{what}_accuracy": low.value,
        f"worst_class_{what}_accuracy_ci95": list(low.ends),
        f"{what}_spread": high.value - low.value,
    }


def _cells(shares: Sequence[Share | None]) -> list[float | None]:
    cells: list[float | None] = []
    for share in shares:
        cells += [None, None, None] if share is None else [share.value, *share.ends]
    return cells

"""Entropy of the predictions: clean and adversarial, right and wrong, with histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from advkit.analyses.drawing.histograms import BINS, bin_rows, counted, edges, histogram, outline
from advkit.analyses.gathering.rows import conditions, entropies
from advkit.analyses.statistics.scores import auroc, averaged, median, told_apart
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Histogram, Number, Result
from advkit.artifacts.rows import argmax
from advkit.errors import UsageError
from advkit.formulas.information import entropy as entropy  # stays importable from here

LIMITS = {"bins": "[1, 1e5]"}
KINDS = ("logits",)
OVERLAY = True


def analyze(inputs: Sequence[Logits], *, bins: int = 30) -> Result:
    """Measure the entropy of one logits file.

    Intervals of means are normal ones (`_ci95`). `entropy_auroc` says how well entropy tells
    wrong predictions from right ones: the chance that a wrong one has more, ties halved; null
    where all are right, or all wrong.

    Args:
        bins: bins of the histograms over [0, ln C].

    Raises:
        UsageError: no bin.

    Source: ADR, section 3.2 and figure 2a to 2d.
    """
    if bins < 1:
        raise UsageError("--bins must be at least 1")
    (logits,) = inputs
    top = math.log(logits.clean.shape[1])
    numbers: dict[str, Number] = {"n": len(logits.labels), "max_entropy": top}
    counts: dict[str, tuple[int, ...]] = {}
    splits: dict[str, str] = {}
    for name, values in conditions(logits).items():
        entropy_of = entropies(values)
        numbers |= averaged(f"{name}_entropy", entropy_of, top)
        numbers[f"{name}_entropy_median"] = median(entropy_of)
        counts[name] = counted(entropy_of, bins, top)
        if bool((logits.labels >= 0).all()):
            right = argmax(values) == logits.labels
            sides = {"right": entropy_of[right], "wrong": entropy_of[~right]}
            for word, side in sides.items():
                numbers |= averaged(f"{name}_entropy_{word}", side, top)
                counts[f"{name}, {word}"] = counted(side, bins, top)
            numbers |= told_apart(f"{name}_entropy_auroc", *sides.values())
            area = auroc(*sides.values())
            splits[name] = name if area is None else f"{name}, wrong from right: AUROC {area:.3f}"
    bounds = edges(bins, top)
    means = ", ".join(f"{name} {numbers[f'{name}_entropy']:.3f}" for name in conditions(logits))
    both = {name: counts[name] for name in conditions(logits)}
    figures = (
        Histogram(f"mean {means}", bounds, both),
        *(
            Histogram(
                title, bounds, {key: counts[key] for key in counts if key.startswith(f"{name},")}
            )
            for name, title in splits.items()
        ),
    )
    panels = tuple(histogram(figure, "entropy (nats)") for figure in figures)
    layers = tuple(outline(figures[0], name, "entropy (nats)", name) for name in both)
    return Result(numbers, BINS, bin_rows(bounds, counts), panels, figures, overlay=layers)

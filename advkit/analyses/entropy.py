"""Entropy of the predictions: clean and adversarial, right and wrong, with histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from advkit.analyses import Histogram, Number, Result, conditions
from advkit.analyses.drawing.panels import histogram
from advkit.analyses.statistics.scores import auroc, auroc_interval, mean, mean_interval
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import Rows, argmax, piecewise
from advkit.errors import UsageError
from advkit.formulas.losses import log_softmax

KINDS = ("logits",)


def entropy(probabilities: Tensor) -> Tensor:
    """Return −Σ_c p_c log p_c per example, (B,), in nats; 0·log 0 is 0.

    Args:
        probabilities: (B, C), rows summing to 1.

    >>> round(float(entropy(torch.full((1, 4), 0.25))), 6) == round(math.log(4), 6)
    True
    """
    total: Tensor = torch.special.xlogy(probabilities, probabilities).sum(1)
    return -total


def counted(values: Tensor, bins: int, top: float) -> tuple[int, ...]:
    """Count values over equal bins of [0, top]; rounding beyond the ends counts inside."""
    counts = torch.histc(values.double().clamp(0, top), bins, 0, top)
    return tuple(int(count) for count in counts)


def edges(bins: int, top: float) -> tuple[float, ...]:
    """Return the bins + 1 edges of equal bins of [0, top]."""
    return tuple(top * place / bins for place in range(bins + 1))


def entropies(logits: Rows) -> Tensor:
    """Return the entropy of softmax(z) per example, (N,) float64, in nats; piece by piece."""
    return piecewise(lambda z: entropy(log_softmax(z.double()).exp()), logits)


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
        found = entropies(values)
        numbers |= averaged(f"{name}_entropy", found, top)
        numbers[f"{name}_entropy_median"] = _median(found)
        counts[name] = counted(found, bins, top)
        if bool((logits.labels >= 0).all()):
            right = argmax(values) == logits.labels
            sides = {"right": found[right], "wrong": found[~right]}
            for word, side in sides.items():
                numbers |= averaged(f"{name}_entropy_{word}", side, top)
                counts[f"{name}, {word}"] = counted(side, bins, top)
            numbers |= told_apart(f"{name}_entropy_auroc", *sides.values())
            splits[name] = _shown(auroc(*sides.values()))
    bounds = edges(bins, top)
    means = ", ".join(f"{name} {numbers[f'{name}_entropy']:.3f}" for name in conditions(logits))
    both = _figure(f"mean {means}", bounds, counts, list(conditions(logits)))
    split = [
        _figure(title, bounds, counts, [f"{name}, right", f"{name}, wrong"])
        for name, title in splits.items()
    ]
    figures = (both, *split)
    rows = [
        (name, low, high, count)
        for name, found in counts.items()
        for low, high, count in zip(bounds, bounds[1:], found, strict=False)
    ]
    return Result(
        numbers,
        ("series", "low", "high", "count"),
        tuple(rows),
        tuple(histogram(each, "entropy (nats)") for each in figures),
        figures,
    )


def averaged(name: str, values: Tensor, top: float) -> dict[str, Number]:
    """Return mean and interval of scores (N,) in [0, top] as NAME and NAME_ci95."""
    return {name: mean(values), f"{name}_ci95": mean_interval(values, top)}


def told_apart(name: str, low: Tensor, high: Tensor) -> dict[str, Number]:
    """Return AUROC and interval as NAME and NAME_ci95."""
    area = auroc(low, high)
    return {name: area, f"{name}_ci95": auroc_interval(area, len(low), len(high))}


def _shown(area: float | None) -> str:
    return "" if area is None else f"wrong from right: AUROC {area:.3f}"


def _median(values: Tensor) -> float:
    """Return the median; of an even count the mean of the middle two, unlike torch's."""
    ranked = values.sort().values
    return float((ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2)


def _figure(
    title: str, bounds: tuple[float, ...], counts: dict[str, Any], names: Sequence[str]
) -> Histogram:
    return Histogram(title, bounds, {name: counts[name] for name in names})

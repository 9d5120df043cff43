"""Entropy of the predictions: clean and adversarial, right and wrong, with histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from advkit.analyses import Histogram, Result, conditions
from advkit.analyses._panels import histogram
from advkit.artifacts.hdf5 import Logits
from advkit.errors import UsageError
from advkit.losses import log_softmax

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


def analyze(inputs: Sequence[Logits], *, bins: int = 30) -> Result:
    """Measure the entropy of one logits file.

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
    numbers: dict[str, float | int | str | None] = {"n": len(logits.labels), "max_entropy": top}
    series: dict[str, Tensor] = {}
    for name, values in conditions(logits).items():
        found = entropy(log_softmax(values).double().exp())
        series[name] = found
        numbers[f"{name}_entropy"] = float(found.mean())
        numbers[f"{name}_entropy_median"] = _median(found)
        if bool((logits.labels >= 0).all()):
            right = values.argmax(1) == logits.labels
            for word, chosen in (("right", right), ("wrong", ~right)):
                series[f"{name}, {word}"] = found[chosen]
                numbers[f"{name}_entropy_{word}"] = _mean(found[chosen])
    counts = {name: counted(values, bins, top) for name, values in series.items()}
    both = _figure("", edges(bins, top), counts, [name for name in counts if "," not in name])
    split = [
        _figure("", edges(bins, top), counts, [f"{name}, right", f"{name}, wrong"])
        for name in conditions(logits)
        if f"{name}, right" in counts
    ]
    figures = (both, *split)
    rows = [
        (name, low, high, count)
        for name, found in counts.items()
        for low, high, count in zip(edges(bins, top), edges(bins, top)[1:], found, strict=False)
    ]
    return Result(
        numbers,
        ("series", "low", "high", "count"),
        tuple(rows),
        tuple(histogram(each, "entropy (nats)") for each in figures),
        figures,
    )


def _median(values: Tensor) -> float:
    """Return the median; of an even count the mean of the middle two, unlike torch's."""
    ranked = values.sort().values
    return float((ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2)


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _figure(
    title: str, bounds: tuple[float, ...], counts: dict[str, Any], names: Sequence[str]
) -> Histogram:
    return Histogram(title, bounds, {name: counts[name] for name in names})

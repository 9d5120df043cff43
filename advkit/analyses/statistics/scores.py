"""Scores per example: their means with intervals, how well they separate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.artifacts.result import Number
from advkit.formulas.stats import Z95

KEPT = 95
"""Percent of in-distribution examples that the false positive rate keeps."""
HALVINGS = 60


def mean(values: Tensor) -> float | None:
    """Return the mean of (N,) values; None of none."""
    return float(values.mean()) if len(values) else None


def mean_interval(values: Tensor, top: float) -> list[float] | None:
    """Return a 95 % interval of the mean of (N,) values that lie in [0, top]; None below two.

    The normal one, mean ± 1.96·s/√N, cut to [0, top]: right for some dozens of examples or more.
    """
    if len(values) < 2:
        return None
    centre, spread = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    return [max(centre - Z95 * spread, 0.0), min(centre + Z95 * spread, top)]


def auroc(low: Tensor, high: Tensor) -> float | None:
    """Return P(h > l) + P(h = l)/2 for l from `low` and h from `high`; None if one is empty.

    Args:
        low: (M,) scores of those that should score low.
        high: (N,) scores of those that should score high.

    >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    0.875

    Source: Bamber, "The area above the ordinal dominance graph", 1975; by ranks, ties halved.
    """
    if not len(low) or not len(high):
        return None
    # A value's rank is the middle of the ranks that its equals take together.
    _, place, count = torch.unique(torch.cat([low, high]), return_inverse=True, return_counts=True)
    last = count.double().cumsum(0)
    rank = (last - (count.double() - 1) / 2)[place[len(low) :]]
    above = float(rank.sum()) - len(high) * (len(high) + 1) / 2
    return above / (len(low) * len(high))


def auroc_interval(area: float | None, m: int, n: int) -> list[float] | None:
    """Return the 95 % score interval of an AUROC of m against n examples, in [0, 1].

    All A with |A − area| ≤ 1.96·√V(A), V being Hanley and McNeil's variance of the AUROC in its
    form for sides of (m + n)/2; unlike area ± 1.96·√V(area) it has a width where the area is 1.

    Source: Newcombe, "Confidence intervals for an effect size measure based on the Mann–Whitney
    statistic, part 2", Statistics in Medicine 2006, method 5; Hanley and McNeil, Radiology 1982.
    """
    if area is None:
        return None
    return [_end(area, m, n, bound) for bound in (0.0, 1.0)]


def _end(area: float, m: int, n: int, bound: float) -> float:
    """Return the A farthest from the area towards a bound of [0, 1] that is still believable."""
    # By bisection: 60 halvings of [0, 1] are finer than its floats.
    inside, outside = area, bound
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if (middle - area) ** 2 <= Z95**2 * _variance(middle, m, n):
            inside = middle
        else:
            outside = middle
    return inside


def _variance(a: float, m: int, n: int) -> float:
    others = (m + n) / 2 - 1
    return a * (1 - a) * (1 + others * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)


def fpr95(low: Tensor, high: Tensor) -> float:
    """Return the share of `high` taken for `low` at the threshold that keeps 95 % of `low`.

    Kept is every score up to the least threshold that keeps at least 95 % of `low`.

    Args:
        low: (M,) scores of in-distribution examples.
        high: (N,) scores of out-of-distribution examples.

    >>> fpr95(torch.arange(100.0), torch.tensor([90.0, 94.0, 95.0, 200.0]))
    0.5

    Source: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples", ICLR 2017; Liang et al., "ODIN", ICLR 2018 (FPR at 95 % TPR, in-distribution
    being the positive side).
    """
    # ⌈0.95·n⌉ in whole numbers.
    count = -(-KEPT * len(low) // 100)
    threshold = low.sort().values[count - 1]
    return float((high <= threshold).double().mean())


def averaged(name: str, values: Tensor, top: float) -> dict[str, Number]:
    """Return mean and interval of scores (N,) in [0, top] as NAME and NAME_ci95."""
    return {name: mean(values), f"{name}_ci95": mean_interval(values, top)}


def told_apart(name: str, low: Tensor, high: Tensor) -> dict[str, Number]:
    """Return AUROC and interval as NAME and NAME_ci95."""
    area = auroc(low, high)
    return {name: area, f"{name}_ci95": auroc_interval(area, len(low), len(high))}


def median(values: Tensor) -> float:
    """Return the median; of an even count the mean of the middle two, unlike torch's.

    >>> median(torch.tensor([4.0, 1.0, 3.0, 2.0]))
    2.5
    """
    ranked = values.sort().values
    return float((ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2)

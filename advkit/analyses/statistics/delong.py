"""The difference of two AUROCs on the same examples, with its interval."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from advkit.formulas.resampling import Values
from advkit.formulas.stats import Z95


def placements(inside: Tensor, outside: Tensor) -> tuple[Values, Values]:
    """Return the share of the other sample that each score is on the right side of, ties halves.

    Of each inside score (n,) the share of outside scores above it, of each outside score (m,)
    the share of inside scores below it. The mean of either is the AUROC.
    """
    low, high = inside.double().numpy(), outside.double().numpy()
    if not len(low) or not len(high):
        raise ValueError("AUROC needs a score inside and a score outside")
    return 1 - _share_below(low, high), _share_below(high, low)


def _share_below(scores: Values, other: Values) -> Values:
    """Return for each score the share of the other scores below it, ties halves."""
    ranked = np.sort(other)
    ends = [np.searchsorted(ranked, scores, side) for side in ("left", "right")]
    shares: Values = (ends[0] + ends[1]) / (2 * len(other))
    return shares


def difference(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
) -> tuple[float, tuple[float, float]]:
    """Return the second AUROC less the first, and its 95 % interval.

    Both scores are of the same examples in the same order; each of `first` and `second` is
    (inside (n,), outside (m,)). The variance is that of the placements' differences, over n and
    over m: what a bootstrap over examples would find, without drawing.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988.
    """
    before, after = placements(*first), placements(*second)
    gaps = [new - old for old, new in zip(before, after, strict=True)]
    # AUROC is the mean over both samples, so its variance is the sum of one term from each.
    variance = sum(float(gap.var(ddof=1)) / len(gap) if len(gap) > 1 else 0.0 for gap in gaps)
    centre, spread = float(gaps[1].mean()), Z95 * math.sqrt(variance)
    return centre, (centre - spread, centre + spread)

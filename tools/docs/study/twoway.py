"""The mean of an effect over seeds and images, both taken for random, and its tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

Effects = NDArray[np.float64]
LEAST = 3
"""Seeds, below which nothing is said."""


@dataclass(frozen=True)
class Estimated:
    """A mean with its standard error, degrees of freedom and the mean of each seed."""

    mean: float
    se: float
    df: float
    seeds: tuple[float, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the 95 % interval."""
        half = float(t.ppf(0.975, self.df)) * self.se
        return self.mean - half, self.mean + half

    @property
    def half(self) -> float:
        """Half its width."""
        low, high = self.interval
        return (high - low) / 2

    def p_zero(self) -> float:
        """Return the two-sided p-value of a mean of 0."""
        return float(2 * t.sf(abs(self.mean) / self.se, self.df))

    def p_within(self, margin: float) -> float:
        """Return the p-value of a mean that is no less than `margin` from 0: two one-sided tests.

        Source: Schuirmann, 1987.
        """
        return float(t.sf((margin - abs(self.mean)) / self.se, self.df))


def two_way(effects: Effects) -> Estimated | None:
    """Estimate the mean of (K, N) effects: a row for each seed, a column for each image.

    d = μ + seed + image + rest, all random and independent. The mean's variance is
    (M_seeds + M_images − M_rest)/(K·N) with the mean squares of the two-way layout, not less than
    that of seeds or of images alone; Satterthwaite's degrees of freedom. None where there are
    fewer than `LEAST` seeds, or no effect differs from another: chance is unknown then.

    Args:
        effects: (K, N), in the unit of the answer.

    Source: Searle, Casella and McCulloch, "Variance Components", section 4.3; Satterthwaite 1946.
    """
    k, n = effects.shape
    if k < LEAST:
        return None
    mean = float(effects.mean())
    seeds, images = effects.mean(1), effects.mean(0)
    rest = effects - seeds[:, None] - images[None, :] + mean
    squares = (
        n * float(((seeds - mean) ** 2).sum()) / (k - 1),
        k * float(((images - mean) ** 2).sum()) / (n - 1),
        float((rest**2).sum()) / ((k - 1) * (n - 1)),
    )
    return _estimated(mean, [square / (k * n) for square in squares], k, n, seeds)


def _estimated(
    mean: float, parts: Sequence[float], k: int, n: int, seeds: Effects
) -> Estimated | None:
    """Join the variances of seeds, images and the rest, each a share of the mean's."""
    own, image, rest = parts
    freedom = (k - 1, n - 1, (k - 1) * (n - 1))
    # Both hold the rest, which their sum counts twice; a part below it has no effect of its own.
    shares = [(own, freedom[0]), (image, freedom[1]), (-rest, freedom[2])]
    if own + image - rest < max(own, image):
        shares = [(own, freedom[0])] if own >= image else [(image, freedom[1])]
    variance = sum(share for share, _ in shares)
    if math.sqrt(max(variance, 0.0)) < 1e-9:
        return None
    df = variance**2 / sum(share**2 / each for share, each in shares)
    # What is taken off can make it smaller than either part has: the least is what seeds have.
    return Estimated(
        mean, math.sqrt(variance), max(df, k - 1), tuple(float(seed) for seed in seeds)
    )


def one_way(values: Sequence[float]) -> Estimated | None:
    """Estimate the mean of figures, one a seed, by Student's t; None as in `two_way`."""
    given = np.asarray(values, dtype=np.float64)
    if len(given) < LEAST or float(np.ptp(given)) < 1e-12:
        return None
    se = float(given.std(ddof=1)) / math.sqrt(len(given))
    return Estimated(float(given.mean()), se, len(given) - 1, tuple(given.tolist()))

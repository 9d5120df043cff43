"""A figure over seeds with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, variance

from scipy.stats import t

Value = tuple[float, float, float]
"""A figure and the ends of its 95 % interval over the test images."""
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Spread:
    """Standard error of a mean over seeds, and its degrees of freedom."""

    se: float
    df: float


def welch(rows: Sequence[Sequence[float]]) -> Spread | None:
    """Return the standard error of a sum or difference of rows' means, each by its own deviation.

    √(Σ v_j) with v_j = s_j²/k_j over rows of k_j seeds, on (Σ v_j)² / Σ v_j²/(k_j − 1) degrees of
    freedom; None where a row has one seed, or no seed of any differs from another: training's
    chance is unknown then.

    Source: Welch (1947), Satterthwaite (1946).
    """
    if not rows or any(len(row) < 2 for row in rows):
        return None
    shares = [variance(row) / len(row) for row in rows]
    total = sum(shares)
    # Equal figures differ in their last bits: that is no deviation either.
    if math.sqrt(total) < 1e-9:
        return None
    parts = (v**2 / (len(row) - 1) for v, row in zip(shares, rows, strict=True))
    return Spread(math.sqrt(total), total**2 / sum(parts))


@dataclass(frozen=True)
class Estimate:
    """A figure by seed, and the rows, seed by seed, whose scatter moves it."""

    values: Mapping[int, Value]
    rows: tuple[BySeed, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(value for value, _, _ in self.values.values())

    @property
    def spread(self) -> Spread | None:
        """How far training's chance moves the mean; None where that is unknown."""
        if any(self.values.keys() - row.keys() for row in self.rows):
            return None
        return welch([[row[seed] for seed in self.values] for row in self.rows])

    @property
    def low(self) -> float:
        """The lower end of the mean's 95 % interval."""
        return self.mean - math.hypot(
            mean(v - low for v, low, _ in self.values.values()), self._chance
        )

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + math.hypot(
            mean(high - v for v, _, high in self.values.values()), self._chance
        )

    @property
    def _chance(self) -> float:
        """Half the width of the interval over seeds alone.

        The interval over images is averaged, not narrowed, by seeds: they share their images. That
        over seeds narrows with them.
        """
        spread = self.spread
        return float(t.ppf(0.975, spread.df)) * spread.se if spread else 0.0

    def __neg__(self) -> Estimate:
        values = {seed: (-v, -high, -low) for seed, (v, low, high) in self.values.items()}
        return Estimate(values, self.rows)

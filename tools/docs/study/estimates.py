"""A figure over seeds with its interval, and what it says of a claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean

from scipy.stats import t

HELD, AGAINST, OPEN = "held", "did not hold", "too small to say"
Value = tuple[float, float, float]
"""A figure and the ends of its 95 % interval over the test images."""


@dataclass(frozen=True)
class Spread:
    """Standard deviation of one seed's figure, and its degrees of freedom."""

    sd: float
    df: int

    def __add__(self, other: Spread) -> Spread:
        return Spread(math.hypot(self.sd, other.sd), min(self.df, other.df))


def pooled(rows: Iterable[Iterable[float]]) -> Spread | None:
    """Return the standard deviation within rows, pooled; None if no row has two seeds."""
    squares, df = 0.0, 0
    for row in rows:
        values = list(row)
        centre = mean(values) if values else 0.0
        squares += sum((value - centre) ** 2 for value in values)
        df += max(len(values) - 1, 0)
    return Spread(math.sqrt(squares / df), df) if df else None


@dataclass(frozen=True)
class Estimate:
    """A figure by seed, and how far training's chance moves one seed of it."""

    values: Mapping[int, Value]
    spread: Spread | None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(value for value, _, _ in self.values.values())

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
        if self.spread is None:
            return 0.0
        quantile = float(t.ppf(0.975, self.spread.df))
        return quantile * self.spread.sd / math.sqrt(len(self.values))

    @property
    def verdict(self) -> str:
        """What it says of a claim by which it is positive; nothing without a spread."""
        if self.spread is not None and self.low > 0:
            return HELD
        if self.spread is not None and self.high < 0:
            return AGAINST
        return OPEN

    def __neg__(self) -> Estimate:
        values = {seed: (-v, -high, -low) for seed, (v, low, high) in self.values.items()}
        return Estimate(values, self.spread)

    def __sub__(self, other: Estimate) -> Estimate:
        """Less another, over the seeds of both, as of independent errors (MOVER)."""
        values = {}
        for seed in self.values.keys() & other.values.keys():
            (a, a_low, a_high), (b, b_low, b_high) = self.values[seed], other.values[seed]
            low = a - b - math.hypot(a - a_low, b_high - b)
            values[seed] = (a - b, low, a - b + math.hypot(a_high - a, b - b_low))
        spread = self.spread + other.spread if self.spread and other.spread else None
        return Estimate(dict(sorted(values.items())), spread)

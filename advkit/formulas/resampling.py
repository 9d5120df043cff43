"""Bootstrap intervals of means and differences of means: seeded, and small at any sample size.

A resampled mean needs only how often each value is drawn, and these counts are multinomial. So a
draw costs as many random numbers as there are different values: three for the difference of two
right-or-wrong verdicts, whatever n is. Beyond `CELLS` different values, values are gathered in
`CELLS` equal bins, each standing at its own mean: the mean stays exact and the variance loses at
most (range/CELLS)²/4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advkit.runtime import seeding

Values = NDArray[np.float64]
DRAWS = 4000
"""The ends of an interval of so many draws stray by about 0.04 standard errors."""
CELLS = 1024
"""Different values that are kept apart."""
PIECE = 256
"""Draws made together, so that memory is `PIECE` x `CELLS` counts."""


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return a fresh random stream for one interval."""
    return np.random.default_rng(seeding.derive(seed, "bootstrap", *names))


def means(values: ArrayLike, generator: np.random.Generator, draws: int = DRAWS) -> Values:
    """Return the means of resampled values, (draws,).

    Args:
        values: (N,), at least one.
        generator: the random stream.
        draws: how many resamples.

    Raises:
        ValueError: no value.

    Source: Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    centres, counts = _cells(np.asarray(values, dtype=np.float64))
    n = int(counts.sum())
    sizes = [min(PIECE, draws - start) for start in range(0, draws, PIECE)]
    drawn = [generator.multinomial(n, counts / n, size) @ centres / n for size in sizes]
    return np.concatenate(drawn)


def ends(resampled: Values) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles: the percentile interval."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)


def of_mean(
    values: ArrayLike, generator: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float]:
    """Return the 95 % interval of a mean; of a paired difference's, given the differences."""
    return ends(means(values, generator, draws))


def _cells(values: Values) -> tuple[Values, NDArray[np.int64]]:
    """Return the values that are kept apart and how often each is there."""
    if values.size == 0:
        raise ValueError("no value to resample")
    centres, counts = np.unique(values, return_counts=True)
    if len(centres) <= CELLS:
        return centres, counts
    low, high = centres[0], centres[-1]
    # The largest value belongs to the last bin, not to one of its own.
    place = np.minimum(((values - low) / (high - low) * CELLS).astype(np.int64), CELLS - 1)
    counts = np.bincount(place, minlength=CELLS)
    sums = np.bincount(place, weights=values, minlength=CELLS)
    filled = counts > 0
    return sums[filled] / counts[filled], counts[filled]

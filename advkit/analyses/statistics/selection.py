"""Selective prediction: the risk among the most confident answers, whatever the order of rows.

A threshold on the confidence takes all of several equal confidences or none, so a coverage that
parts them is reached by drawing among them: the risk here is that draw's expectation, which no
order of rows changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advkit.formulas.resampling import Values

Counts = NDArray[np.int64]


def tied(confidence: ArrayLike, wrong: ArrayLike) -> tuple[Values, Counts, Counts]:
    """Return the different confidences, the greatest first, and their answers and wrong answers.

    Args:
        confidence: (N,) numbers.
        wrong: (N,) bool, or 0 and 1.

    Returns:
        Three arrays (G,).
    """
    values, place = np.unique(-np.asarray(confidence, dtype=np.float64), return_inverse=True)
    count = np.bincount(place, minlength=len(values))
    errors = np.bincount(place[np.asarray(wrong, dtype=bool)], minlength=len(values))
    return -values, count, errors


def risks(count: Counts, errors: Counts) -> Values:
    """Return the expected risk of the k most confident answers, (N,) for k = 1..N, in [0, 1].

    Of a tie of m answers with e wrong ones behind n more confident answers with E wrong ones, the
    first j hold E + e·j/m wrong ones of n + j.

    Args:
        count: (G,) answers of each confidence, the greatest confidence first, each 1 or more.
        errors: (G,) wrong ones among them.

    >>> risks(np.array([1, 2]), np.array([0, 1])).round(4).tolist()
    [0.0, 0.25, 0.3333]

    Source: Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers", ICLR 2019, section 2; the expectation over ties is our own.
    """
    k = np.arange(1, int(count.sum()) + 1)
    before, behind = np.cumsum(count) - count, np.cumsum(errors) - errors
    m, e, n, wrong = (np.repeat(values, count) for values in (count, errors, before, behind))
    return np.asarray((wrong + e * (k - n) / m) / k)


def area(count: Counts, errors: Counts) -> float:
    """Return AURC, the mean over k = 1..N of `risks`, in [0, 1]; groups may be empty.

    Σ_j (E + e·j/m)/(n + j) = e + (E − e·n/m)·(H(n + m) − H(n)), H being the harmonic numbers.

    Args:
        count: (G,) answers of each confidence, the greatest confidence first.
        errors: (G,) wrong ones among them.

    >>> round(area(np.array([1, 2]), np.array([0, 1])), 6)
    0.194444
    """
    total = int(count.sum())
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total + 1))])
    last = np.cumsum(count)
    before, behind = last - count, np.cumsum(errors) - errors
    slope = errors / np.maximum(count, 1)
    sums = errors + (behind - slope * before) * (harmonic[last] - harmonic[before])
    return float(sums.sum()) / total


def least_area(n: int, wrong: int) -> float:
    """Return the AURC of a confidence that ranks every wrong answer last, in [0, 1].

    (1/N)·Σ_j j/(N − W + j) for j = 1..W.

    >>> round(least_area(3, 1), 6)
    0.111111

    Source: Geifman et al., ICLR 2019, section 2: AURC less this is E-AURC.
    """
    j = np.arange(1, wrong + 1)
    return float((j / (n - wrong + j)).sum()) / n


def resampled_area(
    confidence: ArrayLike, wrong: ArrayLike, generator: np.random.Generator, draws: int
) -> Values:
    """Return AURC of resampled answers, (draws,).

    Args:
        confidence: (N,) numbers.
        wrong: (N,) bool, or 0 and 1.
        generator: the random stream.
        draws: how many resamples.
    """
    _, count, errors = tied(confidence, wrong)
    groups = np.arange(len(count))
    # Answers in one order however the rows lie: by confidence, the wrong ones first.
    place = np.repeat(groups, count)
    rank = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
    missed = rank < np.repeat(errors, count)
    areas = np.empty(draws)
    for draw in range(draws):
        rows = generator.integers(len(place), size=len(place))
        drawn, failed = place[rows], missed[rows]
        areas[draw] = area(
            np.bincount(drawn, minlength=len(groups)),
            np.bincount(drawn[failed], minlength=len(groups)),
        )
    return areas

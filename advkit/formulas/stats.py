"""Statistics of accuracies: intervals, the exact McNemar test, how many examples settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
Z80 = 0.8416212335729143
"""Its 80 % quantile."""


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, (low, high) in [0, 1].

    >>> [round(end, 4) for end in wilson(50, 100)]
    [0.4038, 0.5962]

    Raises:
        ValueError: n is not positive or successes is not in 0..n.

    Source: Wilson, "Probable inference", JASA 1927.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the formula gives exactly 0 or 1; rounding would not.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two models are right equally often.

    min(1, 2·P(X ≤ min(b, c))) with X binomial(b + c, 1/2): the examples that both or neither
    get right say nothing.

    Args:
        only_first: b, examples that the first alone gets right.
        only_second: c, examples that the second alone gets right.

    >>> round(mcnemar(1, 7), 9)
    0.0703125

    Raises:
        ValueError: a negative count.

    Source: McNemar, Psychometrika 1947; exact form in Agresti, "Categorical Data Analysis",
    section 11.1.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    if least < 0:
        raise ValueError(f"{only_first} and {only_second} are not counts")
    # Twice the tail would count the middle term twice.
    if only_first == only_second:
        return 1.0
    # 2^n overflows beyond a thousand, so the largest term is a logarithm and the rest are ratios.
    log = math.lgamma(n + 1) - math.lgamma(least + 1) - math.lgamma(n - least + 1)
    largest = math.exp(log - n * math.log(2))
    total, term = 0.0, 1.0
    for k in range(least, -1, -1):
        total += term
        term *= k / (n - k + 1)
        if term < 1e-17 * total:
            break
    return min(1.0, 2 * largest * total)


def tail(count: int, n: int, p: float) -> float:
    """Return P(X ≥ count) of a binomial X of n draws with probability p in (0, 1).

    >>> round(tail(9, 10, 0.5) * 1024, 6)
    11.0
    """
    if count <= 0:
        return 1.0
    # In logarithms: binomial coefficients of some thousand draws overflow a float.
    odds, start = math.log(p) - math.log1p(-p), n * math.log1p(-p)
    terms = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + start + k * odds
        for k in range(count, n + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def paired_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Return the adjusted Wald interval (95 %) of the second share less the first, in [−1, 1].

    With b + 1 and c + 1 for the discordant counts and n + 2 for n; unlike the bootstrap it does
    not shrink to a point where hardly an example is discordant.

    Args:
        only_first: b, as in `mcnemar`.
        only_second: c.
        n: all pairs.

    >>> [round(end, 4) for end in paired_interval(0, 0, 100)]
    [-0.0272, 0.0272]

    Raises:
        ValueError: counts that do not fit.

    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", JEBS 2012.
    """
    if min(only_first, only_second) < 0 or n < max(1, only_first + only_second):
        raise ValueError(f"{only_first} and {only_second} of {n} are not pairs")
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    gap = second - first
    spread = Z95 * math.sqrt((first + second - gap * gap) / (n + 2))
    return max(gap - spread, -1.0), min(gap + spread, 1.0)


def examples_needed(only_first: int, only_second: int, n: int) -> int | None:
    """Return how many pairs let McNemar's test (5 %) see such a difference with 80 % power.

    With ψ = (b + c)/n discordant and δ = |c − b|/n apart, taken for the truth:
    m = (z₀.₉₇₅·√ψ + z₀.₈·√(ψ − δ²))² / δ², then m/4·(1 + √(1 + 4/(m·δ)))², because the exact test
    asks for about one discordant pair more than the normal approximation. None if b = c; up to a
    fifth too many where all discordant pairs lie on one side.

    >>> examples_needed(10, 20, 200)
    508

    Source: Miettinen, Biometrics 1968; Connor, "Sample size for testing differences in
    proportions for the paired-sample design", Biometrics 1987; the second step is the continuity
    correction |c − b| − 1 solved for the number of pairs.
    """
    if only_first == only_second:
        return None
    discordant, apart = (only_first + only_second) / n, abs(only_second - only_first) / n
    root = Z95 * math.sqrt(discordant) + Z80 * math.sqrt(discordant - apart * apart)
    plain = (root / apart) ** 2
    return math.ceil(plain / 4 * (1 + math.sqrt(1 + 4 / (plain * apart))) ** 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the order given.

    The k-th smallest of m is multiplied by m − k + 1; none is below the one before it.

    >>> holm([0.03, 0.01, 0.04])
    [0.06, 0.03, 0.06]

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    ranked = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(ranked):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = least
    return adjusted

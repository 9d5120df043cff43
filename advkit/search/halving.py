"""Successive halving over epochs: who trains on.

A trial is one run of a fixed number of epochs E, stopped at the rungs ⌈E/4⌉, ⌈E/2⌉ and E and judged
there; those among the better half so far go on with the same run. The learning rate, τ and λ are
functions of the share of E that is done. So a rung sees exactly what the whole run would have been
there, and going on costs nothing twice; a short run with schedules of its own would be another
training. The price: a rung sees little of where τ and λ end, and comes before the learning rate has
fallen, which is why half go on and not a third, and none is dropped before a quarter.

Source: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS 2016; one trial after another as in Li et al., "A system for massively
parallel hyperparameter tuning", MLSys 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

SHARES = (4, 2, 1)
"""A rung lies after one of so many parts of the epochs."""


def rungs(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which a trial is judged, the last one being the end.

    >>> rungs(200), rungs(3), rungs(1)
    ((50, 100, 200), (1, 2, 3), (1,))
    """
    return tuple(sorted({-(-epochs // share) for share in SHARES}))


def expected(rungs: Sequence[int]) -> tuple[float, float]:
    """Return the share of the epochs that a trial takes where half go on at each rung.

    And how often it is judged.

    >>> expected((50, 100, 200)), expected((1,))
    ((0.5, 1.75), (1.0, 1.0))
    """
    steps = [end - begin for begin, end in zip((0, *rungs), rungs, strict=False)]
    shares = [0.5**place for place in range(len(rungs))]
    taken = sum(share * step for share, step in zip(shares, steps, strict=True))
    return taken / rungs[-1], sum(shares)


def goes_on(score: float, earlier: Sequence[float]) -> bool:
    """Whether a trial is among the better half of those that came to a rung so far, itself too.

    The first one is; of equals on the border all are.

    >>> goes_on(0.3, []), goes_on(0.3, [0.4]), goes_on(0.3, [0.4, 0.2, 0.1])
    (True, False, True)
    """
    every = sorted([*earlier, score], reverse=True)
    return score >= every[max(1, len(every) // 2) - 1]

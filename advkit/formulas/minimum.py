"""The least value of a function of one number, between two ends."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

GOLDEN = (3 - math.sqrt(5)) / 2
"""Share of an interval that a golden section cuts off."""
STEPS = 500
"""Evaluations at most; Brent's search of a smooth function takes some twenty."""


def bounded(function: Callable[[float], float], low: float, high: float, near: float) -> float:
    """Return where a function with one minimum is least, within (low, high).

    Each step goes to the lowest point of the parabola through the three best points so far where
    that lies inside and steps shrink, else it is a golden section.

    Args:
        function: asked only inside the ends.
        low: one end.
        high: the other, larger.
        near: how far from the minimum the answer may lie; rounding adds 1.5e-8 of it.

    >>> round(bounded(lambda x: (x - 2) ** 2, 0, 5, 1e-6), 5)
    2.0

    Raises:
        ValueError: `high` is not larger.

    Source: Brent, "Algorithms for Minimization without Derivatives", 1973, chapter 5; as `fmin`
    of Forsythe, Malcolm and Moler, "Computer Methods for Mathematical Computations", 1977.
    """
    if not low < high:
        raise ValueError(f"no interval: {low} to {high}")
    best = second = third = low + GOLDEN * (high - low)
    at_best = at_second = at_third = function(best)
    step = before = 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        close = math.sqrt(sys.float_info.epsilon) * abs(best) + near / 3
        if abs(best - middle) <= 2 * close - (high - low) / 2:
            break
        parabola = False
        if abs(before) > close:
            r = (best - second) * (at_best - at_third)
            q = (best - third) * (at_best - at_second)
            p = (best - third) * q - (best - second) * r
            q = 2 * (q - r)
            p, q = (-p if q > 0 else p), abs(q)
            r, before = before, step
            if abs(p) < abs(q * r / 2) and q * (low - best) < p < q * (high - best):
                parabola, step = True, p / q
                tried = best + step
                if tried - low < 2 * close or high - tried < 2 * close:  # too near to an end
                    step = math.copysign(close, middle - best)
        if not parabola:
            before = (low if best >= middle else high) - best
            step = GOLDEN * before
        tried = best + math.copysign(max(abs(step), close), step)
        at_tried = function(tried)
        if at_tried <= at_best:
            low, high = (best, high) if tried >= best else (low, best)
            third, at_third, second, at_second = second, at_second, best, at_best
            best, at_best = tried, at_tried
            continue
        low, high = (tried, high) if tried < best else (low, tried)
        if at_tried <= at_second or second == best:
            third, at_third, second, at_second = second, at_second, tried, at_tried
        elif at_tried <= at_third or third in (best, second):
            third, at_third = tried, at_tried
    return best

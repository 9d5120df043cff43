"""Interleaved rounds in process CPU time, with the noise floor of the same thing timed twice."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleaved(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Time every run once a round, in turn; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if round_:
                seconds[name].append(time.process_time() - began)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum of the ratio round by round."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    middle = statistics.median(ratios)
    return {name: round(value, 4) for name, value in
            (("median", middle), ("min", min(ratios)), ("max", max(ratios)))}  # fmt: skip

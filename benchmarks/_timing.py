"""Seconds of a turn, and what the turns of two contenders say, on top of `advkit.bench`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from advkit.bench import measure


def cpu_seconds(run: Callable[[], None]) -> Callable[[int], float]:
    """Return a turn that takes the process CPU time of a run, which neighbours disturb least."""

    def turn(_: int) -> float:
        began = time.process_time()
        run()
        return time.process_time() - began

    return turn


def ratio(
    numerators: Sequence[float], denominators: Sequence[float], digits: int = 4
) -> dict[str, float]:
    """Return median, minimum and maximum of the ratio round by round."""
    values = measure.ratios(numerators, denominators)
    middle = statistics.median(values)
    spread = {"median": middle, "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in spread.items()}

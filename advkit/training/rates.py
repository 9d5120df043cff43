"""What a run's schedule makes of the learning rate and of SGD's momentum, by iteration."""

from __future__ import annotations

from collections.abc import Callable

from advkit.config.settings import Settings
from advkit.formulas.schedules import CYCLED, PEAKS, held, learning_rate, one_cycle

Course = Callable[[int], float]
"""From the iteration t of the whole run to a value."""


def of(settings: Settings, steps: int) -> tuple[Course, Course | None]:
    """Return the learning rate, and SGD's momentum where the schedule moves it.

    Args:
        settings: of the run.
        steps: iterations of an epoch.
    """
    # Epochs may be a fraction: a fortieth of a short run.
    warmup = settings.warmup_steps
    warmup = round(settings.warmup * steps) if warmup is None else warmup
    name, lr, epochs, drops = settings.lr_schedule, settings.lr, settings.epochs, settings.drops
    peak, hold = settings.lr_peak, settings.lr_hold

    def rate(t: int) -> float:
        return learning_rate(name, lr, t, steps, epochs, drops, warmup, peak=peak, hold=hold)

    if name != "onecycle":
        return rate, None
    high, low = CYCLED
    top = PEAKS[name] if peak is None else peak
    # Lowest where the rate is highest.
    return rate, lambda t: one_cycle(high, low, high, *held(t, steps * epochs, hold), top)

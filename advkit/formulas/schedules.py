"""Values that move with training: τ and λ of ADR, and the learning rate.

Every schedule is a function of the iteration t = 0..N−1 alone, so that a resumed run needs no
scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from advkit.errors import UsageError, brief, unknown

SHAPES = ("cosine", "linear", "step", "constant")
LR_SCHEDULES = ("multistep", "cosine", "cyclic", "triangular", "onecycle")
PEAKS = {"triangular": 0.5, "onecycle": 0.3}
"""Schedule with a peak → share of training before it, where none is given."""
CYCLED = (0.95, 0.85)
"""Momentum of the one-cycle schedule where the rate is lowest, and at its peak."""
START_SHARE, END_SHARE = 1 / 25, 1 / 25e4
"""Rate of the one-cycle schedule at its first and last iteration, in parts of the peak."""
WARMUP_START = 1e-6
"""As in timm's scheduler, which ADR's code uses."""


def parse_span(text: str) -> tuple[float, float]:
    """Read `A:B` (from A to B) or `A` (constant).

    >>> parse_span("2.5:2.0"), parse_span("0.7")
    ((2.5, 2.0), (0.7, 0.7))
    """
    ends = str(text).split(":")
    try:
        values = [float(end) for end in ends]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(math.isfinite(value) for value in values):
        raise UsageError(
            f"{brief(repr(text))} is not a range: write START:END, for example 2.5:2.0"
        )
    return values[0], values[-1]


def anneal(start: float, end: float, progress: float, shape: str = "cosine") -> float:
    """Return the value at `progress` = t/N in [0, 1).

    cosine: end + ½(start − end)(1 + cos(π·t/N)); linear: straight; step: `start` for the first
    half, `end` for the second; constant: `start` throughout. Cosine and linear reach `end` only
    in the limit t → N.

    >>> round(anneal(2.5, 2.0, 0.25), 7)
    2.4267767

    Source: ADR, section 4.2; per iteration, as the authors' code does (`cosine_scheduler`).
    """
    if shape == "cosine":
        return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))
    if shape == "linear":
        return start + (end - start) * progress
    if shape == "step":
        return start if progress < 0.5 else end
    if shape == "constant":
        return start
    raise unknown("annealing shape", shape, SHAPES)


def learning_rate(
    schedule: str,
    lr: float,
    t: int,
    steps_per_epoch: int,
    epochs: int,
    drops: Sequence[int],
    warmup: int = 0,
    *,
    peak: float | None = None,
    hold: int = 1,
) -> float:
    """Return the learning rate of iteration t (0-based).

    multistep: lr divided by 10 from the first iteration of each epoch in `drops` on (epochs
    counted from 0, so a drop at 100 acts on the 101st); cosine and cyclic: ½·lr·(1 + cos(π·t/N));
    triangular: from 0 straight up to lr, and straight down to 0 (which codes of single-step
    training call cyclic); onecycle: a cosine from lr/25 up to lr, and one down to lr/250,000.
    During the first `warmup` iterations, under every schedule but onecycle: linear from 1e-6
    towards lr. The cosine is not shifted by it, so that the peak lies a little below lr.

    Args:
        schedule: one of LR_SCHEDULES.
        lr: the highest rate.
        t: iteration of the whole run.
        steps_per_epoch: iterations of an epoch.
        epochs: of the run.
        drops: see multistep.
        warmup: iterations.
        peak: share of the run before the peak of triangular (0.5) and onecycle (0.3).
        hold: iterations for which the rate stays as it is, except under multistep.

    >>> round(learning_rate("cyclic", 0.4, 250, 100, 100, (), warmup=250), 5)
    0.39938

    Source: ADR's extra-data runs, section 5.2 and the authors' code (timm's cosine scheduler, which
    also lags one iteration behind; here it does not). onecycle: Smith and Topin, "Super-
    Convergence", 2017, in the form of PyTorch's OneCycleLR with its defaults.
    """
    if t < warmup and schedule != "onecycle":
        return WARMUP_START + (lr - WARMUP_START) * t / warmup
    if schedule == "multistep":
        # Dividing by an exact power keeps 0.1 -> 0.01, which repeated multiplying would not.
        return lr / 10.0 ** sum(t // steps_per_epoch >= drop for drop in drops)
    at, total = held(t, steps_per_epoch * epochs, hold)
    if schedule in PEAKS:
        top = PEAKS[schedule] if peak is None else peak
        if schedule == "onecycle":
            return one_cycle(lr * START_SHARE, lr, lr * END_SHARE, at, total, top)
        if top == 0.5:  # to the last bit as before there was a choice
            return lr * (1 - abs(2 * at / total - 1))
        return lr * min(at / (top * total), (total - at) / ((1 - top) * total))
    if schedule in ("cosine", "cyclic"):
        return anneal(lr, 0.0, at / total)
    raise unknown("learning-rate schedule", schedule, LR_SCHEDULES)


def held(t: int, total: int, hold: int) -> tuple[int, int]:
    """Return where iteration t lies in a schedule that moves every `hold` of them, and its length.

    >>> held(7, 10, 3)
    (2, 4)
    """
    return t // hold, -(-total // hold)


def one_cycle(first: float, top: float, last: float, t: int, total: int, peak: float) -> float:
    """Return a value that goes by cosines from `first` to `top` and on to `last`.

    It is `first` at t = 0, `top` at t = peak·total − 1, which need not be whole, and `last` at
    t = total − 1.

    >>> [one_cycle(0.0, 1.0, 0.5, t, 8, 0.5) for t in (0, 3, 7)]
    [0.0, 1.0, 0.5]
    """
    rise = peak * total - 1
    if t <= rise:
        return anneal(first, top, t / rise if rise > 0 else 1.0)
    return anneal(top, last, (t - rise) / (total - 1 - rise))

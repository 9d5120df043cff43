"""Values that move with training: τ and λ of ADR, and the learning rate.

Every schedule is a function of the iteration t = 0..N−1 alone, so that a resumed run needs no
scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from advkit.errors import UsageError, unknown

SHAPES = ("cosine", "linear", "step", "constant")
LR_SCHEDULES = ("multistep", "cosine", "cyclic", "triangular")
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
        raise UsageError(f"{text!r} is not a range: write START:END, for example 2.5:2.0")
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
) -> float:
    """Return the learning rate of iteration t (0-based).

    multistep: lr divided by 10 from the first iteration of each epoch in `drops` on (epochs
    counted from 0, so a drop at 100 acts on the 101st); cosine and cyclic: ½·lr·(1 + cos(π·t/N));
    triangular: from 0 straight up to lr at N/2, and straight down to 0 (which codes of single-step
    training call cyclic).
    During the first `warmup` iterations, under every schedule: linear from 1e-6 towards lr. The
    cosine is not shifted by it, so that the peak lies a little below lr.

    >>> round(learning_rate("cyclic", 0.4, 250, 100, 100, (), warmup=250), 5)
    0.39938

    Source: ADR's extra-data runs, section 5.2 and the authors' code (timm's cosine scheduler, which
    also lags one iteration behind; here it does not).
    """
    if t < warmup:
        return WARMUP_START + (lr - WARMUP_START) * t / warmup
    if schedule == "multistep":
        # Dividing by an exact power keeps 0.1 -> 0.01, which repeated multiplying would not.
        return lr / 10.0 ** sum(t // steps_per_epoch >= drop for drop in drops)
    if schedule == "triangular":
        return lr * (1 - abs(2 * t / (steps_per_epoch * epochs) - 1))
    if schedule in ("cosine", "cyclic"):
        return anneal(lr, 0.0, t / (steps_per_epoch * epochs))
    raise unknown("learning-rate schedule", schedule, LR_SCHEDULES)

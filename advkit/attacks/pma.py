"""Probability-margin attack (PMA): PGD on the margin of probabilities, one side of it first."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from advkit.errors import UsageError
from advkit.formulas import folding
from advkit.formulas.threat import Threat
from advkit.runtime import modes

LIMITS = {"steps": ">= 1", "restarts": ">= 1"}

_Loss = Callable[[Tensor, Tensor], Tensor]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{c≠y} p_c − p_y per example, (B,), in [−1, 1]; above 0 where y is not the answer.

    Args:
        logits: (B, C).
        y: true classes, (B,).

    >>> z = torch.tensor([[1.0, 1.5, 0.0, -0.5]])
    >>> round(float(margin(z, torch.tensor([0]))), 6)
    0.200239

    Source: Xie et al., "Towards Million-Scale Adversarial Robustness Evaluation With Stronger
    Individual Attacks", arXiv 2411.15210.
    """
    return _rival(logits, y) - _true(logits, y)


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    steps: int = 100,
    restarts: int = 1,
) -> Tensor:
    """Return each example's first misclassified iterate, else the one of the greatest margin.

    A restart is two runs, which begin at random in the ball. The first step of a run goes up p_y;
    the rest of its first half raises one side of the margin alone, −p_y in the first run and the
    greatest other probability in the second; its second half raises the whole margin. In each half
    the step falls from 2ε to 0 as half a cosine. An example leaves once it is misclassified. Nets
    that are very sure have flat probabilities, on which this attack is weak: it stands beside
    APGD, not in its place.

    Args:
        steps: gradient steps of each of the two runs of a restart.
        restarts: random starts of both runs.

    Source: Xie et al., arXiv 2411.15210, and its code.
    """
    if steps < 1 or restarts < 1:
        raise UsageError("--steps and --restarts must be at least 1")
    worst, rows = _Worst(x, y), torch.arange(len(x), device=x.device)
    with folding.settled(), modes.frozen(model):
        for side in (_less_true, _rival) * restarts:
            if not len(rows):
                break
            rows = _run(model, x, y, threat, rows, worst, side, steps, generator)
    return worst.images


class _Worst:
    """The worst iterate of each example so far, and its margin."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.images, self.y = x.clone(), y
        # Probabilities near 1 differ by less than float32 holds; Apple's GPUs have no float64.
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        self.margin = torch.full((len(x),), -torch.inf, device=x.device, dtype=wide)

    def add(self, rows: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Look at iterates of the examples `rows`, (R,); return those that still stand."""
        y = self.y[rows]
        fallen = logits.argmax(1) != y
        # Ties of the greatest logit may be answered wrongly at a margin of 0: 2 is above all.
        value = torch.where(fallen, 2.0, margin(logits.to(self.margin.dtype), y))
        # What is not a number is no answer at all; the verdict is taken elsewhere.
        value = torch.nan_to_num(value, nan=2.0)
        better = value > self.margin[rows]
        self.images[rows[better]] = x_adv[better].to(self.images.dtype)
        self.margin[rows[better]] = value[better]
        return rows[~fallen]


def _run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    rows: Tensor,
    worst: _Worst,
    side: _Loss,
    steps: int,
    generator: Generator,
) -> Tensor:
    """Go one run over the examples `rows`, (R,); return those that still stand."""
    half = max(1, steps // 2)
    # Noise for the whole batch: an example's start does not depend on which others stand.
    x_adv = threat.start(x, "uniform", generator)[rows]
    for step in range(steps):
        loss = _true if step == 0 else side if step < half else margin
        place, length = (step, half) if step < half else (step - half, steps - half)
        x_adv = x_adv.requires_grad_(True)
        with torch.enable_grad():
            logits = model(x_adv)
            (gradient,) = torch.autograd.grad(loss(logits, y[rows]).sum(), x_adv)
        x_adv, logits = x_adv.detach(), logits.detach()
        stands = logits.argmax(1) == y[rows]
        rows = worst.add(rows, x_adv, logits)
        if not len(rows):
            return rows
        # From 2ε down to 0, anew in each half.
        size = threat.eps * (1 + math.cos(math.pi * place / length))
        moved = threat.step(x_adv[stands], gradient[stands], size)
        x_adv = threat.project(moved, x[rows])
    with torch.no_grad():
        return worst.add(rows, x_adv, model(x_adv))


def _true(logits: Tensor, y: Tensor) -> Tensor:
    """Return p_y per example, (B,)."""
    return logits.softmax(1).gather(1, y[:, None]).squeeze(1)


def _less_true(logits: Tensor, y: Tensor) -> Tensor:
    return -_true(logits, y)


def _rival(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{c≠y} p_c per example, (B,)."""
    others = logits.softmax(1).scatter(1, y[:, None], -1.0)
    return others.amax(1)

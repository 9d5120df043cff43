"""Projected gradient descent: K steps of steepest ascent inside the ball."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from advkit.errors import UsageError
from advkit.formulas import folding
from advkit.formulas.losses import cross_entropy, log_odds, to_spread
from advkit.formulas.threat import Threat
from advkit.formulas.threat import step_size as parse_step
from advkit.runtime import modes

LIMITS = {"steps": "[1, 1e5]", "restarts": "[1, 1e4]"}

Loss = Callable[[Tensor, Tensor], Tensor]
Seeing = Callable[[Tensor, Tensor], Tensor]
"""From an iterate (B, C, H, W) and its logits (B, C) to a loss per example (B,)."""


class ScaledCE:
    """Cross-entropy of logits at a temperature of each example's own, for one batch.

    It brings the logits of the first iterate to one spread (`losses.to_spread`), so that a net and
    its positive multiples are attacked alike. Ascended are the log-odds, in the same direction.
    """

    def __init__(self) -> None:
        self._factor: Tensor | None = None

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log-odds per example, (B,); the first call sets the temperatures."""
        if self._factor is None:
            self._factor = to_spread(logits)
        return log_odds(logits * self._factor, y)


def named_loss(name: str) -> Loss:
    """Return what is ascended under a name of `--loss`, for one batch."""
    return ScaledCE() if name == "scaled-ce" else cross_entropy


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 10,
    step_size: float | None = None,
    loss: Loss = cross_entropy,
    random_start: bool | str = True,
    generator: Generator | None = None,
    start: Tensor | None = None,
    seeing: Seeing | None = None,
) -> Tensor:
    """Return the last iterate, (B, C, H, W), inside ball and box: the training role.

    x_{k+1} = Π(x_k + α·sign ∇ℓ) for linf, with a unit l2 gradient for l2.

    Args:
        model: logits from pixels; its mode is the caller's choice and stays as it is.
        x: clean images (B, C, H, W) in [0, 1].
        y: what `loss` compares with: classes (B,) or probabilities (B, C).
        threat: norm ball and pixel box.
        steps: K.
        step_size: α in pixel space; ε/4 if None.
        loss: (logits, y) → loss per example (B,), ascended.
        random_start: True is uniform in the ball, False is x, or a name of `threat.STARTS`.
        generator: of the start's noise; the global one if None.
        start: the first iterate itself, inside ball and box or not; nothing random then.
        seeing: ascended instead of `loss`, where that looks at the images themselves.

    Source: Madry et al., ICLR 2018, section 2.1; ADR, eq. 2.
    """
    kind = (
        random_start if isinstance(random_start, str) else ("uniform" if random_start else "none")
    )
    if start is None:
        start = threat.start(x, kind, generator)
    ascended = seeing or (lambda _, logits: loss(logits, y))
    with folding.settled():
        path = _iterates(model, x, threat, steps, step_size, ascended, start)
        # The path is a generator: iterates before the last are freed as it goes.
        last, _ = deque(path, maxlen=1).pop()
    return last


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    steps: int = 20,
    step_size: str = "eps/4",
    restarts: int = 1,
    loss: Literal["scaled-ce", "ce"] = "scaled-ce",
) -> Tensor:
    """Return each example's worst iterate: the evaluation role.

    A misclassified iterate beats every correctly classified one; among equals the one of
    highest loss wins. All iterates count, the start included, so accuracy is never above that
    of the last iterate.

    Args:
        steps: gradient steps.
        step_size: in pixel space, or a share of ε such as eps/4.
        restarts: random starts; the worst is kept for each example.
        loss: scaled-ce is cross-entropy of logits brought to one spread: a net and its multiples
            get the same verdicts; ce is the plain one that papers' PGD figures are of.
    """
    # Until an iterate is scored, the clean image stands.
    worst = x.clone()
    if steps < 1 or restarts < 1:
        raise UsageError("--steps and --restarts must be at least 1")
    # float64 keeps losses apart that differ little beside their size.
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    score = torch.full((len(x),), -torch.inf, device=x.device, dtype=wide)
    size = parse_step(step_size, threat.eps)
    ascended = named_loss(loss)
    # Cross-entropy grows with the log-odds, which never saturate.
    compared = log_odds if loss == "ce" else ascended
    with folding.settled():
        for _ in range(restarts):
            start = threat.start(x, "uniform", generator)
            path = _iterates(
                model, x, threat, steps, size, lambda _, logits: ascended(logits, y), start
            )
            last = x
            for x_adv, logits in path:
                last = x_adv
                if logits is not None:
                    value = compared(logits.to(wide), y)
                    worst, score = _worse(worst, score, x_adv, logits, y, value)
            # The last iterate had no pass of its own: its gradient is not needed, its verdict is.
            with torch.no_grad():
                logits = model(last)
                value = compared(logits.to(wide), y)
                worst, score = _worse(worst, score, last, logits, y, value)
    return worst


def _iterates(
    model: nn.Module,
    x: Tensor,
    threat: Threat,
    steps: int,
    step_size: float | None,
    loss: Seeing,
    start: Tensor,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield (iterate, its logits) with the start first; the last one has no logits yet."""
    size = threat.eps / 4 if step_size is None else step_size
    x_adv = start
    with modes.frozen(model):
        for _ in range(steps):
            x_adv = x_adv.requires_grad_(True)
            with torch.enable_grad():
                logits = model(x_adv)
                # The sum leaves each example its own gradient; a mean invites underflow.
                (gradient,) = torch.autograd.grad(loss(x_adv, logits).sum(), x_adv)
            x_adv = x_adv.detach()
            yield x_adv, logits.detach()
            x_adv = threat.project(threat.step(x_adv, gradient, size), x)
    yield x_adv, None


def _worse(
    worst: Tensor, score: Tensor, x_adv: Tensor, logits: Tensor, y: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Replace the examples that `x_adv` hurts more; `value` (B,) are log-odds."""
    # A right answer's log-odds are log(C − 1) at most, a wrong one's 0 at least.
    value = torch.where(logits.argmax(1) != y, value + math.log(logits.shape[1]), value)
    value = torch.nan_to_num(value, nan=torch.inf)
    better = value > score
    shape = (-1, *[1] * (x_adv.dim() - 1))
    return torch.where(better.view(shape), x_adv, worst), torch.where(better, value, score)

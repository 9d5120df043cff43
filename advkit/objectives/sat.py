"""SAT: TRADES whose targets move, example by example, towards what the student says of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advkit.formulas.losses import cross_entropy, kl_divergence, log_softmax
from advkit.objectives import REMEMBERED, Given

START = "normal"
BEGINS = ("memory_from",)
LIMITS = {"beta": "[0, 1e6]", "memory_momentum": "[0, 1)", "memory_from": "[1, 1e6]"}


def memory(y: Tensor, classes: int) -> dict[str, Tensor]:
    """Return the targets t of all examples, (N, C) float32, one-hot at first."""
    return {"targets": F.one_hot(y, classes).float()}


def update(
    memory: dict[str, Tensor],
    index: Tensor,
    y: Tensor,
    told: Tensor,
    epoch: int,
    *,
    memory_momentum: float = 0.9,
    memory_from: int = 70,
) -> None:
    """Move the targets of the examples of one step; `told` (B, C) is what the student said."""
    if epoch < memory_from:
        return
    there = index >= 0
    rows = memory["targets"]
    rows[index[there]] = _moved(rows[index[there]], told[there], memory_momentum)


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return KL(clean ‖ adversarial) per example, (B,), as TRADES."""
    return kl_divergence(given.clean(), logits)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    beta: float = 6.0,
    memory_momentum: float = 0.9,
    memory_from: int = 70,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean of w_i·H(t_i, p_i) + β·KL(p_i ‖ p′_i), KL summed over classes.

    t_i is the example's target, moved by m·t_i + (1 − m)·p_i in this very step, and w_i its largest
    entry, scaled to a mean of 1 over the batch (of all processes). Neither takes a gradient. Extra
    images have no memory: theirs is the row of the label source, which does not move. Before
    `memory_from` the loss is TRADES'.

    Args:
        beta: weight of the robust term.
        memory_momentum: m, what a target keeps of itself.
        memory_from: first epoch, counted from 1, in which targets move.

    Source: Huang et al., "Self-Adaptive Training: beyond Empirical Risk Minimization", NeurIPS
    2020, algorithm 1, for TRADES as in the authors' code.
    """
    clean, adversarial = model(x), model(x_adv)
    said = log_softmax(clean).detach().exp()
    robust = kl_divergence(clean, adversarial).mean()
    stats = {"clean": clean.detach(), "adversarial": adversarial.detach(), REMEMBERED: said}
    if given.epoch < memory_from:
        return cross_entropy(clean, given.targets).mean() + beta * robust, stats
    targets = given.rows("targets", given.targets)
    if given.index is not None:
        there = (given.index >= 0).to(targets.device)[:, None]
        targets = torch.where(there, _moved(targets, said, memory_momentum), targets)
    weights = targets.amax(1)
    weights = weights / given.gathered(weights).mean()
    return (weights * cross_entropy(clean, targets)).mean() + beta * robust, stats


def _moved(targets: Tensor, said: Tensor, momentum: float) -> Tensor:
    return momentum * targets + (1 - momentum) * said.to(targets.dtype)

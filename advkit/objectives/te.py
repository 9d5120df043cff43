"""TE: AT or TRADES, held near what the student said of each example in the epochs before."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from advkit.errors import AdvkitError
from advkit.formulas.losses import cross_entropy, kl_divergence, log_softmax
from advkit.formulas.schedules import parse_span
from advkit.objectives import REMEMBERED, Given

START = "uniform"
LIMITS = {
    "beta": "[0, 1e6]",
    "memory_momentum": "[0, 1)",
    "ensemble_weight": "[0, 1e6]",
    "ramp": "[0, 1e6]",
}
BEGINS = ("ramp",)


def memory(y: Tensor, classes: int) -> dict[str, Tensor]:
    """Return the predictions P of all examples, (N, C) float32, 0 at first."""
    return {"predictions": torch.zeros(len(y), classes)}


def update(
    memory: dict[str, Tensor],
    index: Tensor,
    y: Tensor,
    told: Tensor,
    epoch: int,
    *,
    memory_momentum: float = 0.9,
    ramp: str = "90:150",
) -> None:
    """Move the predictions of the examples of one step; `told` (B, C) is what the student said."""
    if epoch < parse_span(ramp)[0]:
        return
    there = index >= 0
    rows = memory["predictions"]
    rows[index[there]] = _moved(rows[index[there]], told[there], memory_momentum)


def inner(
    logits: Tensor,
    given: Given,
    *,
    base: Literal["at", "trades"] = "at",
    beta: float = 6.0,
    memory_momentum: float = 0.9,
    ensemble_weight: float = 300.0,
    ramp: str = "90:150",
) -> Tensor:
    """Return what the attack ascends per example, (B,).

    CE(z′, y), with `trades` β·KL(clean ‖ adversarial), and w/C·Σ_c (p′ − P̂)², see `outer`.
    """
    if base == "at":
        loss = cross_entropy(logits, given.targets)
    else:
        loss = beta * kl_divergence(given.clean(), logits)
    first, last = parse_span(ramp)
    if given.epoch < first:
        return loss
    weight = ensemble_weight * ramped(given.epoch, first, last)
    return loss + weight * _apart(logits, given, memory_momentum)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    base: Literal["at", "trades"] = "at",
    beta: float = 6.0,
    memory_momentum: float = 0.9,
    ensemble_weight: float = 300.0,
    ramp: str = "90:150",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return CE(z′, target) + w·mean (p′ − P̂)², or with `trades` TRADES' loss + w·mean (p − P̂)².

    The mean is over batch and classes, so that an example weighs w/C; KL is summed over classes. P̂
    is P scaled to a sum of 1, where P ← m·P + (1 − m)·p is moved, before the attack and in its
    mode, by the student's softmax p on the clean images. Extra images have no memory and no such
    term, but count in the mean.

    Args:
        base: the objective that is held: at, or trades.
        beta: weight of the robust term, with trades.
        memory_momentum: m, what a prediction keeps of itself.
        ensemble_weight: w where the ramp has reached 1.
        ramp: epochs START:END, counted from 1, over which w rises as exp(−5·(1 − share)²); before,
            P does not move.

    Source: Dong et al., "Exploring Memorization in Adversarial Training", ICLR 2022, eq. 6, and
    the authors' code.
    """
    adversarial = model(x_adv) if base == "at" else None
    if adversarial is None:
        held, adversarial = model(x), model(x_adv)
        loss = cross_entropy(held, given.targets).mean()
        loss = loss + beta * kl_divergence(held, adversarial).mean()
        stats = {"clean": held.detach(), "adversarial": adversarial.detach()}
    else:
        held = adversarial
        loss = cross_entropy(held, given.targets).mean()
        stats = {"adversarial": adversarial.detach()}
    first, last = parse_span(ramp)
    if given.epoch < first:
        return loss, stats
    weight = ensemble_weight * ramped(given.epoch, first, last)
    stats[REMEMBERED] = _said(given)
    return loss + weight * _apart(held, given, memory_momentum).mean(), stats


def ramped(epoch: int, first: float, last: float) -> float:
    """Return the share of the weight in an epoch counted from 1, in [0, 1].

    >>> [round(ramped(epoch, 90, 150), 6) for epoch in (89, 90, 120, 150)]
    [0.0, 0.006738, 0.286505, 1.0]
    """
    if epoch < first:
        return 0.0
    share = 1.0 if epoch >= last else (epoch - first) / (last - first)
    return math.exp(-5 * (1 - share) ** 2)


def _said(given: Given) -> Tensor:
    """Return the student's softmax on the clean images, (B, C)."""
    return log_softmax(given.clean()).exp()


def _apart(logits: Tensor, given: Given, momentum: float) -> Tensor:
    """Return the mean over classes of (softmax(z) − P̂)² per example, (B,)."""
    if given.index is None:
        raise AdvkitError("temporal ensembling needs the examples' places")
    index = given.index
    wanted = given.once("wanted", lambda: _wanted(given, momentum))
    there = given.once("there", lambda: (index >= 0).to(wanted))
    return there * (log_softmax(logits).exp() - wanted).square().mean(1)


def _wanted(given: Given, momentum: float) -> Tensor:
    """Return P̂, (B, C): the same in all passes of a step."""
    said = _said(given)
    moved = _moved(given.rows("predictions", torch.zeros_like(said)), said, momentum)
    return moved / moved.sum(1, keepdim=True)


def _moved(predictions: Tensor, said: Tensor, momentum: float) -> Tensor:
    return momentum * predictions + (1 - momentum) * said.to(predictions.dtype)

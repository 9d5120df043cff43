"""TRADES: cross-entropy on the clean images plus β times KL(clean ‖ adversarial)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy, kl_divergence
from advkit.objectives import Given

# Not x itself: there KL(clean ‖ adversarial) has its minimum and no gradient.
START = "normal"
# With cross-entropy the attack never asks for clean logits, and BN sees no pass for them.
CLEAN_WHEN = {"inner": ["kl"]}
LIMITS = {"beta": ">= 0"}


def inner(logits: Tensor, given: Given, *, inner: Literal["kl", "ce"] = "kl") -> Tensor:
    """Return what the attack ascends per example, (B,).

    Args:
        inner: kl is KL(clean ‖ adversarial), as in TRADES and LTD's code base; ce is
            cross-entropy with the true class, as LTD's text says.
    """
    if inner == "ce":
        return cross_entropy(logits, given.y)
    return kl_divergence(given.clean(), logits)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    beta: float = 6.0,
    joint_batch: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return CE(clean, target) + β·KL(clean ‖ adversarial), both means over the batch.

    Gradients flow through both sides of the KL term.

    Args:
        beta: weight of the robust term (LTD's λ).
        joint_batch: clean and adversarial images in one forward pass with joint batch
            statistics, as ADR's code does; otherwise one pass each, as TRADES' does.

    Source: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    ICML 2019, eq. 5; KL in log space, which the original code is not (see `losses`).
    """
    if joint_batch:
        clean, adversarial = model(torch.cat([x, x_adv])).chunk(2)
    else:
        clean, adversarial = model(x), model(x_adv)
    natural = cross_entropy(clean, given.targets).mean()
    robust = kl_divergence(clean, adversarial).mean()
    stats = {"clean": clean.detach(), "adversarial": adversarial.detach()}
    return natural + beta * robust, stats

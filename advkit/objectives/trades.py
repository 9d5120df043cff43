"""TRADES: cross-entropy on the clean images plus β times KL(clean ‖ adversarial)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy, kl_divergence
from advkit.objectives import Given
from advkit.runtime import modes

# Not x itself: there KL(clean ‖ adversarial) has its minimum and no gradient.
START = "normal"
# With cross-entropy the attack never asks for clean logits, and BN sees no pass for them.
CLEAN_WHEN = {"inner": ["kl"]}
LIMITS = {"beta": "[0, 1e6]"}


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
    bn_passes: Literal["ca", "cac", "acc"] = "ca",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return CE(clean, target) + β·KL(clean ‖ adversarial), both means over the batch.

    Gradients flow through both sides of the KL term.

    Args:
        beta: weight of the robust term (LTD's λ).
        joint_batch: clean and adversarial images in one forward pass with joint batch
            statistics, as ADR's code does; otherwise each with its own.
        bn_passes: which passes BN's running statistics count, c clean and a adversarial: TRADES'
            code passes cac, AWP's and so LTD's acc. The second clean pass is counted, not computed.

    Source: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    ICML 2019, eq. 5; KL in log space, which the original code is not (see `losses`).
    """
    if joint_batch:
        clean, adversarial = model(torch.cat([x, x_adv])).chunk(2)
    elif bn_passes == "ca":
        clean, adversarial = model(x), model(x_adv)
    else:
        clean, adversarial = _counted_twice(model, x, x_adv, bn_passes == "acc")
    natural = cross_entropy(clean, given.targets).mean()
    robust = kl_divergence(clean, adversarial).mean()
    stats = {"clean": clean.detach(), "adversarial": adversarial.detach()}
    return natural + beta * robust, stats


def _counted_twice(
    model: nn.Module, x: Tensor, x_adv: Tensor, adversarial_first: bool
) -> tuple[Tensor, Tensor]:
    """Return clean and adversarial logits; BN counts the clean pass twice, the second time last.

    The originals pass the clean images once for each term of the loss: at the same weights, so that
    logits and gradients are the same and only BN's running statistics tell the difference.
    """
    adversarial = model(x_adv) if adversarial_first else None
    with modes.counting(model) as again:
        clean = model(x)
    if adversarial is None:
        adversarial = model(x_adv)
    again()
    return clean, adversarial

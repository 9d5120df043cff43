"""Fast gradient sign method: one step of size ε from the clean image."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor, nn

from advkit.attacks.pgd import named_loss, pgd
from advkit.formulas.threat import Threat


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    loss: Literal["scaled-ce", "ce"] = "scaled-ce",
) -> Tensor:
    """Return x + ε·sign ∇ℓ (a unit l2 step for l2), clipped to the pixel box.

    Args:
        loss: scaled-ce is cross-entropy of logits brought to one spread, ce the plain one.

    Source: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015, with
    ce.
    """
    size, ascended = threat.eps, named_loss(loss)
    return pgd(model, x, y, threat, steps=1, step_size=size, loss=ascended, random_start=False)

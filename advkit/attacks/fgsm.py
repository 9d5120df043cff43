"""Fast gradient sign method: one step of size ε from the clean image."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from advkit.attacks.pgd import pgd
from advkit.formulas.threat import Threat


def attack(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: Generator
) -> Tensor:
    """Return x + ε·sign ∇CE (a unit l2 step for l2), clipped to the pixel box.

    Source: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015.
    """
    return pgd(model, x, y, threat, steps=1, step_size=threat.eps, random_start=False)

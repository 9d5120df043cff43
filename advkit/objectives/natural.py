"""Cross-entropy on the clean images: no adversary."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy
from advkit.objectives import Given

START = "uniform"
ATTACKS = False


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return CE(z, target) per example, (B,): what an attack on this objective ascends."""
    return cross_entropy(logits, given.targets)


def outer(
    model: nn.Module, x: Tensor, x_adv: Tensor, given: Given
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return mean CE on x and the clean logits; `x_adv` is not looked at."""
    logits = model(x)
    return cross_entropy(logits, given.targets).mean(), {"clean": logits.detach()}

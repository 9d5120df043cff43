"""PGD-AT: cross-entropy on the adversarial images, for the attack and for the student."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy
from advkit.objectives import Given

START = "uniform"


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return CE(z′, target) per example, (B,); the target is the label source's, as ADR's is."""
    return cross_entropy(logits, given.targets)


def outer(
    model: nn.Module, x: Tensor, x_adv: Tensor, given: Given
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return mean CE on x′ and the adversarial logits.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018, eq. 2.1; with soft targets ADR, equations 1 and 5.
    """
    logits = model(x_adv)
    return cross_entropy(logits, given.targets).mean(), {"adversarial": logits.detach()}

"""PGD-AT: cross-entropy on the adversarial images, for the attack and for the student."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy
from advkit.objectives import Given

START = "uniform"
LIMITS = {"min_loss": "[0, 1e6]"}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return CE(z′, target) per example, (B,); the target is the label source's, as ADR's is."""
    return cross_entropy(logits, given.targets)


def outer(
    model: nn.Module, x: Tensor, x_adv: Tensor, given: Given, *, min_loss: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return mean CE on x′ and the adversarial logits.

    Args:
        min_loss: an example whose loss is smaller counts as this constant, without gradient
            (MLCAT's loss scaling, 1.5 on CIFAR-10).

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018, eq. 2.1; with soft targets ADR, equations 1 and 5. `min_loss`: Yu et al.,
    "Understanding Robust Overfitting of Adversarial Training and Beyond", ICML 2022, arXiv
    2206.08675: ℓ·max(1, m/ℓ) with the factor not detached, as in their code, is max(ℓ, m).
    """
    logits = model(x_adv)
    loss = cross_entropy(logits, given.targets)
    if min_loss > 0:
        loss = loss.clamp_min(min_loss)
    return loss.mean(), {"adversarial": logits.detach()}

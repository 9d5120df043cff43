"""RSLAD: KL from the teacher's rows on adversarial and clean images, no hard label."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import kl_from
from advkit.objectives import Given

START = "normal"
LIMITS = {"adversarial_weight": "[0, 1]", "kl_weight": "[0, 1e6]"}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return KL(target ‖ z′) per example, (B,): what the attack ascends."""
    return kl_from(given.targets, logits)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    adversarial_weight: float = 0.8333333333333334,
    kl_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return w·KL(target ‖ adversarial) + (1 − w)·KL(target ‖ clean), means over the batch.

    BN sees the adversarial images first, as in the original code.

    Args:
        adversarial_weight: share of the adversarial term, the clean term has the rest.
        kl_weight: factor of KL divergences summed over classes; codes that average over classes
            too have 1/C.

    Source: Zi et al., "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make
    Student Better", ICCV 2021, arXiv 2108.07969, section 4: a sum over classes. The code averages
    over classes too, times 10 on CIFAR-100: `kl_weight` 0.1 for both data sets.
    """
    adversarial, clean = model(x_adv), model(x)
    robust = kl_from(given.targets, adversarial).mean()
    natural = kl_from(given.targets, clean).mean()
    loss = adversarial_weight * robust + (1 - adversarial_weight) * natural
    stats = {"clean": clean.detach(), "adversarial": adversarial.detach()}
    return kl_weight * loss, stats

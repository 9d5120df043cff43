"""IGDM: AdaAD, and the student's change along the perturbation follows its teacher's."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import kl_divergence
from advkit.objectives import Given

NEEDS = ("teacher",)
START = "normal"
LIMITS = {"gradient_weight": "[0, 1e6]"}


def inner(logits: Tensor, given: Given, *, x_adv: Tensor) -> Tensor:
    """Return KL(q′ ‖ p′) per example, (B,), gradient through teacher and student, as AdaAD."""
    return kl_divergence(given.teacher(x_adv), logits)


def outer(
    model: nn.Module, x: Tensor, x_adv: Tensor, given: Given, *, gradient_weight: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return KL(q′ ‖ p′) + a·(epoch/epochs)·KL(softmax ΔT ‖ softmax Δf), means over the batch.

    Δf = f(x + δ) − f(x − δ) and ΔT likewise, in logits, with δ = x′ − x; x − δ is not clipped to
    [0, 1]. Epochs count from 1; KL is summed over classes. No label is looked at.

    Args:
        gradient_weight: a at the last epoch; the code's is 1 for CIFAR-10, 10 for CIFAR-100.

    Source: Lee et al., "Indirect Gradient Matching for Adversarial Robust Distillation", arXiv
    2312.03286, on AdaAD as in the code beside SAAD, which divides the epoch by 200.
    """
    opposite = x - (x_adv - x)
    target = given.answered("teacher", x_adv, "x_adv")
    change = target - given.answered("teacher", opposite, "opposite")
    adversarial = model(x_adv)
    own_change = adversarial - model(opposite)
    weight = gradient_weight * given.epoch / given.epochs
    loss = kl_divergence(target, adversarial) + weight * kl_divergence(change, own_change)
    return loss.mean(), {"adversarial": adversarial.detach()}

"""AdaAD: the student follows its teacher on adversarial images made against both."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import kl_divergence
from advkit.objectives import Given

NEEDS = ("teacher",)
# As RSLAD's code, from which the published ones derive: near x, where nothing is at its minimum.
START = "normal"
LIMITS = {"alpha": "[0, 1]", "divergence_weight": "[0, 1e6]"}


def inner(logits: Tensor, given: Given, *, x_adv: Tensor) -> Tensor:
    """Return KL(q′ ‖ p′) per example, (B,), teacher and student both at x′.

    The gradient to the image passes through both.
    """
    return kl_divergence(given.teacher(x_adv), logits)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    alpha: float = 1.0,
    divergence_weight: float = 1.0,
    clean_pass: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return α·KL(q′ ‖ p′) + (1 − α)·KL(q ‖ p), sums over classes and means over the batch.

    q is the teacher's softmax, p the student's, at temperature 1; the dash marks x′. No label is
    looked at. Where the clean images have a pass it comes first.

    Args:
        alpha: weight of the adversarial term; the rest is that of the clean one.
        divergence_weight: factor of the whole; the authors' code averages over classes too on
            CIFAR-10, which is 1/C.
        clean_pass: whether clean images have a pass where α is 1 too, which only BN's running
            statistics tell.

    Source: Huang et al., "Boosting Accuracy and Robustness of Student Models via Adaptive
    Adversarial Distillation", CVPR 2023. α, and sums over classes, as in its code for CIFAR-100 and
    in the one beside SAAD, which has no clean pass; the authors' code has.
    """
    clean = model(x) if alpha < 1 or clean_pass else None
    adversarial = model(x_adv)
    loss = kl_divergence(given.answered("teacher", x_adv, "x_adv"), adversarial).mean()
    stats = {"adversarial": adversarial.detach()}
    if clean is not None:
        stats["clean"] = clean.detach()
        if alpha < 1:
            calm = kl_divergence(given.answered("teacher", x, "x"), clean).mean()
            loss = alpha * loss + (1 - alpha) * calm
    return divergence_weight * loss, stats

"""KD: two teachers at x′, one trained naturally and one adversarially, beside the label."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy, log_softmax
from advkit.objectives import Given

NEEDS = ("teacher", "natural-teacher")
START = "uniform"
LIMITS = {
    "label_weight": "[0, 1e6]",
    "natural_weight": "[0, 1e6]",
    "robust_weight": "[0, 1e6]",
    "softening": "[1e-6, 1e6]",
}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return CE(z′, target) per example, (B,), as AT."""
    return cross_entropy(logits, given.targets)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    label_weight: float = 0.3,
    natural_weight: float = 0.1,
    robust_weight: float = 0.6,
    softening: float = 2.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return λ₁·CE(z′, target) + T²·(λ₂·H(n′, p′) + λ₃·H(q′, p′)), means over the batch.

    n′ and q′ are the natural and the robust teacher's softmax at x′ and temperature T, p′ the
    student's at the same; H is the cross-entropy, not the divergence, summed over classes.

    Args:
        label_weight: λ₁.
        natural_weight: λ₂, of the naturally trained teacher.
        robust_weight: λ₃, of the adversarially trained teacher.
        softening: T of both teachers and the student in the terms between them.

    Source: Chen et al., "Robust Overfitting may be Mitigated by Properly Learned Smoothening", ICLR
    2021; weights, T and the cross-entropy as in the authors' code.
    """
    adversarial = model(x_adv)
    loss = label_weight * cross_entropy(adversarial, given.targets).mean()
    for weight, role in ((natural_weight, "natural-teacher"), (robust_weight, "teacher")):
        taught = log_softmax(given.answered(role, x_adv, "x_adv") / softening).exp()
        term = cross_entropy(adversarial / softening, taught).mean()
        loss = loss + weight * softening**2 * term
    return loss, {"adversarial": adversarial.detach()}

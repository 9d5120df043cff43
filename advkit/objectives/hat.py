"""HAT: TRADES, and images beyond x′ labelled by a naturally trained teacher."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy, kl_divergence
from advkit.objectives import Given

NEEDS = ("natural-teacher",)
START = "normal"
LIMITS = {"beta": "[0, 1e6]", "helper_weight": "[0, 1e6]", "helper_step": "[0, 100]"}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return KL(clean ‖ adversarial) per example, (B,), as TRADES."""
    return kl_divergence(given.clean(), logits)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    beta: float = 2.5,
    helper_weight: float = 0.5,
    helper_step: float = 3.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return CE(z, target) + β·KL(p ‖ p′) + γ·CE(f(x_h), y_h), means over the batch.

    x_h = x + h·(x′ − x), not clipped to [0, 1], and y_h is the class that the natural teacher gives
    x′. KL is summed over classes; the three passes are one each: clean, adversarial, helper.

    Args:
        beta: weight of the robust term.
        helper_weight: γ.
        helper_step: h, how far beyond x′ the helper images lie.

    Source: Rade and Moosavi-Dezfooli, "Reducing Excessive Margin to Achieve a Better Accuracy vs.
    Robustness Trade-off", ICLR 2022, eq. 6; the passes as in the authors' code, h as its function
    has it, to which its scripts pass 2.
    """
    helped = given.answered("natural-teacher", x_adv, "x_adv").argmax(1)
    clean, adversarial = model(x), model(x_adv)
    helper = model(x + helper_step * (x_adv - x))
    loss = cross_entropy(clean, given.targets).mean()
    loss = loss + beta * kl_divergence(clean, adversarial).mean()
    loss = loss + helper_weight * cross_entropy(helper, helped).mean()
    return loss, {"clean": clean.detach(), "adversarial": adversarial.detach()}

"""IAD-I: the student follows its teacher, and itself where that is unsure of x′."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy, kl_divergence, log_softmax
from advkit.objectives import Given

NEEDS = ("teacher",)
START = "uniform"
BEGINS = ("introspect_from",)
LIMITS = {"trust_exponent": "[0, 100]", "introspect_from": "[1, 1e6]"}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return CE(z′, y) with the true class per example, (B,)."""
    return cross_entropy(logits, given.y)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    trust_exponent: float = 0.1,
    introspect_from: int = 61,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean of KL(q ‖ p′) + (1 − α_i)·KL(p ‖ p′), α_i = (q′_y)^β; α_i is 1 at first.

    q is the teacher's softmax on clean images, q′ on adversarial ones, p and p′ the student's. KL
    is summed over classes; gradients flow through both sides of the second.

    Args:
        trust_exponent: β, to which the teacher's probability of the true class at x′ is raised.
        introspect_from: first epoch, counted from 1, with the second term.

    Source: Zhu et al., "Reliable Adversarial Distillation with Unreliable Teachers", ICLR 2022,
    eq. 4; reduction and first epoch as in the authors' code. That passes the clean images twice,
    which only BN's running statistics tell.
    """
    target = given.answered("teacher", x, "x")
    adversarial, clean = model(x_adv), model(x)
    loss = kl_divergence(target, adversarial)
    if given.epoch >= introspect_from:
        taught = given.answered("teacher", x_adv, "x_adv")
        guide = log_softmax(taught).gather(1, given.y[:, None]).squeeze(1)
        trust = (trust_exponent * guide).exp()
        loss = loss + (1 - trust) * kl_divergence(clean, adversarial)
    return loss.mean(), {"clean": clean.detach(), "adversarial": adversarial.detach()}

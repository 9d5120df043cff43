"""MART: boosted cross-entropy on adversarial images plus KL weighted by clean uncertainty."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy, kl_divergence, log_softmax
from advkit.objectives import Given

# As in the reference code, whose attack starts as that of TRADES does.
START = "normal"
LIMITS = {"beta": "[0, 1e6]"}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return CE(z′, y) with the true class per example, (B,)."""
    return cross_entropy(logits, given.y)


def outer(
    model: nn.Module, x: Tensor, x_adv: Tensor, given: Given, *, beta: float = 6.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return CE(z′, target) − log(1.0001 − p′_k + 1e-12) + β·KL(clean ‖ adv)·(1.0000001 − p_y).

    k is the most probable other class under attack; means over the batch. Only the cross-entropy
    term takes a soft target.

    Args:
        beta: weight of the KL term.

    Source: Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples", ICLR 2020, eq. 11; constants as in the reference code, KL in log space.
    """
    clean, adversarial = model(x), model(x_adv)
    p_adv = log_softmax(adversarial).exp()
    # The true class is put below every probability, so that the maximum is over the others.
    other = p_adv.scatter(1, given.y[:, None], -1.0).amax(1)
    boosted = cross_entropy(adversarial, given.targets) - torch.log(1.0001 - other + 1e-12)
    # An example that is unsure when clean weighs more in the robust term.
    p_true = log_softmax(clean).exp().gather(1, given.y[:, None]).squeeze(1)
    robust = kl_divergence(clean, adversarial) * (1.0000001 - p_true)
    stats = {"clean": clean.detach(), "adversarial": adversarial.detach()}
    return boosted.mean() + beta * robust.mean(), stats

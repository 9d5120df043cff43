"""SAAD: IGDM on examples that the teacher is unsure of at x′, clean distillation on the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advkit.formulas.losses import kl_divergence, log_softmax
from advkit.objectives import Given

NEEDS = ("teacher",)
START = "normal"
LIMITS = {
    "gradient_weight": "[0, 1e6]",
    "clean_weight": "[0, 1e6]",
    "entropy_scale": "[0, 1e6]",
    "entropy_order": "(0, 100]",
    "teacher_step": "[0, 100]",
}


def inner(
    logits: Tensor, given: Given, *, x: Tensor, x_adv: Tensor, teacher_step: float = 1.0
) -> Tensor:
    """Return KL(softmax t ‖ p′) per example, (B,), t the teacher's clean logits, one of them moved.

    The true class's moves by λ·∇_x T_y(x)·(x′ − x): one gradient of the teacher in place of one at
    each step.

    Args:
        teacher_step: λ.
    """
    slope = given.once("slope", lambda: _slope(given, x))
    target = given.answered("teacher", x, "x")
    moved = teacher_step * (slope * (x_adv - x)).flatten(1).sum(1)
    onehot = torch.zeros_like(target).scatter(1, given.y[:, None], 1)
    return kl_divergence(target + onehot * moved[:, None], logits)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    gradient_weight: float = 1.0,
    clean_weight: float = 1.0,
    entropy_scale: float = 5.0,
    entropy_order: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean of w_i·(KL(q′ ‖ p′) + IGDM_i) + β·(1 − ŵ_i)·KL(q ‖ p).

    w_i = c·(H(q′_i) − min H), the minimum over the batch (of all processes), with H in nats; ŵ is w
    scaled to [0, 1] in the batch. IGDM_i = a·(epoch/epochs)·KL(softmax ΔT ‖ softmax Δf), see
    `igdm`. KL is summed over classes. No label is looked at.

    Args:
        gradient_weight: a at the last epoch; the code's is 1 for CIFAR-10, 10 for CIFAR-100.
        clean_weight: β, for which the code has no default.
        entropy_scale: c.
        entropy_order: γ of Rényi's entropy ln Σ p^γ / (1 − γ); 1 is Shannon's.

    Source: Lee and Chung, arXiv 2512.10275, and the authors' code, which trains with Shannon's
    entropy and has Rényi's of order 2 beside it.
    """
    opposite = x - (x_adv - x)
    target = given.answered("teacher", x_adv, "x_adv")
    minus = given.answered("teacher", opposite, "opposite")
    weights = given.once("weights", lambda: _unsure(target, given, entropy_scale, entropy_order))
    scaled = given.once("scaled", lambda: _scaled(weights, given))
    adversarial = model(x_adv)
    own_minus, clean = model(opposite), model(x)
    rate = gradient_weight * given.epoch / given.epochs
    hard = kl_divergence(target, adversarial)
    hard = hard + rate * kl_divergence(target - minus, adversarial - own_minus)
    easy = kl_divergence(given.answered("teacher", x, "x"), clean)
    loss = (weights * hard + clean_weight * (1 - scaled) * easy).mean()
    return loss, {"clean": clean.detach(), "adversarial": adversarial.detach()}


def _slope(given: Given, x: Tensor) -> Tensor:
    """Return ∇_x T_y(x), the slope of the true class's logit, of the images' shape."""
    leaf = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        true = given.teacher(leaf).gather(1, given.y[:, None])
        (slope,) = torch.autograd.grad(true.sum(), leaf)
    return slope


def _unsure(logits: Tensor, given: Given, scale: float, order: float) -> Tensor:
    """Return w, (B,), from the teacher's logits at x′."""
    entropy = _entropy(logits, order)
    return scale * (entropy - given.gathered(entropy).min())


def _entropy(logits: Tensor, order: float) -> Tensor:
    """Return the Rényi entropy of each row's softmax, (B,), in nats."""
    log_p = log_softmax(logits)
    if order == 1:
        return -(log_p.exp() * log_p).sum(1)
    return (order * log_p).logsumexp(1) / (1 - order)


def _scaled(weights: Tensor, given: Given) -> Tensor:
    """Return ŵ, (B,); 1e-8 below as in the code, for a batch of equal weights."""
    every = given.gathered(weights)
    return (weights - every.min()) / (every.max() - every.min() + 1e-8)

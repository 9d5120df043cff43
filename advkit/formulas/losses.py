"""Losses per example, in float32 at least, from logits.

Softmax under half precision saturates at a logit gap of 10 and the gradient of cross-entropy
underflows early, so every formula first widens its logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SPREAD = 5.0
"""Standard deviation over the classes that `to_spread` gives the logits of an example.

Chosen on digits nets of AT, TRADES and LTD in three norms: from 4 to 10, accuracy under PGD-20
differs by two points at most; below that PGD is weaker, and far above it is PGD on the margin.
"""


def log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities (B, C) in float32 or wider."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.log_softmax(logits.to(wide), dim=1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return −Σ_c t_c log softmax(z)_c per example, (B,).

    Args:
        logits: (B, C).
        target: classes (B,) int64, or probabilities (B, C).
    """
    log_p = log_softmax(logits)
    # A class needs one entry of the row; a one-hot row would cost C products.
    if target.dim() == 1:
        return -log_p.gather(1, target[:, None]).squeeze(1)
    return -(target * log_p).sum(1)


def kl_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Return KL(softmax(p) ‖ softmax(q)) per example, (B,), summed over classes, in nats.

    Both sides stay in log space: with a plain softmax on the left, gradients turn NaN as soon
    as a probability underflows to 0 (a logit gap of about 104 in float32).
    """
    log_p, log_q = log_softmax(p_logits), log_softmax(q_logits)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def kl_from(target: Tensor, logits: Tensor) -> Tensor:
    """Return KL(t ‖ softmax(z)) = Σ_c t_c (ln t_c − log softmax(z)_c) per example, (B,), in nats.

    Args:
        target: rows of probabilities t, (B, C); an entry of 0 adds nothing.
        logits: z, (B, C).
    """
    negative_entropy: Tensor = torch.special.xlogy(target, target).sum(1)
    return negative_entropy + cross_entropy(logits, target)


def probabilities(logits: Tensor) -> Tensor:
    """Return softmax(z), (B, C), in float32 or wider."""
    return log_softmax(logits).exp()


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Return Σ_c (softmax(z)_c − t_c)² per example, (B,), in [0, 2].

    Args:
        logits: z, (B, C).
        target: rows of probabilities t, (B, C); gradients reach them too.
    """
    return (probabilities(logits) - target).square().sum(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{c≠y} z_c − z_y per example, (B,): positive when misclassified."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    # −∞ takes the true class out of the maximum.
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.amax(1) - true


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """Return log Σ_{c≠y} exp z_c − z_y per example, (B,): −log of the odds of the true class.

    Cross-entropy is log(1 + exp of it). Both ascend in the same direction, but the gradient of
    cross-entropy carries the factor 1 − p_y, which is exactly 0 in float32 from a gap of about 17
    on; this one's is 1 there. A wrong answer has 0 or more, a right one log(C − 1) at most.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    true = wide.gather(1, y[:, None]).squeeze(1)
    return wide.scatter(1, y[:, None], float("-inf")).logsumexp(1) - true


def to_spread(logits: Tensor) -> Tensor:
    """Return by what to multiply each example's logits so that they deviate by SPREAD, (B, 1).

    Their standard deviation over the classes is then SPREAD, whatever positive number the net's
    logits are multiplied by; where all are equal the factor is 1. No gradient passes through it.

    Source: the idea of a scale that follows the logits is that of Yu and Xu, "Efficient loss
    function by minimizing the detrimental effect of floating-point errors on gradient-based
    attacks", CVPR 2023. There it is the gap of the two highest, at every step anew; all classes'
    deviation does not vanish where two tie.
    """
    wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    # The largest entry first: squares of logits of 1e-30 or 1e30 leave float32.
    largest = wide.abs().amax(1, keepdim=True)
    share = (wide / largest.where(largest > 0, 1.0)).std(1, unbiased=False, keepdim=True)
    return torch.where(share > 0, SPREAD / share.where(share > 0, 1.0) / largest, 1.0)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference-of-logits ratio per example, (B,); needs three classes or more.

    −(z_y − max_{i≠y} z_i) / (z_(1) − z_(3)), with z_(k) the k-th largest logit; the margin
    itself where these are equal. The reference adds 1e-12 below, much beside small logits.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness", ICML 2020, eq. 6.
    """
    ranked = logits.sort(dim=1, descending=True).values
    width = ranked[:, 0] - ranked[:, 2]
    return margin(logits, y) / width.where(width > 0, 1.0)

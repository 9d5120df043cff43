"""Losses per example, in float32 at least, from logits.

Softmax under half precision saturates at a logit gap of 10 and the gradient of cross-entropy
underflows early, so every formula first widens its logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{c≠y} z_c − z_y per example, (B,): positive when misclassified."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    # −∞ takes the true class out of the maximum.
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.amax(1) - true


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference-of-logits ratio per example, (B,); needs three classes or more.

    −(z_y − max_{i≠y} z_i) / (z_(1) − z_(3) + 1e-12), with z_(k) the k-th largest logit.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness", ICML 2020, eq. 6.
    """
    ranked = logits.sort(dim=1, descending=True).values
    return margin(logits, y) / (ranked[:, 0] - ranked[:, 2] + 1e-12)

"""Entropy and Jensen–Shannon divergence of rows of logits, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.formulas.losses import log_softmax


def entropy(probabilities: Tensor) -> Tensor:
    """Return −Σ_c p_c log p_c per example, (B,), in nats; 0·log 0 is 0.

    Args:
        probabilities: (B, C), rows summing to 1.

    >>> round(float(entropy(torch.full((1, 4), 0.25))), 6) == round(math.log(4), 6)
    True
    """
    total: Tensor = torch.special.xlogy(probabilities, probabilities).sum(1)
    return -total


TOP = math.log(2)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Return H((p + q)/2) − (H(p) + H(q))/2 per example, (B,), in nats, in [0, ln 2].

    The divergence, not its square root (which is the distance).

    Args:
        p: (B, C), rows summing to 1.
        q: (B, C), rows summing to 1.

    >>> p = torch.tensor([[1.0, 0.0]])
    >>> abs(float(jensen_shannon(p, p.flip(1))) - math.log(2)) < 1e-6
    True

    Source: Lin, "Divergence measures based on the Shannon entropy", 1991.
    """
    middle = entropy((p + q) / 2)
    # Rounding may give −1e-8 where both are the same.
    return (middle - (entropy(p) + entropy(q)) / 2).clamp_min(0)


def moved(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Return the divergence of softmax outputs, (B,), from logits (B, C) each."""
    return jensen_shannon(*(log_softmax(z.double()).exp() for z in (clean, adversarial)))

"""Whose answer is right."""

from __future__ import annotations

import torch
from torch import Tensor


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """Return who is classified correctly, (B,) bool; logits that are not finite never are.

    The largest of a row with NaN is its NaN, so that a broken model would answer class 0.

    Args:
        logits: (B, C).
        y: true classes, (B,) int64.

    >>> correct(torch.tensor([[2.0, 1.0], [2.0, 1.0], [torch.nan, 0.0]]), torch.tensor([0, 1, 0]))
    tensor([ True, False, False])
    """
    return torch.isfinite(logits).all(1) & (logits.argmax(1) == y)

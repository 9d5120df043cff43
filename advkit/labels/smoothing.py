"""Label smoothing: a share of the probability spread evenly over all classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from advkit.errors import UsageError
from advkit.images.batches import Batch
from advkit.labels import Context

LIMITS = {"smoothing": "[0, 1]"}


def smooth(y: Tensor, classes: int, epsilon: float) -> Tensor:
    """Return (1 − ε)·onehot(y) + ε/C, (B, C) float32.

    Args:
        y: (B,) int64.
        classes: C.
        epsilon: ε in [0, 1].

    >>> import torch
    >>> smooth(torch.tensor([1]), 4, 0.2).tolist()
    [[0.05000000074505806, 0.8500000238418579, 0.05000000074505806, 0.05000000074505806]]

    Raises:
        UsageError: ε outside [0, 1].

    Source: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7.
    """
    if not 0 <= epsilon <= 1:
        raise UsageError(f"--smoothing {epsilon} is not in [0, 1]")
    return F.one_hot(y, classes).float() * (1 - epsilon) + epsilon / classes


def targets(batch: Batch, context: Context, *, smoothing: float = 0.1) -> Tensor:
    """Return smoothed rows, (B, C).

    Args:
        smoothing: share ε of the probability that is spread over all classes.
    """
    return smooth(batch.y, context.classes, smoothing)

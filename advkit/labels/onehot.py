"""The true class with probability 1."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from advkit.images.batches import Batch
from advkit.labels import Context


def targets(batch: Batch, context: Context) -> Tensor:
    """Return one-hot rows, (B, C) float32."""
    return F.one_hot(batch.y, context.classes).float()

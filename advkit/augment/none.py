"""No augmentation: every epoch sees the plain images."""

from __future__ import annotations

import torch
from torch import Tensor

VIEWS = True


def draw(n: int, shape: tuple[int, int, int], *, pad: int) -> Tensor:
    """Return the view of the plain image n times, (n, 3) uint8 = (pad, pad, 0)."""
    return torch.tensor([pad, pad, 0], dtype=torch.uint8).repeat(n, 1)


def apply(images: Tensor, drawn: Tensor) -> Tensor:
    """Return the images (B, C, H, W) as they are."""
    return images

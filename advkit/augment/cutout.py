"""Cutout: a black square at a random place, after crop and flip (DeVries & Taylor 2017)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

CROPPED = True
LIMITS = {"hole": "[1, 4096]"}


def draw(n: int, shape: tuple[int, int, int], *, generator: Generator) -> Tensor:
    """Draw n centres of a hole, (n, 2) int64 = (y, x), uniform over the pixels."""
    _, height, width = shape
    y = torch.randint(0, height, (n,), generator=generator)
    x = torch.randint(0, width, (n,), generator=generator)
    return torch.stack([y, x], dim=1)


def apply(images: Tensor, drawn: Tensor, *, hole: int | None = None) -> Tensor:
    """Return the images (B, C, H, W), black in a square around each one's centre.

    The square goes from centre − ⌊hole/2⌋ on and may reach beyond the image, so that some lose
    less than hole² pixels.

    Args:
        hole: side of the square in pixels; half the image's shorter side if not given.

    Source: DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017 (arXiv 1708.04552): 16 of 32 for CIFAR-10, 8 for CIFAR-100.
    """
    height, width = images.shape[2:]
    side = hole or max(1, min(height, width) // 2)
    first = drawn - side // 2
    rows = torch.arange(height, device=images.device) - first[:, 0, None]
    columns = torch.arange(width, device=images.device) - first[:, 1, None]
    gone = ((rows >= 0) & (rows < side))[:, None, :, None]
    gone = gone & ((columns >= 0) & (columns < side))[:, None, None, :]
    return images.masked_fill(gone, 0)

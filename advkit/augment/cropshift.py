"""Cropshift: a part of the image, put at a random place on black (Li & Spratling 2023)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from advkit.errors import UsageError

LIMITS = {"shift_least": "[0, 4096]", "shift_most": "[0, 4096]"}
_SHARE = 10 / 32
"""Of the side: the paper's strongest cut of CIFAR's images."""


def draw(
    n: int,
    shape: tuple[int, int, int],
    *,
    generator: Generator,
    flip: bool,
    shift_least: int = 0,
    shift_most: int | None = None,
) -> Tensor:
    """Draw n rows (n, 7) int64: flip; rows and columns cut; where the part lay, and where it goes.

    The strength s is uniform over `shift_least`..`shift_most`, the columns cut uniform over 0..s,
    and the rows cut are s less those. Both places are pairs (y, x) of the part's first pixel, each
    uniform over all where it fits.

    Args:
        shift_least: least strength, in pixels cut off both axes together.
        shift_most: greatest strength; 10 of 32 pixels of the shorter side if not given.

    Raises:
        UsageError: the strengths are out of order, or nothing of an image would be left.

    Source: Li & Spratling, "Data augmentation alone can improve adversarial training", ICLR 2023
    (arXiv 2301.09879): 0..10 for CIFAR, 0..8 for SVHN. Its flip is the data set's own here.
    """
    side = min(shape[1:])
    most = max(shift_least, int(side * _SHARE)) if shift_most is None else shift_most
    if not shift_least <= most < side:
        raise UsageError(
            f"--shift-least {shift_least} --shift-most {most}: in this order, and below the "
            f"images' {side} pixels"
        )
    share = torch.rand(n, 7, generator=generator, dtype=torch.float64).unbind(1)
    flipped = (share[0] * 2).long() * int(flip)
    strength = shift_least + (share[1] * (most - shift_least + 1)).long()
    columns = (share[2] * (strength + 1)).long()
    rows = strength - columns
    # A part that lost k rows fits at k + 1 heights.
    places = [
        (one * (cut + 1)).long()
        for one, cut in zip(share[3:], (rows, columns, rows, columns), strict=True)
    ]
    return torch.stack([flipped, rows, columns, *places], dim=1)


def apply(images: Tensor, drawn: Tensor) -> Tensor:
    """Return the images (B, C, H, W): flipped first, then a part of each elsewhere, the rest 0."""
    flipped, rows, columns, y_from, x_from, y_to, x_to = drawn[:, :, None].unbind(1)
    images = torch.where(flipped[:, :, None, None] == 1, images.flip(3), images)
    count, _, height, width = images.shape
    # Of each pixel of the result: its place within the part.
    y = torch.arange(height, device=images.device) - y_to
    x = torch.arange(width, device=images.device) - x_to
    inside_y = (y >= 0) & (y < height - rows)
    inside_x = (x >= 0) & (x < width - columns)
    from_y, from_x = (y + y_from).clamp(0, height - 1), (x + x_from).clamp(0, width - 1)
    examples = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[examples, from_y[:, :, None], from_x[:, None, :]]
    inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return moved.permute(0, 3, 1, 2).masked_fill(~inside, 0)

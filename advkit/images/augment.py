"""What an augmentation is to a batch; crops and flips, drawn for each example and applied.

A view is three numbers: the crop's offset (dy, dx) in the zero-padded image, each in 0..2·pad,
and flip, 0 or 1. (pad, pad, 0) is the plain image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from advkit.runtime.memory import moved

Shape = tuple[int, int, int]
"""(channels, height, width) of an image."""


@dataclass(frozen=True)
class Augmentation:
    """How training images (B, C, H, W) uint8 are changed: one draw for each, then its application.

    `draw(n, shape, generator, pad, flip)` gives n rows (n, K) of numbers, `apply(images, rows,
    pad)` the changed images. With `views` a row is a view (dy, dx, flip), as a labels file holds
    them. With `cropped` the images given are those that the data set's own crops and flips left.
    Where images of a batch are mixed, `mixed(rows, shape)` gives each one's partner (n,) and the
    weight (n,) of its own label; such rows are drawn for a whole batch and applied to it. With
    `by_image` it changes one image after another, and is left to the CPU and its workers.
    """

    name: str
    draw: Callable[[int, Shape, Generator, int, bool], Tensor]
    apply: Callable[[Tensor, Tensor, int], Tensor]
    views: bool = False
    cropped: bool = False
    mixed: Callable[[Tensor, Shape], tuple[Tensor, Tensor]] | None = None
    by_image: bool = False


def draw_views(n: int, pad: int, flip: bool, generator: Generator) -> Tensor:
    """Draw n independent views, (n, 3) uint8 = (dy, dx, flip), uniform over all of them."""
    offsets = torch.randint(0, 2 * pad + 1, (n, 2), generator=generator)
    mirrored = torch.randint(0, 2, (n, 1), generator=generator) * int(flip)
    return torch.cat([offsets, mirrored], dim=1).to(torch.uint8)


def apply_views(images: Tensor, views: Tensor, pad: int) -> Tensor:
    """Crop and flip each image by its own view.

    Args:
        images: (B, C, H, W), any dtype and device.
        views: (B, 3) = (dy, dx, flip).
        pad: zero pixels on each side before the crop.
    """
    count, _, height, width = images.shape
    views = moved(views, images.device).long()
    padded = F.pad(images, (pad, pad, pad, pad))
    # One gather for the whole batch: a crop is a choice of rows and columns, a flip their order.
    rows = views[:, 0, None] + torch.arange(height, device=images.device)
    forward = torch.arange(width, device=images.device)
    columns = torch.where(views[:, 2, None] == 1, forward.flip(0), forward) + views[:, 1, None]
    examples = torch.arange(count, device=images.device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[examples, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # channels last, as the convolutions want it


def every_view(pad: int, flip: bool) -> Tensor:
    """Return all (2·pad + 1)²·(1 + flip) views, (V, 3) uint8, in a fixed order."""
    offsets = torch.arange(2 * pad + 1)
    return torch.cartesian_prod(offsets, offsets, torch.arange(1 + flip)).to(torch.uint8)


def place_of(views: Tensor, pad: int, flip: bool) -> Tensor:
    """Return the places (B,) of views (B, 3) in `every_view`'s order.

    >>> every = every_view(1, True)
    >>> bool((place_of(every, 1, True) == torch.arange(len(every))).all())
    True
    """
    dy, dx, mirrored = views.long().unbind(1)
    return (dy * (2 * pad + 1) + dx) * (1 + int(flip)) + mirrored


def _drawn(n: int, _: Shape, generator: Generator, pad: int, flip: bool) -> Tensor:
    return draw_views(n, pad, flip, generator)


CROP_FLIP = Augmentation("crop-flip", _drawn, apply_views, views=True, cropped=True)
"""What a data set declares: crops and flips, or random resized crops of image files."""

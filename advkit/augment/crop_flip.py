"""Random crop of the zero-padded image, and flip, as the data set declares them."""

from __future__ import annotations

from torch import Generator, Tensor

from advkit.images.augment import apply_views, draw_views

VIEWS = True
CROPPED = True


def draw(
    n: int, shape: tuple[int, int, int], *, generator: Generator, pad: int, flip: bool
) -> Tensor:
    """Draw n independent views, (n, 3) uint8 = (dy, dx, flip), uniform over all of them."""
    return draw_views(n, pad, flip, generator)


def apply(images: Tensor, drawn: Tensor, *, pad: int) -> Tensor:
    """Return the images (B, C, H, W), each cropped and flipped by its own view."""
    return apply_views(images, drawn, pad)

"""CutMix: a box of another image of the batch, and of its label that share (Yun et al. 2019)."""

from __future__ import annotations

import torch
from scipy import special
from torch import Generator, Tensor

from advkit.errors import UsageError

CROPPED = True
MIXES = True
LIMITS = {"mix_alpha": "[1e-3, 1e3]", "mix_window": "[1, 4096]"}


def draw(
    n: int,
    shape: tuple[int, int, int],
    *,
    generator: Generator,
    mix_alpha: float = 1.0,
    mix_window: int | None = None,
) -> Tensor:
    """Draw n rows (n, 5) int64: the partner's place in the batch; the box's y, x, height, width.

    Partners are a permutation of the batch, so that every image lends one box. A box has the
    images' aspect and the area 1 − λ, with λ ~ Beta(α, α) and sides rounded to whole pixels. It
    lies within the image, at each place alike.

    Args:
        mix_alpha: α of the Beta distribution; 1 is the uniform one.
        mix_window: side of a square box of fixed size, in pixels, instead of a drawn area.

    Raises:
        UsageError: the fixed box is larger than an image.

    Source: Yun et al., "CutMix", ICCV 2019 (arXiv 1905.04899), whose code lets a box reach beyond
    the image and counts what lies within; Rebuffi et al., "Fixing Data Augmentation to Improve
    Adversarial Robustness", 2021 (arXiv 2103.01946), where a box has 20 of 32 pixels.
    """
    _, height, width = shape
    if mix_window is not None and mix_window > min(height, width):
        raise UsageError(f"--mix-window {mix_window}: the images have {height} × {width} pixels")
    partner = torch.randperm(n, generator=generator)
    share, top, left = torch.rand(n, 3, generator=generator, dtype=torch.float64).unbind(1)
    # The quantile of a uniform number: torch's own Beta draws from the global generator.
    kept = torch.from_numpy(special.betaincinv(mix_alpha, mix_alpha, share.numpy()))
    side = (1 - kept).sqrt()
    tall, wide = (side * height).round().long(), (side * width).round().long()
    if mix_window is not None:
        tall, wide = torch.full_like(tall, mix_window), torch.full_like(wide, mix_window)
    y, x = (top * (height - tall + 1)).long(), (left * (width - wide + 1)).long()
    return torch.stack([partner, y, x, tall, wide], dim=1)


def apply(images: Tensor, drawn: Tensor) -> Tensor:
    """Return the batch (B, C, H, W), each image with its box of its partner."""
    partner = drawn[:, 0]
    y, x, tall, wide = drawn[:, 1:, None].unbind(1)
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside_y = ((rows >= y) & (rows < y + tall))[:, None, :, None]
    inside_x = ((columns >= x) & (columns < x + wide))[:, None, None, :]
    return torch.where(inside_y & inside_x, images[partner], images)


def mixed(drawn: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return each row's partner (B,) int64, and the weight (B,) float64 of its own label.

    The weight is the share of pixels that are the image's own.
    """
    return drawn[:, 0], 1 - (drawn[:, 3] * drawn[:, 4]).double() / (shape[1] * shape[2])

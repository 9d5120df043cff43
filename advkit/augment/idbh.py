"""IDBH: flip, cropshift, a change of colour or shape, random erasing (Li & Spratling 2023)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from advkit.augment import cropshift

BY_IMAGE = True
LIMITS = {"shift_least": "[0, 4096]", "shift_most": "[0, 4096]"}
_KINDS = (
    "saturation",
    "brightness",
    "contrast",
    "sharpness",
    "autocontrast",
    "equalize",
    "shear",
    "rotate",
)
_CHANCES = {
    "color": (0.125,) * 8,
    "shape": (0.08, 0.08, 0.04, 0.08, 0.04, 0.08, 0.3, 0.3),
}
_FACTORS = ((0.1, 1.9), (0.5, 1.9), (0.5, 1.9), (0.1, 1.9), (0.0, 0.0), (0.0, 0.0))
"""Least and greatest strength of the first six kinds; 1 is the image as it is."""
_SHEARS = {"color": (0.05, 0.15), "shape": (0.05, 0.35)}
"""In radians, either way, along either axis."""
_DEGREES = {"color": 10, "shape": 30}
"""Greatest rotation, in whole degrees either way."""
_SHIFTS = {"color": 10 / 32, "shape": 8 / 32}
"""Greatest strength of cropshift, as a share of the side."""
_ERASED = {"color": (0.02, 0.33), "shape": (0.02, 0.5)}
"""Least and greatest share of the area that is erased."""
_ERASING = {"weak": 0.5, "strong": 1.0}
_ASPECT = 3.3
_TRIES = 10
"""Rectangles drawn until one lies within the image, as torchvision does; else none is erased."""


def draw(
    n: int,
    shape: tuple[int, int, int],
    *,
    generator: Generator,
    flip: bool,
    changes: Literal["color", "shape"] = "color",
    erasing: Literal["weak", "strong"] = "weak",
    shift_least: int = 0,
    shift_most: int | None = None,
) -> Tensor:
    """Draw n rows (n, 14) float32: cropshift's 7, the change's 3, the erased rectangle's 4.

    A change is its kind, 0..7, its strength, and the axis of a shear; a rectangle is (y, x, height,
    width), of height 0 where nothing is erased.

    Args:
        changes: color has all kinds alike, for CIFAR; shape has shears and rotations above all, and
            erases more, for SVHN.
        erasing: weak erases a rectangle of half of the images, strong of all.
        shift_least: least strength of cropshift, in pixels cut off both axes together.
        shift_most: greatest strength; with color 10 and with shape 8 of 32 pixels of the shorter
            side if not given.

    Raises:
        UsageError: cropshift would leave nothing of an image.

    Source: Li & Spratling, "Data augmentation alone can improve adversarial training", ICLR 2023
    (arXiv 2301.09879), numbers of their code: CIFAR's is color with either erasing, SVHN's is
    shape and strong. Their code flips SVHN too; here the data set decides.
    """
    if shift_most is None:
        shift_most = max(shift_least, int(min(shape[1:]) * _SHIFTS[changes]))
    shifts = cropshift.draw(
        n,
        shape,
        generator=generator,
        flip=flip,
        shift_least=shift_least,
        shift_most=shift_most,
    )
    rectangles = _rectangles(n, shape, generator, _ERASED[changes], _ERASING[erasing])
    # Not float64, which not every device has.
    return torch.cat([shifts, _changes(n, generator, changes), rectangles], dim=1).float()


def _changes(n: int, generator: Generator, changes: str) -> Tensor:
    """Draw kind, strength and axis of each change, (n, 3) float64."""
    roll, amount, sign, axis = torch.rand(n, 4, generator=generator, dtype=torch.float64).unbind(1)
    ends = torch.tensor(_CHANCES[changes], dtype=torch.float64).cumsum(0)
    kind = torch.searchsorted(ends, roll.contiguous(), right=True).clamp(max=len(_KINDS) - 1)
    # A shear goes from least to greatest, a rotation is a whole number of degrees from 1 on.
    bounds = torch.tensor([*_FACTORS, _SHEARS[changes], (0.0, 0.0)], dtype=torch.float64)
    least, most = bounds[kind].unbind(1)
    strength = least + amount * (most - least)
    strength = torch.where(kind == 7, 1 + (amount * _DEGREES[changes]).floor(), strength)
    strength = torch.where((kind >= 6) & (sign < 0.5), -strength, strength)
    return torch.stack([kind.double(), strength, (axis * 2).floor()], dim=1)


def _rectangles(
    n: int,
    shape: tuple[int, int, int],
    generator: Generator,
    scale: tuple[float, float],
    chance: float,
) -> Tensor:
    """Draw the erased rectangles, (n, 4) float64 = (y, x, height, width)."""
    _, height, width = shape
    roll, y, x = torch.rand(n, 3, generator=generator, dtype=torch.float64).unbind(1)
    tries = torch.rand(n, _TRIES, 2, generator=generator, dtype=torch.float64)
    areas = height * width * (scale[0] + tries[:, :, 0] * (scale[1] - scale[0]))
    least, most = math.log(1 / _ASPECT), math.log(_ASPECT)
    aspects = (least + tries[:, :, 1] * (most - least)).exp()
    heights, widths = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(1, keepdim=True)
    erased = fits.any(1) & (roll < chance)
    tall = heights.gather(1, first).squeeze(1) * erased
    wide = widths.gather(1, first).squeeze(1) * erased
    top, left = (y * (height - tall + 1)).floor(), (x * (width - wide + 1)).floor()
    return torch.stack([top, left, tall, wide], dim=1)


def apply(images: Tensor, drawn: Tensor) -> Tensor:
    """Return the images (B, C, H, W) uint8: flipped, shifted, changed and erased in part."""
    images = cropshift.apply(images, drawn[:, :7].long())
    rows = drawn[:, 7:10].tolist()
    changed = torch.stack([_changed(image, *row) for image, row in zip(images, rows, strict=True)])
    top, left, tall, wide = drawn[:, 10:, None].unbind(1)
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    rows_gone = ((y >= top) & (y < top + tall))[:, None, :, None]
    return changed.masked_fill(rows_gone & ((x >= left) & (x < left + wide))[:, None, None, :], 0)


def _changed(image: Tensor, number: float, strength: float, axis: float) -> Tensor:
    """Return one image (C, H, W) uint8 under its change."""
    from torchvision.transforms.v2 import functional as tv

    kind = _KINDS[int(number)]
    if kind == "shear":
        shear = [0.0, 0.0]
        shear[int(axis)] = math.degrees(strength)
        changed = tv.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=shear)
    elif kind == "rotate":
        changed = tv.rotate(image, strength)
    elif kind in ("autocontrast", "equalize"):
        changed = getattr(tv, kind)(image)
    else:
        changed = getattr(tv, f"adjust_{kind}")(image, strength)
    same: Tensor = changed
    return same

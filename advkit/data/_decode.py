"""Image files: which there are in a folder, and their pixels in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from advkit.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def classes(top: Path, wanted: str) -> tuple[str, ...]:
    """Return the names of the folders in `top`, one for each class, sorted.

    Args:
        top: the folder of a split.
        wanted: what should lie there, for the error message.

    Raises:
        InputError: no such folder, or fewer than two classes in it.
    """
    if not top.is_dir():
        raise InputError(f"{top}: no such folder; {wanted}")
    names = sorted(path.name for path in top.iterdir() if path.is_dir())
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise InputError(f"{top}: needs a folder for each of two classes or more; found {found}")
    return tuple(names)


def files(folder: Path) -> list[Path]:
    """Return the image files of a folder, known by their suffix, sorted by name.

    Raises:
        InputError: there is none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder}: holds no image")
    return found


def decode(path: Path) -> Image.Image:
    """Return one image as 8-bit grey (mode "L") or colour (mode "RGB"), in its own size.

    Raises:
        InputError: the file cannot be read, is no image, or claims to be a huge one.
    """
    try:
        with Image.open(path) as opened:
            return _eight_bits(opened)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
    ) as error:
        raise InputError(f"{path}: not a readable image: {error}") from None


def resized(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` pixels and keep the centre, size×size."""
    scale = size / min(image.size)
    wide, high = (max(size, round(side * scale)) for side in image.size)
    # BOX averages pixels when shrinking; it would repeat them when enlarging.
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    left, top = (wide - size) // 2, (high - size) // 2
    return image.resize((wide, high), kind).crop((left, top, left + size, top + size))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey or RGB; deeper grey keeps its scale (Pillow would clip it)."""
    if image.mode.startswith("I"):
        deep = np.asarray(image).clip(0, 65535).astype(np.uint16)
        return Image.fromarray((deep >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")

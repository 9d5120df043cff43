"""`folder:DIR`: `train/` and `test/`, each with one folder of images for each class."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from advkit.data._images import Images
from advkit.errors import InputError, UsageError

LIMITS = {"image_size": ">= 1"}
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def load(root: Path, split: str, *, image_size: int | None = None) -> Images:
    """Load the images of a split in the order of class name, then file name.

    Grey images are one channel if all are grey; otherwise everything becomes RGB. Padding is 4
    with flips, as for CIFAR.

    Args:
        root: the folder with `train/` and `test/`.
        split: train or test.
        image_size: side to which every image is resized (shorter side, then the centre is
            cropped); needed where their sizes differ.

    Raises:
        InputError: a folder is missing, a class is empty, or a file is not an image.
        UsageError: the sizes differ and none was given.
    """
    if image_size is not None and image_size < 1:
        raise UsageError("--image-size must be at least 1")
    top = root / split
    names, files = _listed(top)
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda each: _decode(each[0], image_size), files))
    sizes = {image.shape[:2] for image in decoded}
    if len(sizes) > 1:
        small, large = min(sizes), max(sizes)
        raise UsageError(
            f"{top}: images have {len(sizes)} sizes, from {small[1]}x{small[0]} to "
            f"{large[1]}x{large[0]}: give --image-size"
        )
    labels = torch.tensor([label for _, label in files])
    return Images("folder", split, _stack(decoded), labels, names, pad=4, flip=True)


def paths(root: Path, split: str) -> list[str]:
    """Return the paths of a split's images below `root`, in the order of `load`.

    Raises:
        InputError: a folder is missing or a class is empty.
    """
    return [path.relative_to(root).as_posix() for path, _ in _listed(root / split)[1]]


def _listed(top: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    names = _classes(top)
    return names, [(path, label) for label, name in enumerate(names) for path in _files(top / name)]


def _classes(top: Path) -> tuple[str, ...]:
    if not top.is_dir():
        raise InputError(f"{top}: no such folder; folder:DIR needs DIR/train and DIR/test")
    names = sorted(path.name for path in top.iterdir() if path.is_dir())
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise InputError(f"{top}: needs a folder for each of two classes or more; found {found}")
    return tuple(names)


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder}: holds no image")
    return found


def _decode(path: Path, size: int | None) -> np.ndarray:
    """Return one image as uint8 (H, W) or (H, W, 3)."""
    try:
        with Image.open(path) as opened:
            image = _eight_bits(opened)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
    ) as error:
        raise InputError(f"{path}: not a readable image: {error}") from None
    return np.asarray(image if size is None else _resized(image, size))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey or RGB; deeper grey keeps its scale (Pillow would clip it)."""
    if image.mode.startswith("I"):
        deep = np.asarray(image).clip(0, 65535).astype(np.uint16)
        return Image.fromarray((deep >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def _resized(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    wide, high = (max(size, round(side * scale)) for side in image.size)
    # BOX averages pixels when shrinking; it would repeat them when enlarging.
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    left, top = (wide - size) // 2, (high - size) // 2
    return image.resize((wide, high), kind).crop((left, top, left + size, top + size))


def _stack(decoded: list[np.ndarray]) -> Tensor:
    grey = all(image.ndim == 2 for image in decoded)
    if grey:
        return torch.from_numpy(np.stack(decoded))[:, None]
    colour = [image if image.ndim == 3 else np.repeat(image[..., None], 3, 2) for image in decoded]
    return torch.from_numpy(np.stack(colour)).permute(0, 3, 1, 2).contiguous()

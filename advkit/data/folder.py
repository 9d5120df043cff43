"""`folder:DIR`: `train/` and `test/`, each with one folder of images for each class."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.errors import UsageError
from advkit.images.decode import classes, decode, files, require_resizable, resized
from advkit.images.image_set import Images

LIMITS = {"image_size": "[1, 4096]"}
_PAD = 4


def load(root: Path, split: str, *, image_size: int | None = None) -> Images:
    """Load the images of a split in the order of class name, then file name.

    Grey images are one channel if all are grey; otherwise everything becomes RGB. Padding is an
    eighth of the shorter side, at most 4, with flips: CIFAR's 4 of 32, 2 of 16.

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
    names, listed = _listed(top)
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda pair: _pixels(pair[0], image_size), listed))
    sizes = {image.shape[:2] for image in decoded}
    if len(sizes) > 1:
        small, large = min(sizes), max(sizes)
        raise UsageError(
            f"{top}: images have {len(sizes)} sizes, from {small[1]}x{small[0]} to "
            f"{large[1]}x{large[0]}: give --image-size"
        )
    labels = torch.tensor([label for _, label in listed])
    images = _stack(decoded)
    pad = min(_PAD, min(images.shape[2:]) // 8)
    return Images("folder", split, images, labels, names, pad, flip=True)


def paths(root: Path, split: str) -> list[str]:
    """Return the paths of a split's images below `root`, in the order of `load`.

    Raises:
        InputError: a folder is missing or a class is empty.
    """
    return [path.relative_to(root).as_posix() for path, _ in _listed(root / split)[1]]


def _listed(top: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    names = classes(top, "folder:DIR needs DIR/train and DIR/test")
    return names, [(path, label) for label, name in enumerate(names) for path in files(top / name)]


def _pixels(path: Path, size: int | None) -> np.ndarray:
    """Return one image as uint8 (H, W) or (H, W, 3)."""
    image = decode(path)
    if size is None:
        return np.asarray(image)
    require_resizable(path, image)
    return np.asarray(resized(image, size))


def _stack(decoded: list[np.ndarray]) -> Tensor:
    grey = all(image.ndim == 2 for image in decoded)
    if grey:
        return torch.from_numpy(np.stack(decoded))[:, None]
    colour = [image if image.ndim == 3 else np.repeat(image[..., None], 3, 2) for image in decoded]
    return torch.from_numpy(np.stack(colour)).permute(0, 3, 1, 2).contiguous()

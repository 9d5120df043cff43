"""SVHN's cropped house numbers (`train_32x32.mat`, `test_32x32.mat`).

Nothing is downloaded here; `advkit data fetch svhn` does that when asked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.data import _mat
from advkit.errors import InputError
from advkit.images.image_set import Images

_STATISTICS = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))

PUBLISHED = {"train": 73257, "test": 26032, "classes": 10, "channels": 3, "size": 32}


def load(root: Path, split: str) -> Images:
    """Load 73,257 training or 26,032 test images of 3×32×32; the file's label 10 is the digit 0.

    Args:
        root: the folder that holds the two files.
        split: train or test.

    Raises:
        InputError: the file is missing, corrupt, or not in the format.

    Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature
    Learning", 2011, and its page's description of format 2.
    """
    path = root / f"{split}_32x32.mat"
    if not path.is_file():
        raise InputError(
            f"{root}: no {path.name} there: give --data-root, or run `advkit data fetch svhn`"
        )
    arrays = _mat.read(path, ("X", "y"))
    images, labels = _images(path, arrays["X"]), _digits(path, arrays["y"])
    names = tuple(str(digit) for digit in range(10))
    return Images("svhn", split, images, labels, names, 4, False, _STATISTICS)


def fetch(root: Path) -> None:
    """Download the two published files and check them."""
    from torchvision.datasets import SVHN  # seconds to import

    for split in ("train", "test"):
        SVHN(str(root), split=split, download=True)


def _images(path: Path, pixels: np.ndarray) -> Tensor:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        wanted = "uint8 (32, 32, 3, N)"
        raise InputError(f"{path}: X is {pixels.dtype} {pixels.shape}, not {wanted}")
    # MATLAB keeps the examples last; a copy, because NumPy's view of the file is read-only.
    return torch.from_numpy(pixels.transpose(3, 2, 0, 1).copy())


def _digits(path: Path, targets: np.ndarray) -> Tensor:
    """Return labels 0 to 9 from (N, 1) labels 1 to 10; 0 itself is let pass."""
    if targets.ndim != 2 or targets.shape[1] != 1:
        raise InputError(f"{path}: y is {targets.shape}, not (N, 1)")
    wrong = ~np.isin(targets[:, 0], range(11))
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(f"{path}: label {targets[first, 0]} of example {first} is not in 1..10")
    return torch.from_numpy(targets[:, 0].astype(np.int64) % 10)

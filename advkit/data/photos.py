"""Patches of 8×8 pixels from scikit-learn's two sample photos: nothing to download.

Made to be out of distribution for digits. Each photo (427×640 RGB, a temple and a flower) is
a class. The training split is every second patch of the grid in either direction, the test split
the patches diagonally between them, so none of their pixels is shared.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from advkit.images.image_set import Images

FILES = False

_SIDE = 8
_NAMES = ("china", "flower")
PUBLISHED = {"train": 2160, "test": 2080, "classes": 2, "channels": 3, "size": 8}


def load(root: Path, split: str) -> Images:
    """Load the patches; `root` is not used.

    Source: scikit-learn's `load_sample_image`; the photos are under CC BY 2.0, their authors named
    in scikit-learn's images/README.txt.
    """
    from sklearn.datasets import load_sample_image  # seconds to import

    start = _SIDE if split == "test" else 0
    patches = [_patches(torch.tensor(load_sample_image(f"{name}.jpg")), start) for name in _NAMES]
    labels = torch.cat([torch.full((len(cuts),), place) for place, cuts in enumerate(patches)])
    return Images("photos", split, torch.cat(patches), labels, _NAMES, pad=1, flip=True)


def _patches(photo: Tensor, start: int) -> Tensor:
    """Cut (H, W, 3) into patches (N, 3, 8, 8), row by row, from `start` on, every other one."""
    cut = photo[start:, start:].unfold(0, _SIDE, 2 * _SIDE).unfold(1, _SIDE, 2 * _SIDE)
    return cut.reshape(-1, 3, _SIDE, _SIDE).contiguous()

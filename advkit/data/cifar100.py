"""CIFAR-100 with its 100 fine classes, read as CIFAR-10 is (`cifar-100-python`).

Nothing is downloaded here; `advkit data fetch cifar100` does that when asked.
"""

from __future__ import annotations

from pathlib import Path

from advkit.data import _cifar
from advkit.images.image_set import Images

_STATISTICS = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))

PUBLISHED = {"train": 50000, "test": 10000, "classes": 100, "channels": 3, "size": 32}


def load(root: Path, split: str) -> Images:
    """Load 50,000 training or 10,000 test images of 3×32×32.

    Args:
        root: the folder that holds `cifar-100-python`.
        split: train or test.

    Raises:
        InputError: the files are not there, or not the published ones.
    """
    return _cifar.read("cifar100", root, split, _STATISTICS)


def fetch(root: Path) -> None:
    """Download the published archive, check it and unpack it under `root`."""
    _cifar.fetch("cifar100", root)

"""CIFAR-10 in its published python batches, read by torchvision once their checksum matched.

Nothing is downloaded here; `advkit data fetch cifar10` does that when asked.
"""

from __future__ import annotations

from pathlib import Path

from advkit.data import _cifar
from advkit.images.image_set import Images

_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))

PUBLISHED = {"train": 50000, "test": 10000, "classes": 10, "channels": 3, "size": 32}


def load(root: Path, split: str) -> Images:
    """Load 50,000 training or 10,000 test images of 3×32×32.

    Args:
        root: the folder that holds `cifar-10-batches-py`.
        split: train or test.

    Raises:
        InputError: the batches are not there, or not the published ones.
    """
    return _cifar.read("cifar10", root, split, _STATISTICS)


def fetch(root: Path) -> None:
    """Download the published archive, check it and unpack it under `root`."""
    _cifar.fetch("cifar10", root)

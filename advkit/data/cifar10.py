"""CIFAR-10 in its published python batches, read by torchvision once their checksum matched.

Nothing is downloaded here; `advkit data fetch cifar10` does that when asked.
"""

from __future__ import annotations

from pathlib import Path

import torch

from advkit.data._images import Images
from advkit.errors import InputError

STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


def load(root: Path, split: str) -> Images:
    """Load 50,000 training or 10,000 test images of 3×32×32.

    Args:
        root: the folder that holds `cifar-10-batches-py`.
        split: train or test.

    Raises:
        InputError: the batches are not there, or not the published ones.
    """
    from torchvision.datasets import CIFAR10  # seconds to import

    try:
        source = CIFAR10(str(root), train=split == "train", download=False)
    except RuntimeError:
        raise InputError(
            f"{root}: no intact CIFAR-10 (cifar-10-batches-py) there: "
            "give --data-root, or run `advkit data fetch cifar10`"
        ) from None
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(source.targets)
    return Images("cifar10", split, images, labels, tuple(source.classes), 4, True, STATISTICS)


def fetch(root: Path) -> None:
    """Download the published archive, check it and unpack it under `root`."""
    from torchvision.datasets import CIFAR10

    CIFAR10(str(root), download=True)

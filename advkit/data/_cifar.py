"""CIFAR-10 and CIFAR-100 in their published python batches, by torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

from advkit.errors import InputError
from advkit.images.image_set import Images
from advkit.runtime import reading

MOST = 256 << 20
"""Bytes of a batch at most; the largest published one has 155 million."""


def read(
    name: str, root: Path, split: str, statistics: tuple[tuple[float, ...], tuple[float, ...]]
) -> Images:
    """Read one split after the published checksum of every batch matched.

    Args:
        name: cifar10 or cifar100.
        root: the folder that holds the unpacked archive.
        split: train or test.
        statistics: per-channel mean and standard deviation, in [0, 1].

    Raises:
        InputError: the batches are not there, or not the published ones.
    """
    from torchvision import datasets  # seconds to import

    kind = getattr(datasets, name.upper())
    _require_small(root / kind.base_folder)
    try:
        source = kind(str(root), train=split == "train", download=False)
    except RuntimeError:
        raise InputError(
            f"{root}: no intact {name.upper().replace('R', 'R-')} ({kind.base_folder}) there: "
            f"give --data-root, or run `advkit data fetch {name}`"
        ) from None
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(source.targets)
    return Images(name, split, images, labels, tuple(source.classes), 4, True, statistics)


def _require_small(folder: Path) -> None:
    """Refuse files that no published batch is as large as: their checksums alone take long.

    Raises:
        InputError: there is one.
    """
    for path in folder.glob("*"):
        reading.require_size(path, path.stat().st_size, MOST)


def fetch(name: str, root: Path) -> None:
    """Download the published archive, check it and unpack it under `root`."""
    from torchvision import datasets

    getattr(datasets, name.upper())(str(root), download=True)

"""The type that every data set's `load` returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from advkit.errors import InputError


@dataclass(frozen=True)
class Images:
    """One split of a data set, held in memory.

    `images` (N, C, H, W) uint8, `labels` (N,) int64, `classes` their names. `pad` and `flip`
    are the augmentation that the set declares; `statistics` is the published per-channel mean
    and standard deviation in [0, 1], or None to take those of the images.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    pad: int
    flip: bool
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        """Refuse what no model can be trained on, naming the first offender.

        Raises:
            InputError: wrong dtype or shape, or a label out of range.
        """
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            shape, dtype = tuple(self.images.shape), self.images.dtype
            raise InputError(f"{self.name}: images are {dtype} {shape}, not uint8 (N, C, H, W)")
        if self.images.shape[1] not in (1, 3):
            raise InputError(f"{self.name}: {self.images.shape[1]} channels, not 1 or 3 (NCHW)")
        if len(self.images) != len(self.labels):
            raise InputError(
                f"{self.name}: {len(self.images)} images but {len(self.labels)} labels"
            )
        wrong = (self.labels < 0) | (self.labels >= len(self.classes))
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            raise InputError(
                f"{self.name}: label {int(self.labels[first])} of example {first} "
                f"is not in 0..{len(self.classes) - 1}"
            )

    def batch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W) uint8 in the order of `indices`."""
        return self.images[indices]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """Digest of pixels, labels and class names in their order."""
        sha = hashlib.sha256()
        sha.update(repr((tuple(self.images.shape), self.classes)).encode())
        sha.update(self.images.contiguous().numpy().data)
        sha.update(self.labels.contiguous().numpy().data)
        return f"sha256:{sha.hexdigest()}"

    @cached_property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation in [0, 1]: published, or of these images."""
        if self.statistics is not None:
            return self.statistics
        flat = self.images.transpose(0, 1).flatten(1).double() / 255
        deviation = flat.std(dim=1, correction=0).clamp_min(1 / 255)
        mean = tuple(round(value, 4) for value in flat.mean(dim=1).tolist())
        return mean, tuple(round(value, 4) for value in deviation.tolist())


def pixels(images: Tensor, device: torch.device | str) -> Tensor:
    """Return float32 pixels in [0, 1] from uint8, on a device."""
    return images.to(device).float().div_(255)

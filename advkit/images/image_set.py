"""What every data set's `load` returns: uint8 images in a fixed order, with their labels."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from advkit.errors import InputError
from advkit.images.augment import apply_views, draw_views
from advkit.runtime.memory import moved

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
IDENTITY = (0.0, 1.0)


class ImageSet(ABC):
    """One split of a data set, held in memory (`Images`) or decoded when asked for (`Files`).

    `labels` (N,) int64, `classes` their names; `pad` and `flip` are the augmentation that the
    set declares; `statistics` is the published per-channel mean and standard deviation in [0, 1].
    A view is a row of numbers that says how an example was cropped and flipped. `alone`: the
    classes are the numbers that a test set's labels name, so that its model may have more.
    """

    name: str
    split: str
    labels: Tensor
    classes: tuple[str, ...]
    pad: int
    flip: bool
    statistics: Statistics | None
    held_out: int = 0
    """How many of the last examples are the set's own validation split."""
    how: Mapping[str, object] = {}
    """What else decided which images these are, as descriptions carry it."""
    remarks: tuple[str, ...] = ()
    """What a person should know of how they were read, a line each."""
    alone: bool = False

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""

    @property
    @abstractmethod
    def augmentation(self) -> str:
        """The augmentation in words."""

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """Return the plain images (B, C, H, W) uint8 in the order of `indices`."""

    @abstractmethod
    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw n independent views, (n, K)."""

    @abstractmethod
    def seen(self, indices: Tensor, views: Tensor) -> Tensor:
        """Return the images (B, C, H, W) uint8, each under its own view."""

    @abstractmethod
    def content(self) -> memoryview | bytes:
        """Return what tells these images from others."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The classes that no image has, as where the labels of a file begin at 1."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return tuple(name for name, n in zip(self.classes, counts, strict=True) if n == 0)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of images, labels and class names in their order."""
        sha = hashlib.sha256()
        sha.update(repr(((len(self.labels), *self.shape), self.classes)).encode())
        sha.update(self.content())
        sha.update(self.labels.contiguous().numpy().data)
        # Only where there is something to say: other fingerprints stay what they were.
        if self.held_out or self.how:
            sha.update(json.dumps([self.held_out, self.how], sort_keys=True).encode())
        return f"sha256:{sha.hexdigest()}"

    @cached_property
    def normalisation(self) -> Statistics:
        """Per-channel mean and standard deviation in [0, 1]: published, or of these images."""
        return self.statistics or self._measured()

    def _measured(self) -> Statistics:
        raise InputError(f"{self.name}: no published mean and deviation")

    def _require_labels(self, count: int) -> None:
        """Refuse labels that no model can be trained on, naming the first offender.

        Raises:
            InputError: another number of labels than images, or a label out of range.
        """
        if count != len(self.labels):
            raise InputError(f"{self.name}: {count} images but {len(self.labels)} labels")
        require_text(self.name, self.classes)
        wrong = (self.labels < 0) | (self.labels >= len(self.classes))
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            raise InputError(
                f"{self.name}: label {int(self.labels[first])} of example {first} "
                f"is not in 0..{len(self.classes) - 1}"
            )


def require_text(where: object, names: Sequence[str]) -> None:
    """Check that names of classes can be written down.

    Raises:
        InputError: one is not UTF-8.
    """
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:  # how Python holds the bytes of a name that is none
            raise InputError(f"{where}: class {name} is not UTF-8: rename its folder") from None


@dataclass(frozen=True)
class Images(ImageSet):
    """A split held in memory: `images` (N, C, H, W) uint8.

    Without published `statistics` those of the images are taken.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    pad: int
    flip: bool
    statistics: Statistics | None = None
    held_out: int = 0
    how: Mapping[str, object] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    alone: bool = False

    def __post_init__(self) -> None:
        """Refuse what no model can be trained on.

        Raises:
            InputError: wrong dtype or shape, or a label out of range.
        """
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            shape, dtype = tuple(self.images.shape), self.images.dtype
            raise InputError(f"{self.name}: images are {dtype} {shape}, not uint8 (N, C, H, W)")
        if 0 in self.images.shape[2:]:
            raise InputError(f"{self.name}: images of {tuple(self.images.shape)} hold no pixel")
        if self.images.shape[1] not in (1, 3):
            raise InputError(f"{self.name}: {self.images.shape[1]} channels, not 1 or 3 (NCHW)")
        self._require_labels(len(self.images))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def augmentation(self) -> str:
        """The augmentation in words."""
        return f"pad {self.pad} flip {self.flip}"

    def batch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W) uint8 in the order of `indices`."""
        return self.images[indices]

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw n crops and flips, (n, 3) uint8 = (dy, dx, flip)."""
        return draw_views(n, self.pad, self.flip, generator)

    def seen(self, indices: Tensor, views: Tensor) -> Tensor:
        """Return the images, each cropped and flipped by its view."""
        return apply_views(self.images[indices], views, self.pad)

    def content(self) -> memoryview:
        """Return all pixels."""
        return self.images.contiguous().numpy().data

    def _measured(self) -> Statistics:
        values = torch.arange(256, dtype=torch.float64) / 255
        # From counts of the 256 values, so that nothing is held in float64.
        shares = [
            self._counts(channel) / self.images[:, 0].numel()
            for channel in range(self.images.shape[1])
        ]
        means = [float((share * values).sum()) for share in shares]
        spread = [
            float((share * (values - mean).square()).sum().sqrt())
            for share, mean in zip(shares, means, strict=True)
        ]
        # A constant channel has deviation 0, which nothing can be divided by: one grey level then.
        deviations = tuple(round(max(deviation, 1 / 255), 4) for deviation in spread)
        return tuple(round(mean, 4) for mean in means), deviations

    def _counts(self, channel: int) -> Tensor:
        counts = torch.zeros(256, dtype=torch.float64)
        for part in torch.split(self.images[:, channel], 1 << 14):
            counts += torch.bincount(part.flatten(), minlength=256)
        return counts


def identity(channels: int) -> Statistics:
    """Return the mean and deviation that leave pixels as they are."""
    mean, deviation = IDENTITY
    return (mean,) * channels, (deviation,) * channels


def pixels(images: Tensor, device: torch.device | str) -> Tensor:
    """Return float32 pixels in [0, 1] on a device, from uint8 or as they are."""
    # Bytes travel to the device, a quarter of what floats would be.
    x = moved(images, torch.device(device))
    return x if x.is_floating_point() else x.float().div_(255)


def fitted(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resize and convert images (B, C, H, W) to a model's input shape (channels, H, W)."""
    channels, height, width = shape
    if x.shape[1] != channels:
        # Colour goes to grey by the mean, grey to colour by repetition.
        grey = x.mean(1, keepdim=True) if x.shape[1] == 3 else x
        x = grey.expand(-1, channels, -1, -1)
    if x.shape[2:] != (height, width):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
    return x.contiguous()

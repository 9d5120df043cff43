"""Image files that are decoded when asked for: sets that do not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor

from advkit.errors import InputError, brief
from advkit.images.decode import decode, require_resizable
from advkit.images.image_set import ImageSet, Statistics
from advkit.runtime import seeding

RESIZED = 256 / 224
"""Shorter side before the centre crop, as a share of the crop (RobustBench's Res256Crop224)."""


@dataclass(frozen=True)
class Files(ImageSet):
    """A split as files, each decoded to RGB and cropped to `size` × `size`.

    Plain images: shorter side to size·256/224, then the centre. Views: a random part of the image
    (8 % to 100 % of its area, aspect 3/4 to 4/3) resized to size, flipped half of the time. A view
    is one number, the seed of that draw, because the part depends on the size of the file's image.
    """

    name: str
    split: str
    root: Path
    paths: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    size: int
    statistics: Statistics | None = None
    pad: int = 0
    flip: bool = True
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse labels that do not fit.

        Raises:
            InputError: another number of labels than files, or a label out of range.
        """
        self._require_labels(len(self.paths))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.size, self.size

    @property
    def augmentation(self) -> str:
        """The augmentation in words."""
        return "random resized crops, flip"

    def batch(self, indices: Tensor) -> Tensor:
        """Return the centre crops (B, 3, size, size) uint8, decoded by threads."""
        with ThreadPoolExecutor() as pool:
            images = pool.map(lambda index: self._plain(self._open(index)), indices.tolist())
            return torch.stack(list(images))

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw n views, (n, 1) int64 seeds."""
        return torch.randint(0, 2**62, (n, 1), generator=generator)

    def seen(self, indices: Tensor, views: Tensor) -> Tensor:
        """Return random resized crops (B, 3, size, size) uint8, decoded one after another.

        Training calls this in worker processes, a batch in each.
        """
        pairs = zip(indices.tolist(), views[:, 0].tolist(), strict=True)
        return torch.stack([self._crop(index, seed) for index, seed in pairs])

    def content(self) -> bytes:
        """Return the names and sizes of the files; reading them all would take hours."""
        sizes = ((path, (self.root / path).stat().st_size) for path in self.paths)
        # Names as the disk has them, whatever the locale takes their bytes for.
        return b"\n".join(os.fsencode(path) + f"\t{size}".encode() for path, size in sizes)

    def _open(self, index: int) -> Image.Image:
        path = self.root / self.paths[index]
        image = decode(path)
        require_resizable(path, image)
        return image if image.mode == "RGB" else image.convert("RGB")

    @cached_property
    def _plain(self) -> Callable[[Image.Image], Tensor]:
        from torchvision import transforms

        resize = transforms.Resize(round(self.size * RESIZED))
        steps = [resize, transforms.CenterCrop(self.size), transforms.PILToTensor()]
        composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
        return composed

    def _crop(self, index: int, seed: int) -> Tensor:
        from torchvision import transforms
        from torchvision.transforms import functional as tv

        image = self._open(index)
        with seeding.globally(seed):  # torchvision draws from the global generator
            where = transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            mirrored = bool(torch.rand(()) < 0.5)
        image = tv.resized_crop(image, *where, [self.size, self.size])
        cropped: Tensor = tv.pil_to_tensor(tv.hflip(image) if mirrored else image)
        return cropped


def require_files(root: Path, paths: tuple[str, ...]) -> None:
    """Check that listed files are there.

    Raises:
        InputError: naming the first that is not.
    """
    for path in paths:
        if not is_file(root / path):
            raise InputError(f"{root}/{brief(path)}: no such file")


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, for example
        return False

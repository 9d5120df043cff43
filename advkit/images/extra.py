"""Synthetic images mixed into every batch: an endless stream of reshuffled passes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from advkit.errors import InputError, MismatchError
from advkit.images import npz
from advkit.images.image_set import Images, ImageSet
from advkit.runtime import reading, seeding


@dataclass
class Extra:
    """`count` extra images a batch, each image once in every pass.

    Every pass has an order of its own, so that files sorted by class never give a batch of one
    class (the original code of ADR caches its first pass and replays it). The place in the stream
    is a function of the iteration alone.
    """

    images: Images
    count: int
    seed: int
    _pass: tuple[int, Tensor] = field(init=False, default=(-1, torch.empty(0)))

    def positions(self, t: int) -> Tensor:
        """Return the positions of iteration t (0-based), (count,)."""
        total = len(self.images.labels)
        places = torch.arange(t * self.count, (t + 1) * self.count)
        passes = places // total
        # A batch may lie across the end of a pass: each part follows its own pass's order.
        chosen = torch.empty_like(places)
        for number in sorted(set(passes.tolist())):
            here = passes == number
            chosen[here] = self._order(number)[places[here] % total]
        return chosen

    def _order(self, number: int) -> Tensor:
        if self._pass[0] != number:  # a permutation of a million takes longer than a batch
            generator = seeding.generator(self.seed, "extra order", number)
            self._pass = number, torch.randperm(len(self.images.labels), generator=generator)
        return self._pass[1]


def digest(path: Path) -> str:
    """Return the digest of a file of extra images.

    Raises:
        InputError: it cannot be read.
    """
    try:
        npz.described(path)  # what is no such file would be gone through to its end
        with reading.opened(path) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def read(path: Path, base: ImageSet) -> Images:
    """Read an npz file of extra images for a data set.

    Raises:
        InputError: missing, corrupt, or not in the format.
        MismatchError: images of another size or classes that the data set does not have.
    """
    images, labels = npz.read(path)
    if tuple(images.shape[1:]) != base.shape:
        raise MismatchError(
            f"{path}: images of {tuple(images.shape[1:])}, {base.name} has {base.shape}"
        )
    if int(labels.max()) >= len(base.classes):
        raise MismatchError(
            f"{path}: label {int(labels.max())}, {base.name} has {len(base.classes)} classes"
        )
    return Images("extra", "train", images, labels, base.classes, base.pad, base.flip)

"""Synthetic images mixed into every batch: an endless stream of reshuffled passes."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Generator, Tensor

from advkit.errors import InputError, MismatchError, brief
from advkit.images import npz, stored
from advkit.images.augment import draw_views
from advkit.images.image_set import Images, ImageSet
from advkit.runtime import reading, seeding


@dataclass
class Extra:
    """`count` extra images a batch, each image once in every pass.

    Every pass has an order of its own, so that files sorted by class never give a batch of one
    class (the original code of ADR caches its first pass and replays it). The place in the stream
    is a function of the iteration alone.
    """

    images: Images | Joined
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


class Source(Protocol):
    """Images (N, C, H, W) uint8 of one file."""

    def batch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W) uint8 in the order of `indices`."""


@dataclass(frozen=True)
class Whole:
    """Images of a compressed file, held in memory."""

    images: Tensor

    def batch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W) uint8 in the order of `indices`."""
        return self.images[indices]


@dataclass(frozen=True)
class Joined:
    """The images of several files, one file's behind the other's.

    `sizes` are the numbers of images of the `sources`; `labels` (N,) int64, shape, pad and flip as
    a data set's.
    """

    sources: tuple[Source, ...]
    sizes: tuple[int, ...]
    labels: Tensor
    shape: tuple[int, int, int]
    pad: int
    flip: bool

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw n crops and flips, (n, 3) uint8 = (dy, dx, flip)."""
        return draw_views(n, self.pad, self.flip, generator)

    def batch(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W) uint8 in the order of `indices`, each from its own file.

        Raises:
            InputError: a file is not what it was.
        """
        ends = torch.tensor(self.sizes).cumsum(0)
        numbers = torch.bucketize(indices, ends, right=True)
        parts, places = [], []
        for number in sorted(set(numbers.tolist())):
            rows = (numbers == number).nonzero().flatten()
            before = int(ends[number]) - self.sizes[number]
            parts.append(self.sources[number].batch(indices[rows] - before))
            places.append(rows)
        return torch.cat(parts)[torch.cat(places).argsort()]


def files(text: Path | str) -> list[Path]:
    """Return the files or folders that `--extra-data` names, in their order.

    A path that is there is that path. Else it is a list with commas between; each may be a pattern
    (`part*.npz`), whose files come in the order of their names.

    Raises:
        InputError: a pattern that no file fits, or a file that is named twice.
    """
    if os.path.lexists(text):
        return [Path(text)]
    places: list[Path] = []
    for word in str(text).split(","):
        fitting = [word] if os.path.lexists(word) or not glob.has_magic(word) else glob.glob(word)
        if not fitting:
            raise InputError(f"{brief(word)}: no file fits this pattern")
        places += sorted(map(Path, fitting))
    for place, path in enumerate(places):
        if any(_same(path, other) for other in places[:place]):
            raise InputError(f"{brief(path)}: extra data named twice, which would count it twice")
    return places


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def digest(text: Path | str) -> str:
    """Return the digest of extra images: a file's own, or of the list of digests in its order.

    Raises:
        InputError: a file cannot be read.
    """
    return _of_list([_digest(path) for path in files(text)])


def _of_list(digests: list[str]) -> str:
    if len(digests) == 1:  # as it always was: such runs go on
        return digests[0]
    return f"sha256:{hashlib.sha256(chr(10).join(digests).encode()).hexdigest()}"


def _digest(path: Path) -> str:
    try:
        if path.is_dir():
            stored.in_folder(path)
            return _of_list([_hashed(path / name) for name in (stored.IMAGE, stored.LABEL)])
        npz.described(path)  # what is no such file would be gone through to its end
        return _hashed(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _hashed(path: Path) -> str:
    with reading.opened(path) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read(text: Path | str, base: ImageSet) -> Joined:
    """Open extra images for a data set; those of uncompressed files stay in them.

    Raises:
        InputError: missing, corrupt, not in the format, or compressed and beyond the memory.
        MismatchError: images of another size or classes that the data set does not have.
    """
    sources: list[Source] = []
    labels: list[Tensor] = []
    held = 0
    for path in files(text):
        source, size, own = _opened(path, base, held)
        held += size
        sources.append(source)
        labels.append(own)
    sizes = tuple(len(own) for own in labels)
    return Joined(tuple(sources), sizes, torch.cat(labels), base.shape, base.pad, base.flip)


def _opened(path: Path, base: ImageSet, held: int) -> tuple[Source, int, Tensor]:
    """Return the images of one file, the bytes of memory they take, and their labels."""
    if path.is_dir():
        in_place, labels = stored.in_folder(path)
        _require_fit(path, in_place.shape, labels, base)
        return in_place, 0, labels
    where, image, labels = stored.in_archive(path)
    _require_fit(path, image.shape, labels, base)
    if where is not None:
        return where, 0, labels
    there = reading.memory()
    if there is not None and held + image.size > there:
        raise InputError(
            f"{path}: is compressed and would need {held + image.size} bytes of memory with the "
            f"files before it, this machine has {there}: unpack it into a folder, which is read "
            f"where it lies (unzip {path.name} -d DIR, --extra-data DIR)"
        )
    return Whole(npz.read(path)[0]), image.size, labels


def _require_fit(path: Path, shape: tuple[int, ...], labels: Tensor, base: ImageSet) -> None:
    """Check that images have the data set's size and classes.

    Raises:
        MismatchError: they do not.
    """
    size = tuple(shape[axis] for axis in npz.axes_of(shape)[1:])
    if size != base.shape:
        raise MismatchError(f"{path}: images of {size}, {base.name} has {base.shape}")
    if int(labels.max()) >= len(base.classes):
        raise MismatchError(
            f"{path}: label {int(labels.max())}, {base.name} has {len(base.classes)} classes"
        )

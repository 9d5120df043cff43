"""`idx:DIR`: MNIST's file format (`train-images-idx3-ubyte`, `t10k-…`, plain or `.gz`)."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from advkit.errors import InputError, brief
from advkit.images.image_set import Images
from advkit.runtime import reading

_MOST = 1 << 30
"""Pixels that a file may declare without holding as many (an empty one does)."""
_INFLATION, _FREE = 100, 256 << 20
"""Arrays that unpack to more than _FREE bytes and _INFLATION times their file are refused."""
_PREFIX = {"train": "train", "test": "t10k"}
_FEWEST = 10
"""Classes: MNIST's, and those of the sets in its format whose labels go no higher."""


def load(root: Path, split: str) -> Images:
    """Load grey images (N, 1, H, W) and their labels.

    Args:
        root: the folder with the four files.
        split: train or test.

    Raises:
        InputError: a file is missing, truncated, or not in the format.

    Source: Y. LeCun's description of the format, "The MNIST database of handwritten digits".
    """
    pixels = _read(root, f"{_PREFIX[split]}-images-idx3-ubyte", dimensions=3)
    targets = _read(root, f"{_PREFIX[split]}-labels-idx1-ubyte", dimensions=1)
    labels = torch.from_numpy(targets.astype(np.int64))
    names = tuple(str(label) for label in range(_class_count(root, labels, split)))
    # The test labels are all that is looked at: a model may have more classes.
    return Images(
        "idx", split, torch.from_numpy(pixels)[:, None], labels, names, 2, False,
        alone=split == "test",
    )  # fmt: skip


def _class_count(root: Path, labels: Tensor, split: str) -> int:
    """Return how many classes there are: ten, or more where the labels say so.

    Raises:
        InputError: most of those classes have no example: a label is a mark, such as 255 for -1.
    """
    count = max(_FEWEST, int(labels.max()) + 1) if len(labels) else _FEWEST
    present = int((torch.bincount(labels) > 0).sum())
    if split == "train" and count > _FEWEST and 2 * present < count:
        raise InputError(
            f"{root}: label {count - 1} of example {int(labels.argmax())}, but only {present} of "
            f"the classes 0..{count - 1} have an example"
        )
    return count


def _read(root: Path, name: str, dimensions: int) -> np.ndarray:
    """Read one array, sized by its header before it is unpacked."""
    path = _place(root, name)
    with _opened(path) as (file, stored):
        start = 4 + 4 * dimensions
        header = file.read(start)
        if len(header) < start or header[:4] != bytes([0, 0, 8, dimensions]):
            raise InputError(f"{path}: not an IDX file of bytes in {dimensions} dimension(s)")
        shape = tuple(np.frombuffer(header, ">u4", dimensions, offset=4).astype(int).tolist())
        count = math.prod(shape)
        spanned = math.prod(max(side, 1) for side in shape)  # what no array has, even an empty one
        plain = path.suffix != ".gz"
        if (plain and stored - start != count) or spanned > max(_MOST, _INFLATION * stored):
            there = f"{stored - start} bytes" if plain else f"{stored} packed bytes"
            raise InputError(f"{path}: truncated: {there} for shape {shape}")
        if not plain and count > max(_FREE, _INFLATION * stored):
            raise InputError(f"{path}: {stored} bytes that would unpack to {count}: refused")
        reading.require_room(path, count)
        raw = file.read(count + 1)
    if len(raw) != count:
        there = f"{len(raw)} bytes" if len(raw) < count else "more bytes than"
        raise InputError(f"{path}: truncated: {there} for shape {shape}")
    return np.frombuffer(raw, np.uint8).reshape(shape).copy()


def _place(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz", root / name.replace("-idx", ".idx")):
        if path.exists():
            return path
    train = _PREFIX["train"]
    if name.startswith(train) and list(root.glob(f"{_PREFIX['test']}-images*")):
        raise InputError(f"{root}: holds a test set alone: no {name} (plain or .gz) to train on")
    raise InputError(f"{root}: no {name} (plain or .gz) there")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file, unpacking it where it is packed; with its size on the disk."""
    try:
        with reading.opened(path) as file:
            stored = reading.size(file)
            if path.suffix != ".gz":
                yield file, stored
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked), stored
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {brief(error)}") from None


def classes(root: Path, split: str) -> tuple[str, ...]:
    """Return the classes that a split's labels name, none where there are no labels.

    Raises:
        InputError: the file of labels is truncated or not in the format.
    """
    name = f"{_PREFIX[split]}-labels-idx1-ubyte"
    try:
        _place(root, name)
    except InputError:
        return ()
    return tuple(str(label) for label in np.unique(_read(root, name, dimensions=1)))

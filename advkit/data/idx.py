"""`idx:DIR`: MNIST's file format (`train-images-idx3-ubyte`, `t10k-…`, plain or `.gz`)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.errors import InputError, brief
from advkit.images.image_set import Images

_MOST = 1 << 30
"""Pixels that a file may declare without holding as many (an empty one does)."""
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
    return Images("idx", split, torch.from_numpy(pixels)[:, None], labels, names, 2, False)


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
    path, raw = _bytes(root, name)
    header = 4 + 4 * dimensions
    if len(raw) < header or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise InputError(f"{path}: not an IDX file of bytes in {dimensions} dimension(s)")
    shape = tuple(np.frombuffer(raw, ">u4", dimensions, offset=4).astype(int).tolist())
    spanned = math.prod(max(side, 1) for side in shape)  # what no array has, even an empty one
    if len(raw) - header != math.prod(shape) or spanned > max(_MOST, len(raw)):
        raise InputError(f"{path}: truncated: {len(raw) - header} bytes for shape {shape}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()


def _bytes(root: Path, name: str) -> tuple[Path, bytes]:
    for path in (root / name, root / f"{name}.gz", root / name.replace("-idx", ".idx")):
        if path.is_file():
            try:
                raw = path.read_bytes()
                return path, gzip.decompress(raw) if path.suffix == ".gz" else raw
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"{path}: cannot be read: {brief(error)}") from None
    raise InputError(f"{root}: no {name} (plain or .gz) there")

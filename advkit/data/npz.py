"""`npz:DIR`: `train.npz` and `test.npz` (or `val.npz`) with arrays `image` and `label`.

The format in which generated images are published; `read` takes one such file alone.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.errors import InputError
from advkit.images import npz
from advkit.images.image_set import Images
from advkit.images.npz import Array

INFLATION, FREE = 100, 256 << 20
"""Images that unpack to more than FREE bytes and INFLATION times their file are refused."""
MOST = 100_000
"""Classes: a label beyond is a slip, and each class would get a name."""


def load(root: Path, split: str) -> Images:
    """Load images with classes 0 to the training labels' maximum, each named by its number.

    Padding is 4 with flips, as for CIFAR.

    Args:
        root: the folder with `train.npz` and `test.npz` or `val.npz` (`test.npz` goes first).
        split: train or test.

    Raises:
        InputError: a file is missing or not in the format, or the test split does not go with
            the training split (another image shape, more classes).
    """
    train = _found(root, "train.npz")
    path = train if split == "train" else _found(root, "test.npz", "val.npz")
    images, labels = read(path)
    highest, expected = _described(train)
    shape = tuple(images.shape[1:])
    if shape != expected:
        raise InputError(f"{path}: images are {shape}, those of {train.name} {expected}")
    if int(labels.max()) > highest:
        raise InputError(
            f"{path}: label {int(labels.max())}, but the highest in {train.name} is {highest}"
        )
    names = tuple(str(label) for label in range(highest + 1))
    return Images("npz", split, images, labels, names, pad=4, flip=True)


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Read one file: images (N, C, H, W) uint8 and labels (N,) int64, in the file's order.

    In the file `image` is uint8, (N, H, W, C) or, where only that gives 1 or 3 channels,
    (N, C, H, W); `label` is (N,) of whole numbers from 0.

    Raises:
        InputError: the file is missing, corrupt or forged, or its arrays are not such.
    """
    with npz.opened(path) as archive:
        image, label = _headers(path, archive)
        labels = _labels(path, archive, label)
        return _images(archive, image), labels


def _found(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    wanted = "npz:DIR needs DIR/train.npz and DIR/test.npz (or val.npz)"
    raise InputError(f"{root}: no {' or '.join(names)} there; {wanted}")


def _described(path: Path) -> tuple[int, tuple[int, ...]]:
    """Return the highest label and the shape (C, H, W) of a file without unpacking its images."""
    with npz.opened(path) as archive:
        image, label = _headers(path, archive)
        shape = tuple(image.shape[axis] for axis in _axes(image.shape)[1:])
        return int(_labels(path, archive, label).max()), shape


def _headers(path: Path, archive: zipfile.ZipFile) -> tuple[Array, Array]:
    """Return what `image` and `label` declare, once it goes together and with the file."""
    image, label = (npz.header(path, archive, name) for name in ("image", "label"))
    if image.dtype != np.uint8 or not _axes(image.shape):
        wanted = "uint8 (N, H, W, C) with 1 or 3 channels"
        raise InputError(f"{path}: image is {image.dtype} {image.shape}, not {wanted}")
    if label.dtype.kind not in "iu" or len(label.shape) != 1:
        raise InputError(f"{path}: label is {label.dtype} {label.shape}, not whole numbers (N,)")
    if image.shape[0] != label.shape[0]:
        raise InputError(f"{path}: {image.shape[0]} images but {label.shape[0]} labels")
    if min(image.shape) == 0:
        raise InputError(f"{path}: holds no image: image is {image.shape}")
    size = path.stat().st_size
    if image.size > max(FREE, INFLATION * size):
        raise InputError(f"{path}: {size} bytes that would unpack to {image.size}: refused")
    return image, label


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the places of (N, C, H, W) in a shape; none, if it is no shape of images.

    >>> _axes((10, 32, 32, 3)), _axes((10, 3, 32, 32)), _axes((10, 3, 32, 1)), _axes((10, 4, 4, 4))
    ((0, 3, 1, 2), (0, 1, 2, 3), (0, 3, 1, 2), ())
    """
    if len(shape) == 4 and shape[3] in (1, 3):
        return 0, 3, 1, 2
    return (0, 1, 2, 3) if len(shape) == 4 and shape[1] in (1, 3) else ()


def _images(archive: zipfile.ZipFile, image: Array) -> Tensor:
    axes = _axes(image.shape)
    pixels = np.empty([image.shape[axis] for axis in axes], np.uint8)
    done = 0
    for block in npz.blocks(archive, image):
        pixels[done : done + len(block)] = block.transpose(axes)
        done += len(block)
    return torch.from_numpy(pixels)


def _labels(path: Path, archive: zipfile.ZipFile, label: Array) -> Tensor:
    labels = np.concatenate(list(npz.blocks(archive, label)))
    wrong = (labels < 0) | (labels >= MOST)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{path}: label {labels[first]} of example {first} is not in 0..{MOST - 1}"
        )
    return torch.from_numpy(labels.astype(np.int64))

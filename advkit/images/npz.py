"""Arrays in an npz archive, checked by their headers before anything is unpacked.

NumPy's own reader allocates what a header declares before it looks at the data, and offers no
way to read an array in parts.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from advkit.errors import InputError, brief
from advkit.runtime import reading

BLOCK = 4096
"""Rows read at a time."""
INFLATION, FREE = 100, 256 << 20
"""Images that unpack to more than FREE bytes and INFLATION times their file are refused."""
MOST = 100_000
"""Classes: a label beyond is a slip, and each class would get a name."""
SLACK = 1 << 17
"""Bytes of an archive, and for each array, beside the arrays: names and comments."""
LONGEST = 1000
"""Characters of a header, which is Python and parsed as such; ours have some hundred."""
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    OSError,
    EOFError,
    RuntimeError,  # a password is wanted, or a packing that Python does not know
    ValueError,
    TypeError,
    SyntaxError,
    OverflowError,
)
"""What Python and NumPy raise for a file that is not what it should be."""


@dataclass(frozen=True)
class Array:
    """What the header of one array declares; `start` is the header's own length in bytes."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes when unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; whatever turns out to be wrong in it becomes one line.

    Raises:
        InputError: the file is missing, no archive, or corrupt.
    """
    try:
        with reading.opened(path) as file, zipfile.ZipFile(file) as archive:
            _require_accounted(path, archive, reading.size(file))
            yield archive
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable npz file: {brief(error)}") from None


def _require_accounted(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    """Check that a file is about as large as what its directory says it holds.

    Raises:
        InputError: it is far larger: its digest alone would take hours.
    """
    entries = archive.infolist()
    said = sum(entry.compress_size for entry in entries)
    if size > said + SLACK * (1 + len(entries)):
        raise InputError(f"{path}: {size} bytes, of which its arrays are {said}: refused")


def header(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    """Return what one array declares, once the archive's directory agrees.

    Raises:
        InputError: no such array, Python objects in it, or another length than declared.
    """
    member = f"{name}.npy"
    if member not in archive.namelist():
        names = [name.removesuffix(".npy") for name in archive.namelist()[:8]]
        raise InputError(f"{path}: holds no array {name!r}, only {brief(names)}")
    packing = archive.getinfo(member).compress_type
    if packing not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA may claim gigabytes
        raise InputError(f"{path}: {name} is packed in a way that NumPy never writes ({packing})")
    with archive.open(member) as entry:
        shape, fortran, dtype = declared(entry)
        array = Array(member, shape, dtype, fortran, entry.tell())
    require_declared(path, array, archive.getinfo(member).file_size - array.start)
    return array


def require_declared(path: Path, array: Array, length: int) -> None:
    """Check that an array has no Python objects and as many bytes as it declares.

    Raises:
        InputError: it does not.
    """
    name, shape = array.member.removesuffix(".npy"), array.shape
    if array.dtype.hasobject:
        raise InputError(f"{path}: {name} holds Python objects, which are never unpickled")
    if min(shape, default=0) < 0 or length != array.size:
        said = brief(f"{array.dtype} {shape}")
        raise InputError(f"{path}: {name} declares {said} but has {length} bytes")


def blocks(archive: zipfile.ZipFile, array: Array) -> Iterator[np.ndarray]:
    """Yield an array some rows at a time, in its order (whole, if it is stored by columns).

    Raises:
        ValueError: the data end early; `opened` says so.
    """
    with archive.open(array.member) as entry:
        entry.read(array.start)
        if array.fortran:
            yield _taken(entry, array, array.shape[::-1]).T
            return
        for first in range(0, array.shape[0], BLOCK):
            shape = (min(BLOCK, array.shape[0] - first), *array.shape[1:])
            yield _taken(entry, array, shape)


def _taken(entry: IO[bytes], array: Array, shape: tuple[int, ...]) -> np.ndarray:
    raw = entry.read(math.prod(shape) * array.dtype.itemsize)
    if len(raw) != math.prod(shape) * array.dtype.itemsize:
        raise ValueError(f"{array.member} ends early")
    return np.frombuffer(raw, array.dtype).reshape(shape)


def declared(entry: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read a short header: (shape, stored by columns, type).

    Raises:
        ValueError: another version: version 2, for longer headers, holds no plain array.
    """
    version = np.lib.format.read_magic(entry)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(entry, max_header_size=LONGEST)
    raise ValueError(f"npy version {version}")


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Read one file: images (N, C, H, W) uint8 and labels (N,) int64, in the file's order.

    In the file `image` is uint8, (N, H, W, C) or, where only that gives 1 or 3 channels,
    (N, C, H, W); `label` is (N,) of whole numbers from 0.

    Raises:
        InputError: the file is missing, corrupt or forged, or its arrays are not such.
    """
    with opened(path) as archive:
        image, label = headers(path, archive)
        reading.require_room(path, image.size)
        labels = labels_of(path, archive, label)
        return _images(archive, image), labels


def described(path: Path) -> tuple[int, tuple[int, ...]]:
    """Return the highest label and the shape (C, H, W) of a file without unpacking its images."""
    with opened(path) as archive:
        image, label = headers(path, archive)
        shape = tuple(image.shape[axis] for axis in axes_of(image.shape)[1:])
        return int(labels_of(path, archive, label).max()), shape


def headers(path: Path, archive: zipfile.ZipFile) -> tuple[Array, Array]:
    """Return what `image` and `label` declare, once it goes together and with the file.

    Raises:
        InputError: they are no images and labels, or would unpack to far more than they take.
    """
    image, label = (header(path, archive, name) for name in ("image", "label"))
    require_pair(path, image, label)
    for array in (image, label):
        size = archive.getinfo(array.member).compress_size
        if array.size > max(FREE, INFLATION * size):
            raise InputError(f"{path}: {size} bytes that would unpack to {array.size}: refused")
    reading.require_room(path, label.size)
    return image, label


def require_pair(path: Path, image: Array, label: Array) -> None:
    """Check that two arrays are images and their labels.

    Raises:
        InputError: they are not.
    """
    if image.dtype != np.uint8 or not axes_of(image.shape):
        wanted = "uint8 (N, H, W, C) with 1 or 3 channels"
        raise InputError(f"{path}: image is {image.dtype} {image.shape}, not {wanted}")
    if label.dtype.kind not in "iu" or len(label.shape) != 1:
        raise InputError(f"{path}: label is {label.dtype} {label.shape}, not whole numbers (N,)")
    if image.shape[0] != label.shape[0]:
        raise InputError(f"{path}: {image.shape[0]} images but {label.shape[0]} labels")
    if min(image.shape) == 0:
        raise InputError(f"{path}: holds no image: image is {image.shape}")


def axes_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the places of (N, C, H, W) in a shape; none, if it is no shape of images.

    >>> axes_of((10, 32, 32, 3)), axes_of((10, 3, 32, 32))
    ((0, 3, 1, 2), (0, 1, 2, 3))
    >>> axes_of((10, 3, 32, 1)), axes_of((10, 4, 4, 4))
    ((0, 3, 1, 2), ())
    """
    if len(shape) == 4 and shape[3] in (1, 3):
        return 0, 3, 1, 2
    return (0, 1, 2, 3) if len(shape) == 4 and shape[1] in (1, 3) else ()


def _images(archive: zipfile.ZipFile, image: Array) -> Tensor:
    axes = axes_of(image.shape)
    pixels = np.empty([image.shape[axis] for axis in axes], np.uint8)
    done = 0
    for block in blocks(archive, image):
        pixels[done : done + len(block)] = block.transpose(axes)
        done += len(block)
    return torch.from_numpy(pixels)


def labels_of(path: Path, archive: zipfile.ZipFile, label: Array) -> Tensor:
    """Return the labels (N,) int64 of an archive, checked."""
    return checked(path, np.concatenate(list(blocks(archive, label))))


def checked(path: Path, labels: np.ndarray) -> Tensor:
    """Return labels (N,) of any whole type as int64.

    Raises:
        InputError: one is negative, or beyond what any data set has.
    """
    wrong = (labels < 0) | (labels >= MOST)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{path}: label {labels[first]} of example {first} is not in 0..{MOST - 1}"
        )
    return torch.from_numpy(labels.astype(np.int64))

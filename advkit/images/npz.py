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
from typing import IO, Any

import numpy as np

from advkit.errors import InputError, brief

BLOCK = 4096
"""Rows read at a time."""
LONGEST = 1000
"""Characters of a header, which is Python and parsed as such; ours have some hundred."""


@dataclass(frozen=True)
class Array:
    """What the header of one array declares; `start` is the header's own length in bytes."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
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
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (
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
    ) as error:
        raise InputError(f"{path}: not a readable npz file: {brief(error)}") from None


def header(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    """Return what one array declares, once the archive's directory agrees.

    Raises:
        InputError: no such array, Python objects in it, or another length than declared.
    """
    member = f"{name}.npy"
    if member not in archive.namelist():
        held = [each.removesuffix(".npy") for each in archive.namelist()[:8]]
        raise InputError(f"{path}: holds no array {name!r}, only {brief(held)}")
    packing = archive.getinfo(member).compress_type
    if packing not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA may claim gigabytes
        raise InputError(f"{path}: {name} is packed in a way that NumPy never writes ({packing})")
    with archive.open(member) as entry:
        shape, fortran, dtype = _declared(entry)
        found = Array(member, shape, dtype, fortran, entry.tell())
    if dtype.hasobject:
        raise InputError(f"{path}: {name} holds Python objects, which are never unpickled")
    length = archive.getinfo(member).file_size - found.start
    if min(shape, default=0) < 0 or length != found.size:
        declared = brief(f"{dtype} {shape}")
        raise InputError(f"{path}: {name} declares {declared} but has {length} bytes")
    return found


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


def _declared(entry: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a short header: version 2, for longer ones, holds no plain array."""
    version = np.lib.format.read_magic(entry)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(entry, max_header_size=LONGEST)
    raise ValueError(f"npy version {version}")

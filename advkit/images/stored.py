"""Images in uncompressed files, read where they lie: a batch's rows, and never the whole.

They are read by position and not through a memory map: a file that is cut off while it is mapped
ends the process, and here it is one line.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from advkit.errors import InputError, brief
from advkit.images import npz
from advkit.runtime import reading

IMAGE, LABEL = "image.npy", "label.npy"
"""What a folder of plain arrays holds: what an npz archive unpacks to."""
CHUNK = 1 << 22
"""Bytes read at a time where a checksum is compared."""


@dataclass
class Stored:
    """Images uint8 of a file, in the order of its array; `offset` is where the first one begins.

    `shape` is the array's own, `axes` the places of (N, C, H, W) in it.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    _mark: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Remember which file it is: another, or a changed one, would give other images."""
        with reading.opened(self.path) as file:
            self._mark = _mark(file)

    def batch(self, indices: Tensor) -> Tensor:
        """Return the images (B, C, H, W) uint8 in the order of `indices`.

        Raises:
            InputError: the file is not what it was.
        """
        size = math.prod(self.shape[1:])
        rows = np.empty((len(indices), *self.shape[1:]), np.uint8)
        try:
            with reading.opened(self.path) as file:
                if _mark(file) != self._mark:
                    raise InputError(f"{self.path}: changed since its images were first read")
                for row, index in zip(rows, indices.tolist(), strict=True):
                    raw = os.pread(file.fileno(), size, self.offset + index * size)
                    row[:] = np.frombuffer(raw, np.uint8).reshape(row.shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: cannot be read: {brief(error)}") from None
        return torch.from_numpy(np.ascontiguousarray(rows.transpose(self.axes)))


def _mark(file: BufferedReader) -> tuple[int, ...]:
    said = os.fstat(file.fileno())
    return said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns


def in_archive(path: Path) -> tuple[Stored | None, npz.Array, Tensor]:
    """Return images where they lie in an npz archive, what `image` declares, and labels (N,).

    None for images that are compressed or stored by columns. The checksum of the others is
    compared, which reads the file once from end to end.

    Raises:
        InputError: as `npz.read`, but for images that do not fit in memory.
    """
    with npz.opened(path) as archive:
        image, label = npz.headers(path, archive)
        labels = npz.labels_of(path, archive, label)
        entry = archive.getinfo(image.member)
        if image.fortran or entry.compress_type != zipfile.ZIP_STORED:
            return None, image, labels
        with archive.open(entry) as stream:
            while stream.read(CHUNK):
                pass
        offset = _begin(path, entry) + image.start
    return Stored(path, offset, image.shape, npz.axes_of(image.shape)), image, labels


def _begin(path: Path, entry: zipfile.ZipInfo) -> int:
    """Return where a stored member's bytes begin: behind its local header, name and extra field.

    Source: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", 4.3.7.
    """
    with reading.opened(path) as file:
        file.seek(entry.header_offset)
        name, extra = struct.unpack("<26x2H", file.read(30))
    return int(entry.header_offset) + 30 + int(name) + int(extra)


def in_folder(folder: Path) -> tuple[Stored, Tensor]:
    """Return images where they lie in `image.npy`, and the labels (N,) of `label.npy`.

    Raises:
        InputError: one is missing, or not such an array.
    """
    image, label = (_declared(folder / name, name) for name in (IMAGE, LABEL))
    npz.require_pair(folder, image, label)
    if image.fortran:
        raise InputError(f"{folder / IMAGE}: stored by columns: save it in C order")
    reading.require_room(folder / LABEL, label.size)
    with reading.opened(folder / LABEL) as file:
        file.seek(label.start)
        labels = np.frombuffer(file.read(label.size), label.dtype)
    stored = Stored(folder / IMAGE, image.start, image.shape, npz.axes_of(image.shape))
    return stored, npz.checked(folder / LABEL, labels)


def _declared(path: Path, name: str) -> npz.Array:
    try:
        with reading.opened(path) as file:
            array = _array(file, name)
            there = reading.size(file) - array.start
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; wanted: {IMAGE} and {LABEL}") from None
    except npz.UNREADABLE as error:
        raise InputError(f"{path}: not a readable npy file: {brief(error)}") from None
    npz.require_declared(path, array, there)
    return array


def _array(file: IO[bytes], name: str) -> npz.Array:
    shape, fortran, dtype = npz.declared(file)
    return npz.Array(name, shape, dtype, fortran, file.tell())

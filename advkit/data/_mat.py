"""Arrays of real numbers in MATLAB 5 files, plain or compressed.

scipy.io.loadmat reads the same files, but a wrong byte in one can end the whole process
(version 1.17, a data element of unknown type), so it is used in the tests only.

Source: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from advkit.errors import InputError, brief
from advkit.runtime import reading

TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Numbers of element types, and the NumPy types without byte order."""
REAL = range(6, 16)
"""MATLAB's classes of numbers: double, single and whole numbers."""
MATRIX, COMPRESSED, COMPLEX = 14, 15, 0x08
HEADER = 128
MOST = 8 << 30
"""Bytes of a file: a variable of the format has 2 GiB at most, and two are wanted."""
INFLATION, FREE = 100, 256 << 20
"""Arrays that unpack to more than FREE bytes and INFLATION times their file are refused."""


class _Inflated:
    """What is packed in a compressed element, unpacked only as far as it is read."""

    def __init__(self, packed: bytes) -> None:
        self.packed, self.unpacker = packed, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        data = self.unpacker.decompress(self.packed, count) if count else b""
        self.packed = self.unpacker.unconsumed_tail
        return data

    def finish(self) -> None:
        """Unpack to the end, where the checksum is.

        Raises:
            ValueError: there are more data, or no checksum.
        """
        if self.read(8) or not self.unpacker.eof:
            raise ValueError("a compressed variable goes on or is cut off")


def read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the named arrays of a file, of the type in which they are stored.

    (MATLAB stores whole numbers of any class in the smallest type that holds them.)

    Raises:
        InputError: one is not there, no array of real numbers, or the file is corrupt.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        raw = reading.content(path, MOST)
        for stream in _variables(raw):
            name, array = _array(stream, names, max(FREE, INFLATION * len(raw)))
            if isinstance(stream, _Inflated) and array is not None:
                stream.finish()
            if array is not None:
                arrays.setdefault(name, array)
    except (OSError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: not a readable MATLAB 5 file: {brief(error)}") from None
    for name in names:
        if name not in arrays:
            raise InputError(f"{path}: holds no array {name!r}: {' and '.join(names)} are needed")
    return arrays


def _variables(raw: bytes) -> Iterator[io.BytesIO | _Inflated]:
    """Yield the content of each variable (little-endian files only).

    Raises:
        ValueError: not the format (files before 5 and from 7.3 are others), or cut off.
    """
    if len(raw) < HEADER or raw[124:128] != b"\x00\x01IM":
        raise ValueError("its header names no such format")
    place = HEADER
    while place < len(raw):
        kind, size = struct.unpack("<II", raw[place : place + 8].ljust(8, b"\0"))
        content = raw[place + 8 : place + 8 + size]
        if kind not in (MATRIX, COMPRESSED) or len(content) != size:
            raise ValueError(f"truncated, or no variable at byte {place}")
        place += 8 + size
        if kind == MATRIX:
            yield io.BytesIO(content)
            continue
        # A compressed element holds one variable, its tag included.
        inner = _Inflated(content)
        if inner.read(8)[:4] != struct.pack("<I", MATRIX):
            raise ValueError(f"no variable in the compressed data at byte {place}")
        yield inner


def _array(
    stream: io.BytesIO | _Inflated, names: tuple[str, ...], most: int
) -> tuple[str, np.ndarray | None]:
    """Read one variable: its name, and its array where it is wanted."""
    _, flags = _element(stream, 8)
    _, dimensions = _element(stream, 4 * 32)
    name = _element(stream, 64)[1].decode("latin1")
    if name not in names:
        return name, None
    shape = tuple(np.frombuffer(dimensions, "<i4").tolist())
    number, marks = flags[:2] if len(flags) >= 2 else (0, 0)
    if number not in REAL or marks & COMPLEX or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"{name} is no array of real numbers")
    kind, values = _element(stream, most)
    if kind not in TYPES or len(values) != math.prod(shape) * np.dtype(TYPES[kind]).itemsize:
        raise ValueError(f"{name} declares {shape} but has {len(values)} bytes of type {kind}")
    return name, np.frombuffer(values, f"<{TYPES[kind]}").reshape(shape, order="F")


def _element(stream: io.BytesIO | _Inflated, most: int) -> tuple[int, bytes]:
    """Read type and data of an element; up to four bytes of data lie in its tag.

    Raises:
        ValueError: it has more than `most` bytes, or is cut off.
    """
    tag = _exactly(stream, 8)
    kind, size = struct.unpack("<HH", tag[:4])
    if size:
        if size > 4:
            raise ValueError(f"an element in short form of {size} bytes")
        return kind, tag[4 : 4 + size]
    kind, size = struct.unpack("<II", tag)
    if size > most:
        raise ValueError(f"an element of {size} bytes where {most} are possible")
    data = _exactly(stream, size)
    stream.read(-size % 8)  # elements begin at multiples of eight bytes
    return kind, data


def _exactly(stream: io.BytesIO | _Inflated, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ValueError(f"cut off: {len(data)} of {count} bytes")
    return data

"""Files as they are read: regular ones alone, and never more than a file of its kind can hold.

A pipe is waited for as long as nobody writes to it, a device may never end, and a sparse file of
a terabyte costs nothing on the disk but all memory when it is read. So a file is opened without
waiting, looked at through its descriptor, and sized, before the first byte is taken.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from advkit.errors import InputError

SETTINGS = 1 << 20
"""Bytes of a configuration at most: some thousand lines."""
DOCUMENT = 256 << 20
"""Bytes of a text at most: logs, lists of files, tables, analyses as JSON."""


def opened(path: Path) -> BufferedReader:
    """Open a regular file for reading, without waiting.

    Raises:
        InputError: it is a pipe, a socket or a device.
        OSError: it is not there, a folder, or may not be read.
        ValueError: no file can have this name.
    """
    try:
        # Without O_NONBLOCK the open itself waits for somebody who writes to a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # how a socket, or a dead device, answers
            raise irregular(path) from None
        raise
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise irregular(path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def irregular(path: Path) -> InputError:
    """Return the error for what is neither a file nor a folder."""
    return InputError(f"{path}: a pipe, socket or device; wanted: a regular file")


def size(file: BufferedReader) -> int:
    """Return the bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def content(path: Path, most: int) -> bytes:
    """Return all of a regular file.

    Args:
        path: the file.
        most: bytes that a file of its kind has at most.

    Raises:
        InputError: it is larger, or no regular file.
        OSError, ValueError: as `opened`.
    """
    with opened(path) as file:
        there = size(file)
        require_size(path, there, most)
        return file.read(there)  # what was added since then belongs to the next reader


def require_size(path: Path, there: int, most: int) -> None:
    """Check how large a file is.

    Raises:
        InputError: larger than `most` bytes.
    """
    if there > most:
        raise InputError(f"{path}: {there} bytes, where {most} are the most that is read: refused")


def text(path: Path, most: int = DOCUMENT) -> str:
    """Return all of a text file, UTF-8, its lines ended by `\\n`.

    A byte order mark at its beginning, as some editors write it, is no part of it.

    Raises:
        InputError, OSError: as `content`.
        ValueError: it is not UTF-8.
    """
    plain = content(path, most).decode("utf-8-sig")
    return plain.replace("\r\n", "\n").replace("\r", "\n")


def require_room(path: Path, needed: int) -> None:
    """Refuse what could never be held in the memory of this machine, before anything is read.

    Raises:
        InputError: it needs more bytes than there are.
    """
    there = memory()
    if there is not None and needed > there:
        raise InputError(f"{path}: needs {needed} bytes of memory, this machine has {there}")


def memory() -> int | None:
    """Return the bytes of this machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None

"""Files that appear whole or not at all, and locks on the outputs of a run.

The lock is our own, for `filelock` leaves its file behind on Unix and cannot name the holder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from advkit.errors import BusyError, InputError, StorageError, storage
from advkit.runtime import reading, signals

MAGIC = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PK\x03\x04": "a PyTorch or zip archive, which advkit never unpickles",
    # Pickles of protocols 2 to 5; the older ones begin with nothing of their own.
    b"\x80\x02": "a pickle, which advkit never loads",
    b"\x80\x03": "a pickle, which advkit never loads",
    b"\x80\x04": "a pickle, which advkit never loads",
    b"\x80\x05": "a pickle, which advkit never loads",
    b"<!DOC": "a web page (a failed download?)",
    b"<html": "a web page (a failed download?)",
}
PROBE = re.compile(r"\.probe\.(\d+)")
LITTER = re.compile(r"\..+\.(\d+)\.tmp")
"""Names that hold the id of the process that made them and was to remove them."""


def folder(path: Path) -> Path:
    """Create a folder and prove that it can be written.

    Raises:
        StorageError: it cannot.
    """
    probe = path / f".probe.{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        sweep(path, ())
        # Tried, not asked: permission bits say nothing of root, full disks and network shares.
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise StorageError(f"cannot write {path}: a file is in the folder's place") from None
        raise storage(error, path) from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write; put it in place, synced, when the block ends well.

    A reader sees the old file or the whole new one. The leftovers of writers that died are
    removed on the way. Signals wait until it is in place.

    Raises:
        StorageError: disk full, file-size limit, folder read-only or gone.
        Stopped: a signal came meanwhile.
    """
    sweep(path.parent, [path.name])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with signals.whole():
        try:
            yield temporary
            # Content before name, then the name itself: a power cut leaves the old or the new.
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
        except OSError as error:
            raise storage(error, path) from error
        finally:
            with suppress(OSError):  # the folder itself may be what is wrong
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_line(path: Path, line: str) -> None:
    """Add one line and sync it.

    Raises:
        StorageError: disk full, folder gone.
    """
    try:
        with signals.whole(), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage(error, path) from error


@contextmanager
def lock(output: Path) -> Iterator[None]:
    """Hold an output (a file or a run folder) for this process.

    The kernel drops the lock with the process, so a dead holder never blocks anyone.

    Raises:
        BusyError: another process holds it.
        StorageError: the folder cannot be written, or its file system has no locks.
    """
    output = Path(os.path.abspath(output))
    path = output.with_name(f".{output.name}.lock")
    folder(path.parent)
    handle = _acquire(path, output)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        # While still locked: unlinked afterwards, it could be the next holder's file.
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, output: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have unlinked the file between our open and our lock.
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            os.close(handle)
            raise BusyError(f"{output} is being written by {holder}: wait for it") from None
        except FileNotFoundError:  # unlinked meanwhile: try again
            pass
        except OSError as error:  # a network disk may have no locks
            os.close(handle)
            raise storage(error, path) from error
        os.close(handle)


def head(path: Path, wanted: str) -> bytes:
    """Return the first 16 bytes of a file that exists and is not empty.

    Raises:
        InputError: it cannot be read or is empty.
    """
    try:
        with reading.opened(path) as file:
            start = file.read(16)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (wanted: {wanted})") from None
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{shown(path)}: not a path (wanted: {wanted})") from None
    if not start:
        raise InputError(f"{path}: empty file (wanted: {wanted})")
    return start


def shown(path: Path, width: int = 80) -> str:
    """Return a path that came from outside, cut to a readable length."""
    text = str(path)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def require(path: Path, wanted: str, magic: bytes | None = None) -> None:
    """Check that a file exists, is not empty, and looks like what is wanted.

    Raises:
        InputError: it does not; the message says what it is instead.
    """
    start = head(path, wanted)
    # safetensors begins with the length of its JSON, which may look like a pickle's first bytes.
    safetensors = start[8:9] == b"{"
    for prefix, what in MAGIC.items():
        if safetensors and prefix.startswith(b"\x80"):
            continue
        if prefix != magic and start.startswith(prefix):
            raise InputError(f"{path}: this is {what}; wanted: {wanted}")
    if magic and not start.startswith(magic):
        kind = "this is a checkpoint (safetensors); " if safetensors else ""
        raise InputError(f"{path}: {kind}not {wanted}")


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove what writers of the named files that died have left in a folder."""
    if not folder.is_dir():
        return
    starts = [f".{name}." for name in names]
    for stale in folder.iterdir():
        pid = PROBE.fullmatch(stale.name) or LITTER.fullmatch(stale.name)
        ours = pid and (pid.re is PROBE or stale.name[: pid.start(1)] in starts)
        if pid and ours and not _alive(int(pid[1])):
            stale.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 is sent to nobody: it asks whether there is a process
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True

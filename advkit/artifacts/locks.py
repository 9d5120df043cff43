"""Locks on outputs: one for each file or folder, whatever names lead to it.

The lock of a folder lies inside it, that of a file beside it, and both are opened from the open
folder: links, `..`, relative paths and bind mounts all end at the same lock. It is the kernel's
`flock`, which goes with the process that holds it, so that a dead holder never blocks anyone. On
NFS Linux makes it a lock of the server's, for which the file must be open for writing; a mount
with `nolock` or `local_lock` keeps it to one machine.

Ours and not `filelock`'s (4.3): that one leaves its file behind, names no holder, cannot take
over what another user left, and where there is no `flock` takes a marker file instead, which
outlives a holder that was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from advkit.artifacts import files
from advkit.errors import BusyError, StorageError, storage

INSIDE = ".lock"
"""The lock's name in the folder that it is of."""
OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""With O_PATH a folder that may not be listed can be entered all the same."""
MARK = b"pid "
"""How the text of every lock begins."""
STRANGE = {
    errno.ELOOP: "a link",  # how the kernel refuses one under O_NOFOLLOW, and how BSD's does
    errno.EMLINK: "a link",
    errno.EISDIR: "a folder",
    errno.ENXIO: "a socket",
}
TRIES = 1000
"""Looks at a lock that comes and goes: as many as there may be other processes, and more."""
LOOKS, PAUSE = 20, 0.005
"""How often, and after how many seconds, one looks who holds a lock."""


@contextmanager
def lock(output: Path) -> Iterator[None]:
    """Hold an output file for this process; the folder that it goes to is made.

    Raises:
        BusyError: another process holds it.
        StorageError: the folder cannot be written, its file system has no locks, or a link or
            something else is in the place of the output or of its lock.
    """
    files.require_no_link(output)
    parent = files.folder(output.parent)
    held = _hold(_beside(output).name, output, parent)
    try:
        yield
    finally:
        held.release()


def unless(done: bool, output: Path) -> AbstractContextManager[None]:
    """Return the lock of an output file, or nothing where it is done: to see that needs none."""
    if not done:
        return lock(output)
    tidy(output)
    return nullcontext()


def tidy(output: Path, *beside: Path) -> None:
    """Remove what a killed call left beside a finished output: these, and its lock.

    Nothing is done where it is held or cannot be written.
    """
    if _left(_beside(output), *beside):
        with suppress(BusyError, StorageError, OSError), lock(output):
            _remove(*beside)


def tidy_folder(folder: Path, *inside: Path) -> None:
    """Remove likewise what was left in a folder whose work is done."""
    if _left(folder / INSIDE, *inside):
        with suppress(BusyError, StorageError, OSError), lock_folder(folder):
            _remove(*inside)


def _left(*paths: Path) -> bool:
    return any(os.path.lexists(path) for path in paths)


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _beside(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, made if need be; one that was made and stays empty goes.

    Raises:
        BusyError: another process holds it.
        StorageError: it cannot be written, its file system has no locks, or a link or something
            else is in the place of its lock.
    """
    made = _make(folder)
    try:
        held = _hold(INSIDE, folder, folder)
    except StorageError:
        if folder.exists():
            raise
        made = _make(folder)  # whoever made it had left it empty, and removed it
        held = _hold(INSIDE, folder, folder)
    try:
        yield
    finally:
        held.release()
        if made:  # not where others are in it by now: then it is not empty
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def where_possible(folder: Path, done: bool) -> Iterator[None]:
    """Hold a folder; where its work is done it need not be free, nor one that can be written.

    Raises:
        BusyError, StorageError: see `lock_folder`, where there is something to do.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(folder))
        except (BusyError, StorageError):
            if not done:
                raise
        yield


def _make(folder: Path) -> bool:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if folder.is_dir():
            return False
        what = "a link to nothing" if folder.is_symlink() else "a file"
        raise StorageError(f"cannot write {folder}: {what} is in the folder's place") from None
    except OSError as error:
        raise storage(error, folder) from error
    return True


class _Held(NamedTuple):
    """A lock that this process holds: the open file, its open folder and its name there."""

    handle: int
    where: int
    name: str

    def release(self) -> None:
        """Remove it and let it go; in a child that was forked meanwhile, leave it to its holder."""
        if self not in _HELD:
            return
        _HELD.remove(self)
        # While still locked: unlinked afterwards, it could be the next holder's file. It stays
        # where it cannot be removed; closing it frees it all the same.
        with suppress(OSError):
            if _lies_there(self.handle, self.where, self.name):
                os.unlink(self.name, dir_fd=self.where)
        os.close(self.handle)
        os.close(self.where)


_HELD: set[_Held] = set()


def _leave_to_parent() -> None:
    """Close, in a child that was forked, the locks of its parent, which goes on holding them.

    A process that decodes images outlives a killed parent for seconds, and its lock with it.
    """
    for held in _HELD:
        os.close(held.handle)
        os.close(held.where)
    _HELD.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _hold(name: str, output: Path, folder: Path) -> _Held:
    """Hold the lock of this name in a folder, and say in it who does.

    Raises:
        BusyError, StorageError: see `lock`.
    """
    path = folder / name
    try:
        where = os.open(folder, FOLDER)
    except OSError as error:
        raise storage(error, folder) from error
    try:
        held = _Held(_acquire(where, name, output, path), where, name)
    except BaseException:
        os.close(where)
        raise
    _HELD.add(held)
    try:
        os.ftruncate(held.handle, 0)
        os.pwrite(held.handle, MARK + f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
    except OSError as error:
        held.release()
        raise storage(error, path) from error
    return held


def _acquire(where: int, name: str, output: Path, path: Path) -> int:
    """Return the open lock, held.

    Raises:
        BusyError, StorageError: see `lock`.
    """
    for _ in range(TRIES):
        try:
            handle, writable = _open(where, name, output, path)
        except FileNotFoundError:  # removed by its holder between our two looks
            continue
        except OSError as error:
            raise storage(error, path) from error
        if _taken(handle, where, name, output, path, writable):
            return handle
        os.close(handle)
    raise StorageError(f"cannot write {output}: no file can be made in {path.parent}")


def _open(where: int, name: str, output: Path, path: Path) -> tuple[int, bool]:
    """Open the lock, made if need be; return it and whether it may be written."""
    with suppress(FileExistsError):
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN, 0o644, dir_fd=where), True
    try:
        return os.open(name, os.O_RDWR | OPEN, dir_fd=where), True
    except PermissionError:
        pass  # another user's
    except OSError as error:
        what = STRANGE.get(error.errno or 0)
        if what is None:
            raise
        raise StorageError(_strange(output, path, what)) from None
    try:
        return os.open(name, os.O_RDONLY | OPEN, dir_fd=where), False
    except PermissionError:
        raise _others(where, name, output, path) from None


def _taken(handle: int, where: int, name: str, output: Path, path: Path, writable: bool) -> bool:
    """Lock the open file; return False where it is no longer the lock.

    Raises:
        BusyError, StorageError: see `lock`; the file is closed.
    """
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise StorageError(_strange(output, path, "something else"))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have unlinked the file between our open and our lock.
        if not _lies_there(handle, where, name):
            return False
        if os.pread(handle, len(MARK), 0) not in (b"", MARK):
            raise StorageError(_strange(output, path, "something else"))
        if writable:
            return True
        _remove_left(where, name, output, path)
        return False
    except BlockingIOError:
        holder = _holder(handle)
        os.close(handle)
        raise BusyError(f"{output} is being written by {holder}: wait for it") from None
    except (BusyError, StorageError):
        os.close(handle)
        raise
    except OSError as error:
        os.close(handle)
        if not writable and error.errno == errno.EBADF:  # NFS locks no file open for reading
            raise _others(where, name, output, path) from None
        raise storage(error, path) from error  # a network disk may have no locks


def _holder(handle: int) -> str:
    """Return who holds a lock; it is written a moment after it is taken."""
    for _ in range(LOOKS):
        text = os.pread(handle, 200, 0).decode(errors="replace")
        if text:
            return text
        time.sleep(PAUSE)
    return "another process"


def _remove_left(where: int, name: str, output: Path, path: Path) -> None:
    """Remove a lock that nobody holds and only its owner may write: a new one takes its place.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        os.unlink(name, dir_fd=where)
    except FileNotFoundError:
        pass
    except OSError:
        owner = _owner(where, name)
        raise StorageError(
            f"cannot write {output}: its lock {path} was left by {owner} and cannot be removed: "
            "have them remove it, or choose another -o"
        ) from None


def _others(where: int, name: str, output: Path, path: Path) -> BusyError:
    return BusyError(
        f"{output}: its lock {path} belongs to {_owner(where, name)}, who may be writing it: wait "
        "for them, or have them remove the lock, or choose another -o"
    )


def _owner(where: int, name: str) -> str:
    try:
        number = os.stat(name, dir_fd=where, follow_symlinks=False).st_uid
        return pwd.getpwuid(number).pw_name
    except (OSError, KeyError):
        return "another user"


def _strange(output: Path, path: Path, what: str) -> str:
    return f"cannot write {output}: {what} is in the place of its lock {path}: remove it"


def _lies_there(handle: int, where: int, name: str) -> bool:
    """Whether the open file is the one of this name."""
    try:
        return os.path.samestat(
            os.fstat(handle), os.stat(name, dir_fd=where, follow_symlinks=False)
        )
    except FileNotFoundError:
        return False

"""Files that appear whole or not at all, and never through a link or over an input.

A link among the folders of a path is followed; one in the place of a file that is to be written
is refused, and so is one in the place of a temporary file or of a lock (`artifacts.locks`).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from advkit.errors import InputError, StorageError, UsageError, printable, storage
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
MAKERS = {"checkpoint": "train", "labels": "softlabels", "logits": "attack"}
"""Kind of a file → the command that makes one."""
INSIDE = ("best.safetensors", "final.safetensors", "*.safetensors")
"""Names of a checkpoint in a folder, the likeliest first."""
STATE = "state.safetensors"
"""What an unfinished run goes on from, beside its checkpoints; gone when the run is done."""
SHOWN = 640
"""Characters of a name that an error shows: bytes that are no text take six each."""
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
        os.close(_made(probe))
        probe.unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.EEXIST:
            what = "a link to nothing" if path.is_symlink() else "a file"
            raise StorageError(f"cannot write {path}: {what} is in the folder's place") from None
        raise storage(error, path) from error
    return path


def named(path: Path) -> Path:
    """Return a path whose last part is a name, as that of `.`, `..` and nothing at all is not.

    Raises:
        UsageError: it is the root of the file system, which has none.
    """
    path = path if path.name not in ("", "..") else path.resolve()
    if not path.name:
        raise UsageError(f"{path} is the root of the file system: nothing lies beside it")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write; put it in place, synced, when the block ends well.

    A reader sees the old file or the whole new one. The leftovers of writers that died are
    removed on the way. Signals wait until it is in place.

    Raises:
        StorageError: disk full, file-size limit, folder read-only or gone, a link in its place.
        Stopped: a signal came meanwhile.
    """
    require_no_link(path)
    sweep(path.parent, [path.name])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with signals.whole():
        handle = -1
        try:
            handle = _made(temporary)
            yield temporary
            if not os.path.samestat(os.fstat(handle), os.lstat(temporary)):
                raise StorageError(f"cannot write {path}: {temporary} was replaced meanwhile")
            # Content before name, then the name itself: a power cut leaves the old or the new.
            os.fsync(handle)
            os.replace(temporary, path)
            _sync(path.parent)
        except OSError as error:
            raise storage(error, path) from error
        finally:
            if handle >= 0:
                os.close(handle)
            with suppress(OSError):  # the folder itself may be what is wrong
                temporary.unlink(missing_ok=True)


def _made(path: Path) -> int:
    """Make a file of our own name and return it open; what is in its place goes, unfollowed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileExistsError):
        return os.open(path, flags, 0o666)
    path.unlink()  # left by a process that had our number
    return os.open(path, flags, 0o666)


def exists(path: Path) -> bool:
    """Whether an output is there already.

    Raises:
        StorageError: nobody can say: its name is too long, or a folder may not be entered.
    """
    try:
        return path.exists()
    except OSError as error:
        raise storage(error, path) from error


def require_no_link(path: Path) -> None:
    """Check that no link is in the place of a file that is to be written.

    Raises:
        StorageError: there is one, or the place cannot be looked at.
    """
    try:
        link = stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage(error, path) from error
    if link:
        raise StorageError(
            f"cannot write {path}: a link is in its place: name the file that it leads to, "
            "or remove the link"
        )


def require_apart(outputs: Iterable[Path], inputs: Iterable[Path | str | None]) -> None:
    """Check, before any work, that no output is one of the inputs; None is no input.

    Raises:
        UsageError: one is, by the same or by another name.
    """
    given = [Path(path) for path in inputs if path]
    for output in outputs:
        for path in given:
            if _same(output, path):
                other = "" if str(output) == str(path) else f" ({path})"
                raise UsageError(
                    f"{output} is one of the inputs{other}: choose another place for the result"
                )


def _same(one: Path, other: Path) -> bool:
    try:
        if os.path.realpath(one) == os.path.realpath(other):
            return True
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one is not there, or no path
        return False


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
        with signals.whole(), open(path, "a", encoding="utf-8", opener=_appending) as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage(error, path) from error


def _appending(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def head(path: Path, wanted: str) -> bytes:
    """Return the first 16 bytes of a file that exists and is not empty.

    Raises:
        InputError: it cannot be read or is empty.
    """
    try:
        with reading.opened(path) as file:
            start = file.read(16)
    except FileNotFoundError:
        raise InputError(f"{shown(path, SHOWN)}: no such file (wanted: {wanted})") from None
    except IsADirectoryError:
        raise InputError(f"{shown(path, SHOWN)} is a folder: {_inside(path, wanted)}") from None
    except OSError as error:
        raise InputError(f"{shown(path, SHOWN)}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{shown(path)}: not a path (wanted: {wanted})") from None
    if not start:
        raise InputError(f"{path}: empty file (wanted: {wanted})")
    return start


def _inside(folder: Path, wanted: str) -> str:
    """Say which file of a folder may have been meant, if one is there."""
    names = INSIDE if "checkpoint" in wanted or "artifact" in wanted else ("*.h5",)
    try:
        inside = [*dict.fromkeys(path for name in names for path in sorted(folder.glob(name)))]
    except OSError:  # it may not be listed
        inside = []
    if not inside:
        return f"give a file (wanted: {wanted})"
    others = ", or another file in it" if len(inside) > 1 else ""
    return f"give {shown(inside[0], SHOWN)}{others}"


def maker(wanted: str) -> str:
    """Return which command makes a file of the kind, or of either kind, that a text names.

    >>> maker("a logits file (HDF5)"), maker("checkpoint or labels")
    (' (`advkit attack` makes one)', ' (`advkit train` or `advkit softlabels` makes one)')
    """
    commands = [f"`advkit {command}`" for kind, command in MAKERS.items() if kind in wanted]
    return f" ({' or '.join(commands)} makes one)" if 0 < len(commands) < len(MAKERS) else ""


def shown(path: Path, width: int = 80) -> str:
    """Return a path that came from outside as one printable line of bounded length."""
    text = printable(str(path)[:width])
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
            raise InputError(f"{path}: this is {what}; wanted: {wanted}{maker(wanted)}")
    if magic and not start.startswith(magic):
        kind = "this is a checkpoint (safetensors); " if safetensors else ""
        raise InputError(f"{path}: {kind}not {wanted}{maker(wanted)}")


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove what writers of the named files that died have left in a folder."""
    starts = [f".{name}." for name in names]
    try:
        entries = list(folder.iterdir())
    except OSError:  # not there, or a folder that may be written but not listed
        return
    for stale in entries:
        pid = PROBE.fullmatch(stale.name) or LITTER.fullmatch(stale.name)
        ours = pid and (pid.re is PROBE or stale.name[: pid.start(1)] in starts)
        if pid and ours and not _alive(int(pid[1])):
            with suppress(OSError):  # another user's, in a folder that they share
                stale.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may not be listed, and so not synced
        return
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

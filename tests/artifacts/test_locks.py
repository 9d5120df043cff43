"""One lock for one output, whatever its name; held by one process, and gone with it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from advkit.artifacts import locks
from advkit.errors import BusyError, StorageError

KINDS = {"file": locks.lock, "folder": locks.lock_folder}
kinds = pytest.mark.parametrize("kind", KINDS)


def lock_of(kind: str, output: Path) -> Path:
    """Where the lock lies."""
    return output / ".lock" if kind == "folder" else output.with_name(f".{output.name}.lock")


def planted(kind: str, output: Path) -> Path:
    """Where a lock would lie, in a folder that is there."""
    path = lock_of(kind, output)
    path.parent.mkdir(exist_ok=True)
    return path


def enter(held: AbstractContextManager[None]) -> None:
    with held:
        pass


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Start a Python process on a piece of code."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


HOLDER = """
import sys
from pathlib import Path
from advkit.artifacts import locks
with {"file": locks.lock, "folder": locks.lock_folder}[sys.argv[1]](Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=KINDS)
def held(tmp_path, request):
    """A kind, an output that another process holds, and that process."""
    output = tmp_path / "run"
    with python(HOLDER, request.param, output, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == "held\n"
        yield request.param, output, process
        process.kill()


def test_a_held_output_is_busy_and_its_holder_named(held):
    kind, output, process = held
    with pytest.raises(BusyError, match=rf"run is being written by pid {process.pid} on \S+"):
        enter(KINDS[kind](output))
    assert process.poll() is None  # it holds it to the end: nobody waited


def test_other_outputs_of_the_folder_are_free(held):
    enter(KINDS[held[0]](held[1].with_name("other")))


def test_the_lock_of_a_killed_holder_is_free(held):
    kind, output, process = held
    process.kill()
    process.wait()
    assert lock_of(kind, output).exists()
    enter(KINDS[kind](output))
    assert not lock_of(kind, output).exists()


FORKING = """
import os, sys, time
from pathlib import Path
from advkit.artifacts import locks
with {"file": locks.lock, "folder": locks.lock_folder}[sys.argv[1]](Path(sys.argv[2])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # by then it has left the lock to its parent
        os.close(1)
        time.sleep(600)
    sys.stdin.read()
"""


@kinds
def test_a_child_of_a_killed_holder_holds_nothing(tmp_path, kind):
    """Such as a process that decodes images."""
    output = tmp_path / "run"
    with python(FORKING, kind, output, stdin=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        with pytest.raises(BusyError):
            enter(KINDS[kind](output))
        process.kill()
        process.wait()
        try:
            enter(KINDS[kind](output))
        finally:
            os.kill(child, signal.SIGKILL)


@kinds
def test_a_child_that_ends_leaves_the_lock_to_its_parent(tmp_path, kind):
    output = tmp_path / "run"
    with KINDS[kind](output):
        child = os.fork()
        if child == 0:
            os._exit(0 if not locks._HELD else 1)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(BusyError):
            enter(KINDS[kind](output))
        assert lock_of(kind, output).exists()
    assert not lock_of(kind, output).exists()


ALIASES = {
    "relative": lambda base: Path(os.path.relpath(base / "run")),
    "dots": lambda base: base / "inner" / ".." / "run",
    "linked parent": lambda base: base / "alias" / "run",
    "linked parent, upwards": lambda base: base / "deep" / ".." / "run",
}


@kinds
@pytest.mark.parametrize("alias", ALIASES)
def test_whatever_name_leads_to_an_output_its_lock_is_one(tmp_path, kind, alias):
    """`deep` leads elsewhere, and `..` behind it is that folder's parent, not ours."""
    base = tmp_path / "base"
    (base / "inner").mkdir(parents=True)
    (base / "alias").symlink_to(base)
    (base / "deep").symlink_to(base / "inner")
    with KINDS[kind](base / "run"), pytest.raises(BusyError):
        enter(KINDS[kind](ALIASES[alias](base)))


def test_a_link_to_a_folder_is_that_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    with locks.lock_folder(tmp_path / "alias"), pytest.raises(BusyError):
        enter(locks.lock_folder(tmp_path / "real"))
    with locks.lock(tmp_path / "alias" / "x.h5"), pytest.raises(BusyError):
        enter(locks.lock(tmp_path / "real" / "x.h5"))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root"
)
@kinds
def test_a_bind_mount_of_a_folder_is_that_folder(tmp_path, kind):
    for name in ("real", "bound"):
        (tmp_path / name).mkdir()
    done = subprocess.run(["mount", "--bind", tmp_path / "real", tmp_path / "bound"], check=False)
    if done.returncode:
        pytest.skip("a bind mount may not be made here")
    try:
        with KINDS[kind](tmp_path / "bound" / "run"), pytest.raises(BusyError):
            enter(KINDS[kind](tmp_path / "real" / "run"))
    finally:
        subprocess.run(["umount", tmp_path / "bound"], check=True)


@kinds
def test_a_stale_lock_file_is_taken_over(tmp_path, kind):
    path = planted(kind, tmp_path / "run")
    path.write_text("pid 4194305 on nowhere, a longer text than ours")
    with KINDS[kind](tmp_path / "run"):
        assert re.fullmatch(rf"pid {os.getpid()} on \S+", path.read_text())
    assert not path.exists()


@kinds
def test_a_lock_is_released_after_an_error_and_makes_its_folder(tmp_path, kind):
    output = tmp_path / "new" / "run"
    with pytest.raises(KeyError), KINDS[kind](output):
        raise KeyError
    assert names(tmp_path) == ["new"]
    with KINDS[kind](output):
        assert output.parent.is_dir()


def test_a_folder_that_was_there_stays_and_so_does_what_was_put_in(tmp_path):
    (tmp_path / "there").mkdir()
    enter(locks.lock_folder(tmp_path / "there"))
    with locks.lock_folder(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert names(tmp_path) == ["new", "new/file", "there"]


def test_a_folder_that_its_maker_removes_is_made_again(tmp_path, monkeypatch):
    """One process makes it and gives up; another has seen it and comes to lock it."""
    run, real = tmp_path / "run", locks._hold

    def removed(name, output, folder):
        monkeypatch.setattr(locks, "_hold", real)
        folder.rmdir()
        return real(name, output, folder)

    run.mkdir()
    monkeypatch.setattr(locks, "_hold", removed)
    with locks.lock_folder(run):
        assert names(tmp_path) == ["run", "run/.lock"]


@kinds
def test_a_lock_excludes_its_own_process_too(tmp_path, kind):
    with KINDS[kind](tmp_path / "run"), pytest.raises(BusyError):
        enter(KINDS[kind](tmp_path / "run"))


@kinds
def test_a_disk_without_locks_is_a_storage_error(tmp_path, monkeypatch, kind):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match="No locks available"):
        enter(KINDS[kind](tmp_path / "run"))


STRANGE = {
    "a link": lambda path, keep: path.symlink_to(keep),
    "a link to nothing": lambda path, keep: path.symlink_to(keep.with_name("nothing")),
    "a hard link": lambda path, keep: path.hardlink_to(keep),
    "a pipe": lambda path, keep: os.mkfifo(path),
    "a folder": lambda path, keep: path.mkdir(),
    "somebody's file": lambda path, keep: path.write_text("mine"),
}


@kinds
@pytest.mark.parametrize("what", STRANGE)
def test_what_is_no_lock_is_refused_and_left_alone(tmp_path, kind, what):
    keep = tmp_path / "keep.txt"
    keep.write_text("mine")
    path = planted(kind, tmp_path / "run")
    STRANGE[what](path, keep)
    before = os.lstat(path)
    with pytest.raises(StorageError, match=rf"cannot write \S+/run.*{re.escape(path.name)}"):
        enter(KINDS[kind](tmp_path / "run"))
    after = os.lstat(path)
    assert os.path.samestat(before, after)
    assert before.st_mode == after.st_mode
    assert keep.read_text() == "mine"
    assert not keep.with_name("nothing").exists()
    if what == "somebody's file":
        assert path.read_text() == "mine"


def test_a_link_in_the_place_of_the_output_is_refused(tmp_path):
    (tmp_path / "x.h5").symlink_to("y.h5")
    with pytest.raises(StorageError, match=r"x\.h5: a link is in its place"):
        enter(locks.lock(tmp_path / "x.h5"))
    assert names(tmp_path) == ["x.h5"]


@pytest.mark.parametrize(("what", "text"), [("file", "a file"), ("link", "a link to nothing")])
def test_what_is_in_a_folders_place_is_named(tmp_path, what, text):
    place = tmp_path / "run"
    place.touch() if what == "file" else place.symlink_to("nowhere")
    with pytest.raises(StorageError, match=f"{text} is in the folder's place"):
        enter(locks.lock_folder(place))
    with pytest.raises(StorageError, match=f"{text} is in the folder's place|a file is in"):
        enter(locks.lock(place / "x.h5"))


def test_a_folder_in_which_no_file_can_be_made_is_a_storage_error():
    with pytest.raises(StorageError, match="/proc"):
        enter(locks.lock_folder(Path("/proc")))


def refusing(monkeypatch, *, reading: bool, removing: bool) -> None:
    """Let the kernel treat locks as another user's: root, as whom tests may run, is let in."""
    opened, unlinked = os.open, os.unlink

    def open_(path, flags, *more, **named):
        if str(path).endswith(".lock") and not flags & os.O_CREAT:
            writes = flags & (os.O_RDWR | os.O_WRONLY)
            if writes or not reading:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, *more, **named)

    def unlink(path, *more, **named):
        if str(path).endswith(".lock") and not removing:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return unlinked(path, *more, **named)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "unlink", unlink)


def test_the_lock_that_another_user_holds_is_busy(held, monkeypatch):
    kind, output, process = held
    refusing(monkeypatch, reading=True, removing=True)
    with pytest.raises(BusyError, match=f"pid {process.pid}"):
        enter(KINDS[kind](output))


def test_a_lock_that_may_not_even_be_read_is_busy_and_says_whose_it_is(held, monkeypatch):
    kind, output, _ = held
    refusing(monkeypatch, reading=False, removing=True)
    with pytest.raises(BusyError, match=r"its lock .* belongs to \w+.* wait for them, or"):
        enter(KINDS[kind](output))


def test_a_lock_that_the_server_locks_for_writers_alone_is_busy(held, monkeypatch):
    """On NFS `flock` wants a file that is open for writing."""
    kind, output, _ = held
    refusing(monkeypatch, reading=True, removing=True)

    def refuse(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(BusyError, match="belongs to"):
        enter(KINDS[kind](output))


@kinds
def test_a_lock_that_another_user_left_is_taken_over_where_it_can_be_removed(
    tmp_path, monkeypatch, kind
):
    path = planted(kind, tmp_path / "run")
    path.write_text("pid 4194305 on nowhere")
    with monkeypatch.context() as patch:
        refusing(patch, reading=True, removing=True)
        with KINDS[kind](tmp_path / "run"):
            assert path.read_text().startswith(f"pid {os.getpid()} ")
    assert not path.exists()


@kinds
def test_a_lock_that_another_user_left_for_good_is_a_storage_error(tmp_path, monkeypatch, kind):
    path = planted(kind, tmp_path / "run")
    path.write_text("pid 4194305 on nowhere")
    with monkeypatch.context() as patch:
        refusing(patch, reading=True, removing=False)
        with pytest.raises(StorageError, match=r"was left by \w+ and cannot be removed: have them"):
            enter(KINDS[kind](tmp_path / "run"))
    assert path.read_text() == "pid 4194305 on nowhere"


def test_a_lock_that_is_no_longer_ours_is_left_to_its_holder(tmp_path):
    """The folder goes and comes back while it is held, with another's lock in it."""
    run = tmp_path / "run"
    with locks.lock_folder(run):
        shutil.rmtree(run)
        run.mkdir()
        (run / ".lock").write_text("pid 1 on elsewhere")
    assert (run / ".lock").read_text() == "pid 1 on elsewhere"


def test_work_that_is_done_needs_no_lock(held):
    kind, output, _ = held
    if kind == "folder":
        enter(locks.where_possible(output, done=True))
        with pytest.raises(BusyError):
            enter(locks.where_possible(output, done=False))
    else:
        enter(locks.unless(True, output))
        with pytest.raises(BusyError):
            enter(locks.unless(False, output))


def test_tidying_up_is_left_where_somebody_works(held):
    kind, output, process = held
    left = output.with_name("left")
    left.mkdir()
    tidy = locks.tidy if kind == "file" else locks.tidy_folder
    tidy(output, left)
    assert left.exists()
    assert lock_of(kind, output).exists()
    process.kill()
    process.wait()
    tidy(output, left)
    assert not left.exists()
    assert not lock_of(kind, output).exists()


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="the disk is full"):
        enter(locks.lock(tmp_path / "x"))
    assert names(tmp_path) == []

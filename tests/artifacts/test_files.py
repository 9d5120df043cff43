"""Files appear whole or not at all, never through a link and never over an input."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from advkit.artifacts import files
from advkit.errors import InputError, Stopped, StorageError, UsageError
from advkit.runtime import signals


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Start a Python process on a piece of code."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path) -> Path:
    """A file with earlier content."""
    path = tmp_path / "out.txt"
    path.write_text("old")
    return path


def test_a_file_is_replaced_whole(old):
    with files.replacing(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "old"
        assert temporary.parent == old.parent  # a rename across file systems is no rename
    assert old.read_text() == "new"
    assert names(old.parent) == ["out.txt"]


def test_a_failure_inside_leaves_the_old_file_and_no_litter(old):
    def write_half():
        with files.replacing(old) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert old.read_text() == "old"
    assert names(old.parent) == ["out.txt"]


def test_write_text_round_trip(tmp_path):
    files.write_text(tmp_path / "é [1].txt", "λ\n")
    assert (tmp_path / "é [1].txt").read_text(encoding="utf-8") == "λ\n"


WRITER = """
import os, signal, sys
from pathlib import Path
from advkit.artifacts import files
with files.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["out.txt", "out[1].txt"])
def test_the_litter_of_a_killed_writer_goes_with_the_next_write(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with python(WRITER, path) as process:
        assert process.wait() == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    files.write_text(path, "new")
    assert names(tmp_path) == [name]


def test_the_temporary_of_a_living_writer_stays(old):
    other = old.with_name(f".out.txt.{os.getppid()}.tmp")
    other.write_text("half")
    files.write_text(old, "new")
    assert other.exists()


def test_a_foreign_file_of_a_similar_name_is_left_alone(old):
    foreign = old.with_name(".out.txt.backup.tmp")
    foreign.write_text("mine")
    files.write_text(old, "new")
    assert (old.read_text(), foreign.read_text()) == ("new", "mine")


def test_readers_see_the_old_or_the_new_file(tmp_path):
    path, whole = tmp_path / "x", {letter * 50_000 for letter in "ab"}
    files.write_text(path, "a" * 50_000)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for text in whole:
                files.write_text(path, text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(path.read_text() in whole for _ in range(500))
    finally:
        stop.set()
        writer.join()


def test_lines_are_appended(tmp_path):
    for line in ("a", "é"):
        files.append_line(tmp_path / "log.jsonl", line)
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == "a\né\n"


GONE = {
    "write_text": lambda path: files.write_text(path, "x"),
    "append_line": lambda path: files.append_line(path, "x"),
}


@pytest.mark.parametrize("act", GONE)
def test_a_vanished_folder_is_a_storage_error(tmp_path, act):
    with pytest.raises(StorageError, match=r"cannot write .*gone/x: the folder is gone"):
        GONE[act](tmp_path / "gone" / "x")


@pytest.mark.parametrize("act", [*GONE, "folder"])
def test_a_file_in_the_folders_place_is_a_storage_error(old, act):
    acts = {**GONE, "folder": files.folder}
    with pytest.raises(StorageError, match="a file is in"):
        acts[act](old / "x")


def test_the_folder_itself_may_not_be_a_file(old):
    with pytest.raises(StorageError, match="a file is in the folder's place"):
        files.folder(old)


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    made = files.folder(tmp_path / "a" / "b")
    assert files.folder(made) == made
    assert names(made) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_storage_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        files.folder(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_a_storage_error():
    with pytest.raises(StorageError, match="/dev/full: the disk is full"):
        files.append_line(Path("/dev/full"), "x")


LIMITED = """
import json, resource, sys
from pathlib import Path
import numpy, torch
from advkit.artifacts import checkpoint, files, hdf5
from advkit.errors import StorageError
folder = Path(sys.argv[1])
info = {"schema": 1, "kind": "checkpoint"}
values = {"w": torch.zeros(20_000)}
logits = hdf5.Logits(torch.arange(9000), torch.zeros(9000).long(), torch.rand(9000, 3),
                     {"schema": 1, "kind": "logits"})
acts = {
    "checkpoint": lambda path: checkpoint.write(path, values, info),
    "text": lambda path: files.write_text(path, "x" * 80_000),
    "line": lambda path: files.append_line(path, "x" * 80_000),
    "hdf5": lambda path: hdf5.write_logits(path, logits),
}
for name, act in acts.items():
    for limit in (0, 1, 2048, 50_000, 79_999):
        path = folder / f"{name}-{limit}"
        path.write_text("")
        if name != "line":
            act(path)
        before = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
        try:
            act(path)
            met = "nothing raised"
        except BaseException as error:
            met = f"{type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        print(json.dumps([name, limit, met, path.read_bytes() == before]), flush=True)
"""


WRITERS = ("checkpoint", "hdf5", "text", "line")
LIMITS = (0, 1, 2048, 50_000, 79_999)


@pytest.fixture(scope="module")
def limited(tmp_path_factory) -> tuple[dict, list[str]]:
    """What each writer met under each limit and whether the old file was kept; the litter."""
    folder = tmp_path_factory.mktemp("limited")
    with python(LIMITED, folder, stderr=subprocess.DEVNULL) as process:
        out, _ = process.communicate(timeout=240)
    rows = {(name, limit): rest for name, limit, *rest in map(json.loads, out.splitlines())}
    ended = (f"the process ended with {process.returncode}", False)
    found = {(writer, limit): rows.get((writer, limit), ended) for writer in WRITERS
             for limit in LIMITS}  # fmt: skip
    return found, [name for name in names(folder) if name.startswith(".")]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_write_cut_short_is_a_storage_error_and_keeps_the_old_file(limited, writer, limit):
    met, kept = limited[0][writer, limit]
    assert met.startswith("StorageError: cannot write ")
    assert "the file-size limit is reached" in met
    assert "\n" not in met
    assert kept or writer == "line"  # a log line may be cut; whole files never are


def test_a_write_cut_short_leaves_no_litter(limited):
    assert limited[1] == []


def taken_over() -> dict:
    before = {each: signal.getsignal(each) for each in signals.HANDLED}
    signals.install()
    return before


def given_back(before: dict) -> None:
    signals.release()
    for each, handler in before.items():
        signal.signal(each, handler)


def test_a_signal_waits_until_the_file_is_in_place(tmp_path):
    def write():
        with files.replacing(tmp_path / "x") as temporary:
            os.kill(os.getpid(), signal.SIGTERM)
            temporary.write_text("whole")

    before = taken_over()
    try:
        with pytest.raises(Stopped, match="SIGTERM"):
            write()
        assert (tmp_path / "x").read_text() == "whole"
        assert names(tmp_path) == ["x"]
    finally:
        given_back(before)


def test_a_signal_waits_for_what_is_around_a_file(tmp_path):
    before = taken_over()
    try:
        with signals.deferred():
            with files.replacing(tmp_path / "x") as temporary:
                os.kill(os.getpid(), signal.SIGTERM)
                temporary.write_text("whole")
            assert signals.pending() == signal.SIGTERM
    finally:
        given_back(before)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty file"),
        (b"\x89HDF\r\n\x1a\nrest", "an HDF5 file; wanted: a thing"),
        (b"PK\x03\x04rest", "a PyTorch or zip archive, which advkit never unpickles"),
        (b"\x80\x04rest", "a pickle, which advkit never loads"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"text", "not a thing"),
    ],
)
def test_a_wrong_file_is_called_what_it_is(tmp_path, content, what):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"x: (this is )?{what}"):
        files.require(path, "a thing", magic=b"THING")


def test_a_right_file_passes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    files.require(path, "an HDF5 file", magic=b"\x89HDF\r\n\x1a\n")


@pytest.mark.parametrize(
    ("name", "what"), [("absent", "no such file"), ("", "is a folder"), ("a\0b", "not a path")]
)
def test_what_cannot_be_opened_is_an_input_error(tmp_path, name, what):
    with pytest.raises(InputError, match=f"(?i){what}"):
        files.require(tmp_path / name, "a thing")


@pytest.fixture
def keep(tmp_path) -> Path:
    """A file that nobody asked to be written."""
    path = tmp_path / "keep.txt"
    path.write_text("mine")
    return path


LINKED = {
    "the file itself": ("out.txt", lambda path: files.write_text(path, "new")),
    "a log": ("out.txt", lambda path: files.append_line(path, "new")),
    "the file's lock's output": ("out.txt", files.require_no_link),
}


@pytest.mark.parametrize("what", LINKED)
@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing"])
def test_a_link_in_the_place_of_an_output_is_refused(tmp_path, keep, what, there):
    name, act = LINKED[what]
    target = keep if there else tmp_path / "nothing"
    (tmp_path / name).symlink_to(target.name)
    with pytest.raises(StorageError, match=r"out.txt: a link is in its place"):
        act(tmp_path / name)
    assert names(tmp_path) == ["keep.txt", "out.txt"]
    assert keep.read_text() == "mine"


@pytest.mark.parametrize("name", [".out.txt.{}.tmp", ".probe.{}"])
def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path, keep, name):
    name = name.format(os.getpid())
    (tmp_path / name).symlink_to("keep.txt")
    files.folder(tmp_path)
    files.write_text(tmp_path / "out.txt", "new")
    assert keep.read_text() == "mine"
    assert names(tmp_path) == ["keep.txt", "out.txt"]


def test_a_temporary_file_that_was_replaced_is_not_put_in_place(old):
    def write():
        with files.replacing(old) as temporary:
            temporary.unlink()
            temporary.write_text("somebody else's")

    with pytest.raises(StorageError, match="was replaced meanwhile"):
        write()
    assert old.read_text() == "old"
    assert names(old.parent) == ["out.txt"]


@pytest.mark.parametrize("how", ["name", "dots", "link", "folder", "hard link"])
def test_an_output_that_is_an_input_is_refused_by_whatever_name(tmp_path, keep, how, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "link.txt").symlink_to("keep.txt")
    (tmp_path / "hard.txt").hardlink_to(keep)
    other = {
        "name": "keep.txt",
        "dots": f"../{tmp_path.name}/keep.txt",
        "link": "link.txt",
        "folder": "here/here/keep.txt",
        "hard link": "hard.txt",
    }[how]
    with pytest.raises(UsageError, match=r"keep.txt is one of the inputs"):
        files.require_apart([tmp_path / "free.txt", keep], ["elsewhere", None, other])
    files.require_apart([tmp_path / "free.txt"], [other])


def test_a_place_that_is_not_there_yet_is_an_input_by_its_name_alone(tmp_path):
    with pytest.raises(UsageError, match="is one of the inputs"):
        files.require_apart([tmp_path / "a" / ".." / "x"], [tmp_path / "x"])
    files.require_apart([tmp_path / "x"], [tmp_path / "y", "no\0path"])


def test_a_folder_that_may_not_be_listed_is_written(old, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def no_folders(path, flags, *more, real=os.open, **named):
        if flags == os.O_RDONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        patch.setattr(os, "open", no_folders)
        files.write_text(old, "new")
    assert old.read_text() == "new"


@pytest.mark.parametrize("act", [files.exists, files.require_no_link, GONE["write_text"]])
def test_a_name_that_is_too_long_is_a_storage_error(tmp_path, act):
    with pytest.raises(StorageError, match="File name too long"):
        act(tmp_path / ("x" * 300))


def test_a_name_of_bytes_that_are_no_text_is_cut_in_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file") as refused:
        files.require(tmp_path / ("\udcff" * 208), "a checkpoint")
    assert len(str(refused.value)) < 1000


def test_a_name_of_several_lines_is_whole_in_an_error(tmp_path):
    with pytest.raises(InputError, match=r"\\rgarbage: no such file"):
        files.require(tmp_path / "\x1b[31m\rgarbage", "a checkpoint")

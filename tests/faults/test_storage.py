"""Rows 25 to 29, 32 and 37: disks, folders, locks, pipes, memory and packages that fail."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from advkit.artifacts import checkpoint
from tests.faults._runs import NET, contents, litter, refused

EPOCHS = ["--epochs", "3", "--attack-steps", "2"]
AT = ["train", "--method", "at", *NET, *EPOCHS]
full = pytest.mark.faults


def partial(server, words, folder, step=8):
    """Leave a run that was stopped in its second epoch."""
    stopped = server.run(*words, "-o", "run", cwd=folder, signals=[["step", step, "SIGTERM"]])
    assert stopped.code == 143, stopped.err


def finished(server, words, folder, whole):
    """Go on with the run; whatever was in its way, it ends as if nothing had been."""
    outcome = server.run(*words, "--resume", "-o", "run", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert litter(folder) == []
    assert contents(folder / "run") == whole(*words)[1]


@full
@pytest.mark.parametrize("size", [600, 1024, 4096, 7000, 9000])
def test_row_25_no_space_while_training(server, whole, tmp_path, size):
    """The state is refused: training does not go on unsaved."""
    partial(server, AT, tmp_path)
    before = contents(tmp_path / "run")
    outcome = server.run(*AT, "--resume", "-o", "run", cwd=tmp_path, file=size)
    refused(outcome, 6, "cannot write", "earlier files are intact")
    after = contents(tmp_path / "run")
    assert after["state.safetensors"] == before["state.safetensors"]
    assert after["config.toml"] == before["config.toml"]
    for path in (tmp_path / "run").glob("*.safetensors"):
        checkpoint.read(path, "state" if path.stem == "state" else "checkpoint")
    assert litter(tmp_path) == []
    finished(server, AT, tmp_path, whole)


@full
@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("softlabels ? --views 2 -q -o out.h5", 20_000),
        ("softlabels ? --views 2 -q -o out.h5", 600),
        ("attack ? --attack pgd --limit 40 -q -o out.h5", 1024),
        ("attack ? --attack pgd --limit 40 -q -o out.h5", 5000),
        ("analyze weight-landscape ? --limit 10 -q -o out.json", 300),
    ],
)
def test_row_25_no_space_for_other_files(server, teacher, tmp_path, words, size):
    words = [str(teacher / "best.safetensors") if word == "?" else word for word in words.split()]
    refused(server.run(*words, cwd=tmp_path, file=size), 6, "cannot write", "file-size limit")
    assert [name for name in litter(tmp_path) if name.endswith(".tmp")] == []
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".h5", ".json")]
    again = server.run(*words, cwd=tmp_path)
    assert again.code == 0, again.err
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == ["out"]


@contextmanager
def mounted(folder: Path, options: str):
    """A small file system of its own, where that is allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"a tmpfs may not be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root"
)


@full
@needs_root
@pytest.mark.parametrize("size", [16, 32, 48])
def test_row_25_a_full_disk(server, tmp_path, size):
    """A real file system of some KiB; what was saved stays, and goes on once there is room."""
    words = [*AT, "--epochs", "12"]
    with mounted(tmp_path / "disk", f"size={size}k") as disk:
        outcome = server.run(*words, "-o", "run", cwd=disk)
        refused(outcome, 6, "cannot write", "the disk is full")
        assert litter(disk) == []
        for path in (disk / "run").glob("*.safetensors"):
            checkpoint.read(path, "state" if path.stem == "state" else "checkpoint")
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        assert server.run(*words, "--resume", "-o", "run", cwd=disk).code == 0


@needs_root
@full
@pytest.mark.parametrize("out", ["run", "."])
def test_row_26_a_read_only_folder(server, tmp_path, out):
    with mounted(tmp_path / "disk", "size=1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        outcome = server.run(*AT, "-o", out, cwd=disk)
        refused(outcome, 6, "cannot write", "read-only")


@pytest.mark.parametrize("instead", ["", pytest.param("a file", marks=full)])
@pytest.mark.parametrize("step", [pytest.param(3, marks=full), 8])
def test_row_26_the_folder_goes_mid_run(server, tmp_path, step, instead):
    run = str(tmp_path / "run")
    outcome = server.run(*AT, "-o", "run", cwd=tmp_path, lose=["step", step, run, instead])
    refused(outcome, 6, "cannot write", "a file is in" if instead else "the folder is gone")


def test_row_26_a_file_in_its_place(cli, tmp_path):
    (tmp_path / "run").write_text("a file")
    refused(cli(*AT, "-o", tmp_path / "run"), 6, "a file is in the folder's place")
    assert (tmp_path / "run").read_text() == "a file"


@full
def test_row_27_two_runs_in_one_folder(server, whole, tmp_path):
    slow = ["train", "--method", "at", *NET, "--epochs", "3", "--attack-steps", "60"]
    first = server.start(*slow, "-o", "run", cwd=tmp_path)
    until = time.monotonic() + 200
    while not (tmp_path / "run" / "config.toml").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    first.send(signal.SIGSTOP)  # it holds the folder for as long as the others need
    for more in ([], ["--resume"], ["--overwrite"]):
        second = server.run(*slow, "-o", "run", *more, cwd=tmp_path)
        refused(second, 7, f"pid {first.pid}", socket.gethostname(), "wait for it")
    first.send(signal.SIGCONT)
    assert first.end().code == 0
    assert contents(tmp_path / "run") == whole(*slow)[1]


@full
def test_row_27_the_lock_of_a_dead_run_is_taken_over(server, whole, tmp_path):
    killed = server.run(*AT, "-o", "run", cwd=tmp_path, kill=["step", 9])
    assert killed.code == -signal.SIGKILL
    assert f"pid {server.last}" in (tmp_path / "run" / ".lock").read_text()
    finished(server, AT, tmp_path, whole)


@pytest.mark.parametrize("reads", [100, pytest.param(1000, marks=full)])
def test_row_28_a_reader_sees_whole_files(server, tmp_path, reads):
    """A run saves its state each epoch, while it is read as fast as can be, until it is stopped."""
    words = ["train", "--method", "natural", *NET, "--epochs", "1000000"]
    run = server.start(*words, "-o", "run", cwd=tmp_path)
    state, seen, count = tmp_path / "run" / "state.safetensors", set(), 0
    until = time.monotonic() + 200
    while not state.exists():
        assert time.monotonic() < until
    while count < reads or len(seen) < 2:  # it is to change meanwhile
        seen.add(checkpoint.read(state, "state")[1]["digest"])
        count += 1
        assert time.monotonic() < until
    run.send(signal.SIGTERM)
    assert run.end().code == 143


@pytest.mark.parametrize("epochs", [pytest.param("3", marks=full)])
def test_row_29_full_stdout(server, whole, tmp_path, epochs):
    words = [*AT[:-4], "--epochs", epochs, "--attack-steps", "2"]
    outcome = server.run(*words, "-o", "run", cwd=tmp_path, stdout="/dev/full")
    assert outcome.code == 6
    assert "stdout" in outcome.err
    assert "no space" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert contents(tmp_path / "run") == whole(*words)[1]


def test_row_29_the_reader_goes_away(server, whole, tmp_path):
    """`advkit train | head -0`: the run ends, its files are whole, and the exit code tells."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    run = server.start(*AT, "-o", "run", cwd=tmp_path, stdout=str(tmp_path / "pipe"))
    until = time.monotonic() + 200
    while not (tmp_path / "run" / "config.toml").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    os.close(reader)
    outcome = run.end()
    assert outcome.code == 141
    assert outcome.err.splitlines() == [
        "advkit train: error: the reader of stdout went away; files are in place"
    ]
    assert contents(tmp_path / "run") == whole(*AT)[1]


@full
@pytest.mark.parametrize("room", [8, 40])
def test_row_32_out_of_memory(server, whole, tmp_path, room):
    """What was saved stays, and the batch is never made smaller behind one's back."""
    words = [*AT, "--width", "64", "--batch-size", "128"]
    partial(server, words, tmp_path, step=2)
    outcome = server.run(*words, "--resume", "-o", "run", cwd=tmp_path, memory=room)
    refused(outcome, 1, "out of memory", "--batch-size")
    checkpoint.read(tmp_path / "run" / "state.safetensors", "state")
    finished(server, words, tmp_path, whole)


def test_row_32_out_of_memory_on_a_device(cli, tiny_run, monkeypatch):
    def full_device(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("advkit.models.load", full_device)
    outcome = cli("attack", tiny_run / "best.safetensors", "--attack", "fgsm")
    refused(outcome, 1, "out of memory on the device", "--batch-size")


ABSENT = {
    "pyautoattack": ("attack ? --autoattack", ["advkit.attacks.upstream.autoattack"],
                     "pyautoattack"),
    "h5py": ("softlabels ?", ["advkit.artifacts.hdf5", "advkit.artifacts.soft_labels",
                              "advkit.softlabels.labelling"], "h5py"),
    "sklearn": ("train --method at --data digits -o run", [], "scikit-learn"),
    "PIL": ("train --method at --data folder:set -o run",
            ["advkit.images.decode", "advkit.images.files", "advkit.data.folder"], "pillow"),
    "matplotlib": ("analyze masking ? --limit 10 --plot a.png", ["advkit.analyses.drawing.plot"],
                   "matplotlib"),
}  # fmt: skip


@full
@pytest.mark.parametrize("package", ABSENT)
def test_row_37_a_package_that_is_not_there(server, teacher, tmp_path, package):
    words, forget, name = ABSENT[package]
    for label in "ab":
        (tmp_path / "set" / "train" / label).mkdir(parents=True)
        (tmp_path / "set" / "train" / label / "1.png").write_bytes(b"\x89PNG")
    words = [str(teacher / "best.safetensors") if word == "?" else word for word in words.split()]
    outcome = server.run(*words, cwd=tmp_path, absent=[package], forget=forget)
    refused(outcome, 2, f"the package {name} is not installed", f"pip install {name}")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert not [path for path in teacher.iterdir() if package in path.name]


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_row_37_no_such_device(cli, tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    outcome = cli(*AT, "--device", device, "-o", tmp_path / "run")
    refused(outcome, 2, f"--device {device}: there is no such device here")
    assert list(tmp_path.iterdir()) == []

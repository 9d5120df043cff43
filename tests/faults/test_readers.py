"""Row 45: no reader waits for a pipe. Row 46: none reads what it has not sized first."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY
from tests.faults._runs import refused

SOON = 60
"""Seconds after which a command hangs: its work is some 2."""
TERABYTE = 1 << 40
TRAIN = ["train", "--method", "at", "--epochs", "1", "--batch-size", "4", "-q"]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    """Leave a socket; its name, which may be no longer than 108 bytes, from the folder itself."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path) -> None:
    """Make a terabyte that lies on no disk, behind what was there."""
    with path.open("ab") as file:
        file.truncate(TERABYTE)


def photos(top: Path) -> Path:
    """A `folder:` data set of two classes, four images each."""
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (top / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(top / split / name / f"{number}.png")
    return top


def imagenet(top: Path) -> Path:
    for split in ("train", "val"):
        for name in ("n1", "n2"):
            (top / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(top / split / name / "a.JPEG")
    return top


def tiny_imagenet(top: Path) -> Path:
    for split in ("train", "val"):
        for name in ("n1", "n2"):
            (top / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(top / split / name / "a.png")
    return top


@pytest.fixture
def place(tiny_run, tiny_logits, tmp_path):
    """A folder with a run, a logits file, images, and lists of them."""
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copy(tiny_logits, tmp_path / "a.h5")
    photos(tmp_path / "photos")
    imagenet(tmp_path / "imagenet")
    tiny_imagenet(tmp_path / "tiny")
    (tmp_path / "extra").mkdir()
    np.save(tmp_path / "extra" / "label.npy", np.arange(4))
    return tmp_path


EXTRA = [*TRAIN, "--data", "digits", "--extra-data", "x.npz", "-o", "new"]
IMAGENET = ["attack", "run/best.safetensors", "--attack", "none", "--data", "imagenet:imagenet"]
READERS = {
    "an image": ("photos/train/cat/0.png", [*TRAIN, "--data", "folder:photos", "-o", "new"]),
    "another image": ("photos/train/cat/x.png", ["data", "info", "folder:photos"]),
    "extra data": ("x.npz", EXTRA),
    "an array of extra data": ("extra/image.npy", [*EXTRA[:-3], "extra", "-o", "new"]),
    "an image list": ("list.txt", [*IMAGENET, "--image-list", "list.txt", "-o", "n.h5"]),
    "a list of ids": ("tiny/wnids.txt", ["data", "info", "tinyimagenet:tiny"]),
    "a configuration": ("run/config.toml", ["attack", "run/best.safetensors", "--attack", "fgsm"]),
    "a --config": ("c.toml", [*TRAIN, "--config", "c.toml"]),
    "a log": ("run/metrics.jsonl", ["train", "--method", "adr", *TINY, "-o", "run", "-q"]),
    "a checkpoint": ("run/best.safetensors", ["inspect", "run/best.safetensors"]),
    "a logits file": ("a.h5", ["analyze", "entropy", "a.h5"]),
    "a table": ("t.csv", ["analyze", "entropy", "a.h5", "-o", "t.csv"]),
    "an analysis": ("t.json", ["analyze", "entropy", "a.h5", "-o", "t.json"]),
    "an oracle": (
        "o.csv",
        ["analyze", "discrepancy", "a.h5", "--oracle", "o.csv", "--data", "folder:photos"],
    ),
}
"""Reader → the file, and a command that reads it."""


def refused_for(server, place, name, word):
    path, words = READERS[name]
    outcome = server.run(*words, cwd=place, timeout=SOON)
    if name in ("a table", "an analysis"):  # an output in the place of another: 4
        assert outcome.code in (3, 4), outcome
        return
    refused(outcome, outcome.code, Path(path).name, word)
    assert outcome.code in ((3, 4) if name == "a log" else (3,)), outcome
    assert not (place / "new").exists()


def planted(place: Path, name: str) -> Path:
    path = place / READERS[name][0]
    path.unlink(missing_ok=True)
    return path


@pytest.mark.parametrize("name", READERS)
def test_row_45_no_reader_waits_for_a_pipe(server, place, name):
    fifo(planted(place, name))
    refused_for(server, place, name, "pipe")


@pytest.mark.parametrize("name", ["an image", "extra data", "a configuration", "a table"])
@pytest.mark.parametrize("make", [bound, lambda path: path.symlink_to("/dev/zero")])
def test_row_45_nor_for_a_socket_or_a_device(server, place, name, make):
    make(planted(place, name))
    refused_for(server, place, name, "socket")


@pytest.mark.parametrize("name", READERS)
def test_row_46_a_terabyte_of_nothing_is_refused(server, place, name):
    """Alone, and behind a file that was whole."""
    path = place / READERS[name][0]
    if path.suffix == ".npz":
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
        np.savez(path, image=images, label=np.arange(8) % 10)
    sparse(path)
    if name == "a logits file":  # what HDF5 says of itself is all there, and all that is read
        assert server.run(*READERS[name][1], cwd=place, timeout=SOON).code == 0
        path.unlink()
        sparse(path)
    refused_for(server, place, name, "")


@pytest.mark.parametrize("name", ["tiny/words.txt", "tiny/val/val_annotations.txt"])
def test_row_46_lists_beside_images(server, place, name):
    if "annotations" in name:
        shutil.rmtree(place / "tiny/val")
        (place / "tiny/val/images").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(place / "tiny/val/images/a.png")
    sparse(place / name)
    outcome = server.run("data", "info", "tinyimagenet:tiny", cwd=place, timeout=SOON)
    assert (outcome.code, len(outcome.err.splitlines())) == (3, 1), outcome
    assert f"{name}: {TERABYTE} bytes" in outcome.err


def test_row_46_idx_and_mat_files(server, tmp_path):
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "train_32x32.mat"):
        (tmp_path / name).touch()
        sparse(tmp_path / name)
    for name in ("idx", "svhn"):
        outcome = server.run("data", "info", f"{name}:.", cwd=tmp_path, timeout=SOON)
        refused(outcome, 3, "bytes")


def test_row_46_a_small_packed_file_is_not_unpacked_to_gigabytes(server, tmp_path):
    import gzip

    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(bytes([0, 0, 8, 3]) + np.array([512, 1024, 1024], ">u4").tobytes())
        for _ in range(512):
            file.write(bytes(1 << 20))
    outcome = server.run("data", "info", "idx:.", cwd=tmp_path, timeout=SOON)
    refused(outcome, 3, "unpack")

"""A test set without a training set, and labels that no image has, from the command line."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.faults._runs import refused

SMALL = ["--arch", "small-cnn", "--width", "4", "--method", "natural", "--epochs", "1",
         "--batch-size", "8", "--val-size", "6", "-q"]  # fmt: skip
RNG = np.random.default_rng(0)


def arrays(labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return RNG.integers(0, 256, (len(labels), 8, 8), dtype=np.uint8), np.array(labels, np.uint8)


def write(top: Path, kind: str, split: str, labels: list[int]) -> Path:
    """Write a split as npz, or as MNIST's files are written (magic, sizes, bytes)."""
    top.mkdir(exist_ok=True)
    images, targets = arrays(labels)
    if kind == "npz":
        np.savez(top / f"{split}.npz", image=images[..., None], label=targets)
        return top
    name = {"train": "train", "test": "t10k"}[split]
    head = struct.pack(">IIII", 0x803, *images.shape)
    (top / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    with gzip.open(top / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">II", 0x801, len(targets)) + targets.tobytes())
    return top


@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_a_test_set_alone_is_attacked_and_analysed(cli, tmp_path, kind):
    classes = 12
    whole = write(tmp_path / "whole", kind, "train", list(range(classes)) * 3)
    alone = write(tmp_path / "alone", kind, "test", [0, 1, 2, 3, 2, 1])  # not every class
    run = tmp_path / "run"
    assert cli("train", "--data", f"{kind}:{whole}", *SMALL, "-o", run).code == 0
    best = run / "best.safetensors"
    attacked = cli("attack", best, "--attack", "fgsm", "--eps", "0.1", "--norm", "linf",
                   "--data", f"{kind}:{alone}", "-o", tmp_path / "a.h5", "-q")  # fmt: skip
    assert attacked.code == 0, attacked.err
    assert attacked.record["n"] == 6
    assert attacked.record["clean_accuracy"] is not None
    assert cli("analyze", "calibration", tmp_path / "a.h5", "-q").code == 0
    swept = cli("analyze", "sweep", best, "--data", f"{kind}:{alone}", "--limit", "4",
                "--norm", "linf", "--eps", "0.1", "-q")  # fmt: skip
    assert swept.code == 0, swept.err
    outcome = cli("train", "--data", f"{kind}:{alone}", *SMALL, "-o", tmp_path / "no")
    refused(outcome, 3, "holds a test set alone", "train")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_a_class_that_no_image_has_is_told_in_one_line(cli, tmp_path, kind):
    top = write(tmp_path / "d", kind, "train", list(range(1, 13)) * 2)  # as EMNIST's letters
    write(top, kind, "test", list(range(1, 13)))
    words = [word for word in SMALL if word != "-q"]
    outcome = cli("train", "--data", f"{kind}:{top}", *words, "-o", tmp_path / "r")
    assert outcome.code == 0, outcome.err
    told = [line for line in outcome.err.splitlines() if "has no image in the train split" in line]
    assert len(told) == 1
    assert f"{kind}:{top}: class 0 has no image in the train split: do its labels" in told[0]
    shown = cli("data", "info", f"{kind}:{top}")
    assert [record["missing"] for record in shown.records] == [["0"], ["0"]]


def test_nothing_is_told_where_every_class_has_an_image(cli, tmp_path):
    top = write(tmp_path / "d", "npz", "train", list(range(12)) * 2)
    words = [word for word in SMALL if word != "-q"]
    outcome = cli("train", "--data", f"npz:{top}", *words, "-o", tmp_path / "r")
    assert outcome.code == 0, outcome.err
    assert "no training image" not in outcome.err
    assert json.loads(outcome.out)["kind"] == "checkpoint"


def test_two_sets_of_one_reader_are_told_apart(cli, tmp_path):
    """By their training splits: the numbers that their classes are called say nothing."""
    labels = list(range(12)) * 2
    own, other, test = (
        write(write(tmp_path / name, "npz", "train", labels), "npz", "test", labels[:12])
        for name in ("own", "other", "test")
    )
    (test / "train.npz").unlink()
    run = tmp_path / "run"
    assert cli("train", "--data", f"npz:{own}", *SMALL, "-o", run).code == 0
    best = run / "best.safetensors"

    def clean(place: Path, *words: str | Path) -> tuple[str, float | None]:
        made = cli("attack", best, "--attack", "none", "--data", f"npz:{place}", *words, "-q")
        assert made.code == 0, made.err
        return Path(made.record["path"]).name, made.record["clean_accuracy"]

    inside, accuracy = clean(own)
    assert accuracy is not None
    outside, unknown = clean(other)
    assert unknown is None
    assert outside != inside
    assert clean(test)[1] is not None  # it has no training split that could differ
    pair = cli("analyze", "ood", run / inside, run / outside, "-q")
    assert pair.code == 0, pair.err
    moved = own.rename(tmp_path / "moved")
    assert clean(moved) == (inside, accuracy)  # already done
    assert clean(moved, "-o", tmp_path / "again.h5")[1] == accuracy


def test_images_that_are_resized_for_their_own_model_are_told_of(cli, tmp_path):
    top = write(tmp_path / "d", "idx", "train", list(range(12)) * 2)
    write(top, "idx", "test", list(range(12)))
    run = tmp_path / "run"
    assert cli("train", "--data", f"idx:{top}", *SMALL, "-o", run).code == 0
    attack = ["attack", run / "best.safetensors", "--attack", "none", "--overwrite"]
    assert "are made" not in cli(*attack).err
    images = RNG.integers(0, 256, (12, 10, 6), dtype=np.uint8)
    head = struct.pack(">IIII", 0x803, *images.shape)
    (top / "t10k-images-idx3-ubyte").write_bytes(head + images.tobytes())
    done = cli(*attack)
    assert done.code == 0, done.err
    assert "its images are 1×10×6, and are made 1×8×8 for the model" in done.err


def test_a_larger_share_than_was_left_out_of_training_is_told_of(cli, tmp_path):
    from PIL import Image

    for name in ("ant", "bee"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(20):
            pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "d" / name / f"{number}.png")
    run = tmp_path / "run"
    words = ["train", "--data", f"folder:{tmp_path / 'd'}", "--test-fraction", "0.3", *SMALL]
    assert cli(*words, "-o", run).code == 0
    attack = ["attack", run / "best.safetensors", "--attack", "none", "--overwrite"]
    for share, told in (("0.2", False), ("0.3", False), ("0.5", True)):
        done = cli(*attack, "--test-fraction", share)
        assert done.code == 0, done.err
        assert ("it judges training images" in done.err) == told

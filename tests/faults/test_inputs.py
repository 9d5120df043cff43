"""Rows 15 to 20, 30 and 31: inputs that do not belong together, impossible values, no input."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit import data
from advkit.artifacts import soft_labels
from advkit.errors import InputError
from advkit.runtime.reporting import Reporter
from advkit.softlabels import source as soft_source
from tests.conftest import TINY, shell
from tests.faults._planted import change_labels
from tests.faults._runs import ROOT, refused

N, CLASSES = 60, 10
TRAIN = ["train", "--method", "ltd", "--epochs", "1", "--width", "4", "--batch-size", "8", "-q"]
ATTACK = ["--attack", "fgsm", "--limit", "20"]


def npz(folder, images, labels, test=None):
    """Write `train.npz` and `test.npz`; return the words that name them."""
    folder.mkdir(exist_ok=True)
    for split, y in (("train", labels), ("test", labels if test is None else test)):
        np.savez(folder / f"{split}.npz", image=images, label=y)
    return f"npz:{folder}"


def idx(folder, images, labels, test=None):
    """Write MNIST's four files; images (N, H, W)."""
    folder.mkdir(exist_ok=True)
    for split, y in (("train", labels), ("t10k", labels if test is None else test)):
        for name, array in (("images-idx3", images), ("labels-idx1", y)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = head + array.astype(np.uint8).tobytes()
            (folder / f"{split}-{name}-ubyte").write_bytes(content)
    return f"idx:{folder}"


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1)).astype(np.uint8)


@pytest.fixture
def taught(cli, pixels, tmp_path, monkeypatch):
    """A data set of one's own and its labels file, made by a teacher trained on it.

    Refused is what the file says of the data, not what the teacher, trained on noise, makes of it.
    """
    monkeypatch.chdir(tmp_path)
    place = npz(tmp_path / "set", pixels, np.arange(N) % CLASSES)
    net = ["--arch", "small-cnn", "--width", "4", "--batch-size", "8", "--epochs", "1", "-q"]
    made = cli("pretrain-teacher", "--data", place, *net, "-o", "teacher")
    assert made.code == 0, made.err
    assert cli("softlabels", "teacher/best.safetensors", "-o", "l.h5", "-q").code == 0
    return tmp_path


OTHERS = {
    "permuted": lambda x, y: (x[::-1], y[::-1]),
    "two rows swapped": lambda x, y: (x[[10, *range(1, 10), 0, *range(11, N)]], y),
    "one pixel": lambda x, y: (np.where(np.arange(x.size).reshape(x.shape) == 7, 3, x), y),
    "one label": lambda x, y: (x, np.where(np.arange(N) == 5, 6, y)),
    "more rows": lambda x, y: (np.concatenate([x, x[:1]]), np.append(y, y[0])),
    "fewer rows": lambda x, y: (x[:-1], y[:-1]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_row_15_labels_of_other_data(cli, taught, pixels, name):
    x, y = OTHERS[name](pixels, np.arange(N) % CLASSES)
    place = npz(taught / "other", x.astype(np.uint8), y)
    words = ["--data", place, "--soft-labels", "l.h5", "-o", "run"]
    count = "examples" if "rows" in name and "two" not in name else "fingerprint"
    refused(cli(*TRAIN, *words), 4, "l.h5", count)
    assert not (taught / "run").exists()


def test_row_15_labels_of_the_other_split(cli, taught, pixels):
    """The test images in the place of the training images, as many and with the same labels."""
    place = npz(taught / "other", pixels[::-1].copy(), np.arange(N) % CLASSES)
    refused(cli(*TRAIN, "--data", place, "--soft-labels", "l.h5"), 4, "fingerprint", "other images")


@pytest.mark.parametrize("classes", [9, 11])
def test_row_16_labels_of_another_class_count(cli, taught, pixels, classes):
    place = npz(taught / "other", pixels, np.arange(N) % classes)
    found = cli(*TRAIN, "--data", place, "--soft-labels", "l.h5", "-o", "run")
    refused(found, 4, "10 classes", f"{classes} (")
    teacher = cli(*TRAIN, "--data", place, "--teacher", "teacher/best.safetensors", "-o", "run")
    refused(teacher, 4, "10 classes", f"{classes} (")
    assert not (taught / "run").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 17])
def test_row_17_rows_that_are_no_distribution(cli, taught, value, row):
    """The file holds logits: a row is no distribution exactly if an entry is not finite."""
    change_labels(Path("l.h5"), Path("bad.h5"), lambda z: z[row:, 3].fill(value))
    words = ["--data", f"npz:{taught / 'set'}", "--soft-labels", "bad.h5", "-o", "run"]
    refused(cli(*TRAIN, *words), 3, "bad.h5", f"row {row} ")
    assert not (taught / "run").exists()


def test_row_17_any_finite_row_is_a_distribution(taught):
    """Negative, large and all-zero rows included: softmax makes sums of 1 of them."""

    def change(z):
        z[0], z[1], z[2] = 0, -3e38, 1e30

    change_labels(Path("l.h5"), Path("odd.h5"), change)
    images = data.load(f"npz:{taught / 'set'}", "train")
    source = soft_source.Stored(soft_labels.read("odd.h5"), images, Reporter())
    from advkit.labels.soft import soften

    batch = type("B", (), {"index": torch.arange(N), "view": torch.zeros(N).long(),
                           "x": images.images})  # fmt: skip
    sums = soften(source(batch), 3.0).sum(1)
    assert torch.allclose(sums, torch.ones(N))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(-1, ["label -1 of example 7"]), (10**6, ["label 1000000 of example 7"])],
)
def test_row_18_hard_labels_out_of_range_in_npz(cli, pixels, tmp_path, wrong, words):
    y = np.where(np.arange(N) == 7, wrong, np.arange(N) % CLASSES)
    place = npz(tmp_path / "set", pixels, y)
    refused(cli("train", "--method", "at", "--data", place, "-q"), 3, "train.npz", *words)


@pytest.mark.parametrize("wrong", [10, 255])
def test_row_18_hard_labels_out_of_range_in_a_test_split(pixels, tmp_path, wrong):
    y = np.arange(N) % CLASSES
    place = npz(tmp_path / "set", pixels, y, test=np.where(np.arange(N) == 7, wrong, y))
    with pytest.raises(InputError, match=rf"label {wrong}, but the highest in train.npz is 9"):
        data.load(place, "test")


def test_row_18_a_mark_is_no_class(pixels, tmp_path):
    """255, a byte's -1, would be the 256th of classes that have no example."""
    y = np.where(np.arange(N) == 7, 255, np.arange(N) % CLASSES)
    place = idx(tmp_path / "set", pixels[..., 0], y)
    with pytest.raises(InputError, match=r"label 255 of example 7, but only 11 of the classes"):
        data.load(place, "train")
    letters = idx(tmp_path / "set", pixels[..., 0], 1 + np.arange(N) % 26)  # EMNIST's begin at 1
    assert len(data.load(letters, "train").classes) == 27


def test_row_18_the_eleventh_of_ten(tmp_path):
    """CIFAR-10 has ten classes, whatever a file says."""
    from advkit.images.image_set import Images

    x, y = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 10, 2])
    with pytest.raises(InputError, match=r"label 10 of example 1 is not in 0\.\.9"):
        Images("cifar10", "train", x, y, tuple("abcdefghij"), 4, True)


VALUES = {
    "float in [0, 1]": lambda x: x / 255,
    "NaN": lambda x: np.where(x == x.max(), np.nan, x / 255),
    "out of range": lambda x: x.astype(np.int16) * 2,
    "objects": lambda x: x.astype(object),
    "five channels": lambda x: np.repeat(x, 5, axis=3),
    "flat": lambda x: x.reshape(N, -1),
}


@pytest.mark.parametrize("name", VALUES)
def test_row_19_pixels_that_are_none(cli, pixels, tmp_path, name):
    """Data sets hold bytes, so that no pixel leaves [0, 1] or is NaN; other arrays are refused."""
    with np.errstate(all="ignore"):
        place = npz(tmp_path / "set", VALUES[name](pixels), np.arange(N) % CLASSES)
    refused(cli("train", "--method", "at", "--data", place, "-q"), 3, "train.npz", "image")


def test_row_19_channels_first_are_recognised(pixels, tmp_path):
    x = np.repeat(pixels, 3, axis=3)
    last = data.load(npz(tmp_path / "last", x, np.arange(N) % CLASSES), "train")
    first = data.load(npz(tmp_path / "first", x.transpose(0, 3, 1, 2), np.arange(N) % 10), "train")
    assert torch.equal(last.images, first.images)
    assert last.shape == (3, 8, 8)


@pytest.mark.parametrize("kind", [13, 14])
def test_row_19_idx_of_floats(pixels, tmp_path, kind):
    place = idx(tmp_path / "set", pixels[..., 0], np.arange(N) % CLASSES)
    path = tmp_path / "set" / "train-images-idx3-ubyte"
    raw = bytearray(path.read_bytes())
    raw[2] = kind  # float, double
    path.write_bytes(raw)
    with pytest.raises(InputError, match="not an IDX file of bytes"):
        data.load(place, "train")


FEW = {
    "no example": (0, [0], 3, ["holds no image"]),
    "one class": (N, [0], 3, ["one class"]),
    "fewer than a batch": (6, [0, 1], 2, ["--batch-size 8", "training examples"]),
    "nothing to select on": (4, [0, 1], 2, ["4 training examples are too few to set some aside"]),
}


@pytest.mark.parametrize("name", FEW)
def test_row_20_too_little_data(cli, pixels, tmp_path, name):
    count, classes, code, words = FEW[name]
    y = np.resize(np.array(classes), count)
    place = npz(tmp_path / "set", pixels[:count], y)
    net = ["--arch", "small-cnn", "--width", "4", "--batch-size", "8", "--epochs", "1"]
    outcome = cli("train", "--method", "at", "--data", place, *net, "-q", "-o", tmp_path / "run")
    refused(outcome, code, *words)
    assert not (tmp_path / "run").exists()


SMALL_LIMITS = {  # flags → what is left, of how many, held out, and what to type
    "limit": (["--limit", "60", "--batch-size", "128"],
              "48 training examples: of 60 (--limit 60), 12 are set aside for validation "
              "(--val-size): give --batch-size 48 or less, or --limit 159 or more"),
    "val size": (["--limit", "60", "--batch-size", "64", "--val-size", "20"],
                 "40 training examples: of 60 (--limit 60), 20 are set aside for validation "
                 "(--val-size): give --batch-size 40 or less, or --limit 84 or more"),
    "no limit is enough": (["--limit", "60", "--batch-size", "1442"],
                           "12 are set aside for validation (--val-size): give --batch-size 48 "
                           "or less\n"),
    "no limit": (["--batch-size", "2000"],
                 "1154 training examples: of 1442, 288 are set aside for validation (--val-size): "
                 "give --batch-size 1154 or less\n"),
}  # fmt: skip


@pytest.mark.parametrize("flags", SMALL_LIMITS)
def test_row_20_fewer_than_a_batch_says_why_and_what_to_type(cli, tmp_path, flags):
    """Of the digits' 1,442 training images; 159 less a fifth, rounded down, is 128."""
    given, words = SMALL_LIMITS[flags]
    done = cli("train", "--data", "digits", "--method", "at", *given, "-o", tmp_path / "run")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert words in done.err


def test_row_20_the_named_limit_is_the_least_that_is_enough(cli, tmp_path):
    flags = ["train", "--data", "digits", "--method", "natural", "--batch-size", "128",
             "--width", "4", "--epochs", "1", "-q"]  # fmt: skip
    assert cli(*flags, "--limit", "159", "-o", tmp_path / "run").code == 0
    assert "127 training examples" in cli(*flags, "--limit", "158", "-o", tmp_path / "less").err


def test_row_20_the_last_smaller_batch_is_dropped(cli, pixels, tmp_path):
    place = npz(tmp_path / "set", pixels[:13], np.arange(13) % 2)
    net = ["--arch", "small-cnn", "--width", "4", "--batch-size", "8", "--epochs", "2"]
    outcome = cli("train", "--method", "at", "--data", place, *net, "-q", "-o", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [row["n"] for row in rows] == [8, 8]  # of 11: two are for selection


@pytest.mark.parametrize(
    "words", ["attack --attack fgsm", "softlabels", "train --method ltd", "analyze calibration",
              "search temperature"],
)  # fmt: skip
def test_row_30_the_stage_before_failed(cli, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    refused(cli(*words.split(), stdin=""), 3, "on stdin", "the stage before gave nothing")
    assert list(tmp_path.iterdir()) == []


def test_three_stages_give_one_record(server, tmp_path):
    """Processes and pipes as a shell makes them, without their imports."""
    for name in ("first", "second"):
        os.mkfifo(tmp_path / name)
    first, second = tmp_path / "first", tmp_path / "second"
    train = ["train", "--method", "adr", *TINY, "--epochs", "1", "-q"]
    stages = [
        server.start(*train, cwd=tmp_path, stdout=str(first)),
        server.start("attack", "--attack", "fgsm", "--limit", "20", cwd=tmp_path, stdin=first,
                     stdout=str(second)),
        server.start("analyze", "calibration", "--resamples", "20", cwd=tmp_path, stdin=second),
    ]  # fmt: skip
    ended = [each.end() for each in stages]
    assert [each.code for each in ended] == [0, 0, 0], ended
    record = ended[-1].record
    assert (record["kind"], record["n"]) == ("analysis", 20)
    assert Path(record["input"]).name == "best.fgsm-linf-0.15-n20.h5"


def test_row_30_in_a_real_pipe(tmp_path):
    line = "advkit train --data digits --method adrr | advkit attack --autoattack"
    outcome = shell(f"{line}; echo ${{PIPESTATUS[@]}}", tmp_path)
    assert outcome.out == "2 3\n"
    assert len(outcome.err.splitlines()) == 2


def test_row_30_recipes_stop_where_a_stage_fails():
    scripts = [*(ROOT / "recipes").glob("*.sh")]
    assert len(scripts) > 1
    assert all("pipefail" in path.read_text(encoding="utf-8") for path in scripts)


@pytest.mark.parametrize(
    ("stdin", "word"),
    [("none.safetensors\n", "none.safetensors"), ("Killed\n", "Killed"), ("{broken\n", "{broken"),
     ('{"kind": "checkpoint", "path": 5}\n', "path"), (b"\xff\xfe\n", "udcff")],
)  # fmt: skip
@pytest.mark.parametrize("words", [["attack", *ATTACK], ["softlabels"], ["inspect"]])
def test_row_31_garbage_on_stdin(cli, words, stdin, word):
    refused(cli(*words, stdin=stdin), 3, word)


@pytest.mark.parametrize("name", ["two words", "line\nbreak", "λ é 模型", "-o"])
def test_row_31_any_path_goes_through_a_pipe(cli, tiny_run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / name)
    trained = cli("train", "--method", "adr", *TINY, "-o", tmp_path / name, "--resume", "-q")
    attacked = cli("attack", *ATTACK, "-q", stdin=trained.out)
    assert attacked.code == 0, attacked.err
    assert Path(attacked.record["path"]).parent.name == name
    found = cli("analyze", "entropy", stdin=attacked.out)
    assert (found.code, found.record["n"]) == (0, 20)

"""Options and files that would make a number mean something else, or lose one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from advkit.artifacts import checkpoint, hdf5
from tests.conftest import TINY


@pytest.fixture
def best(tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    return folder / "best.safetensors"


def idx_of(folder, split, images, labels):
    """Write images (N, H, W) and labels in MNIST's format."""
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"{split}-{name}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def noise(tmp_path):
    """Images that are no digits under classes of the digits' names."""
    draw = np.random.default_rng(0)
    idx_of(tmp_path, "t10k", draw.integers(0, 256, (30, 9, 9)), np.arange(30) % 10)
    return f"idx:{tmp_path}"


def test_another_norm_needs_its_own_eps(cli, best):
    done = cli("attack", best, "--attack", "pgd", "--norm", "l2")
    assert done.code == 2
    assert "give --eps too" in done.err


def test_another_data_set_has_no_labels(cli, best, noise, tmp_path):
    done = cli("attack", best, "--attack", "none", "--data", noise, "-o", tmp_path / "x.h5")
    assert done.code == 0, done.err
    assert done.record["clean_accuracy"] is None
    assert (hdf5.read_logits(tmp_path / "x.h5").labels == -1).all()


def test_attacking_another_data_set_says_what_it_rests_on(cli, best, noise):
    done = cli("attack", best, "--attack", "fgsm", "--data", noise)
    assert done.code == 0, done.err
    assert "same names" in done.err


def test_examples_without_gradient_are_counted(cli, best):
    """A net that always answers 0, its logit 10^4 above the others.

    The softmax is exactly one-hot, and cross-entropy's gradient exactly 0, for the four of forty
    test images that are a 0; for the others it is a difference of two rows of weights.
    """
    tensors, info = checkpoint.read(best)
    tensors["linear.bias"] = torch.tensor([1e4] + 9 * [0.0])
    checkpoint.write(best, tensors, {k: v for k, v in info.items() if k != "digest"})
    done = cli("attack", best, "--attack", "pgd", "--limit", "40")
    assert done.code == 0, done.err
    assert done.record["zero_gradient"] == done.record["clean_accuracy"] == 0.1
    assert "zero gradient" in done.err


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_one_output_takes_one_input(cli, best, tmp_path, more):
    other = best.with_name("final.safetensors")
    out = tmp_path / "x.h5"
    done = cli("attack", best, other, "--attack", "fgsm", "--limit", "20", "-o", out, *more)
    assert (done.code, done.out, out.exists()) == (2, "", False)
    lines = f"{best}\n{other}\n"
    done = cli("attack", "--attack", "fgsm", "--limit", "20", "-o", out, *more, stdin=lines)
    assert (done.code, len(done.records)) == (2, 1)
    assert hdf5.read_logits(out).info["role"] == "best"


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_folder_of_others_is_left_alone(cli, tmp_path, more):
    text = 'title = "somebody else\'s"\n'
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "f").write_text("kept")
    done = cli("train", *TINY, "--epochs", "1", "-o", tmp_path, *more, "-q")
    assert done.code == 4
    assert (tmp_path / "config.toml").read_text() == text
    assert (tmp_path / "precious" / "f").read_text() == "kept"


def test_a_run_takes_one_labels_file(cli, best):
    line = json.dumps({"kind": "checkpoint", "path": str(best)})
    done = cli("train", "--method", "ltd", *TINY, stdin=f"{line}\n{line}\n")
    assert done.code == 2
    assert "2 came in" in done.err


def test_teacher_and_student_share_the_validation_split(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = cli("pretrain-teacher", *TINY, "--split-seed", "7", "--val-size", "40", "-q")
    labels = cli("softlabels", "-q", stdin=teacher.out)
    done = cli(
        "train", "--method", "ltd", "--epochs", "1", "--width", "8", "--batch-size", "32", "-q",
        stdin=labels.out,
    )  # fmt: skip
    assert done.code == 0, done.err
    config = checkpoint.read(done.record["path"])[1]["config"]
    assert (config["split_seed"], config["val_size"], config["limit"]) == (7, 40, 300)


def test_a_corrupt_part_is_started_anew(cli, best):
    out = best.with_name("x.h5")
    out.with_name("x.h5.part").write_bytes(b"torn")
    done = cli("attack", best, "--attack", "fgsm", "--limit", "20", "-o", out)
    assert done.code == 0, done.err
    assert "started anew" in done.err


@pytest.mark.parametrize(
    ("method", "steps", "word"), [("at", 0, "needs at least 1"), ("natural", 2, "attacks nothing")]
)
def test_attack_steps_fit_the_objective(cli, method, steps, word):
    done = cli("train", "--method", method, *TINY, "--attack-steps", steps)
    assert done.code == 2
    assert word in done.err


def test_the_others_are_drawn_where_one_input_fails(cli, tiny_logits, tmp_path):
    picture = tmp_path / "x.png"
    done = cli("analyze", "entropy", tmp_path / "none.h5", tiny_logits, "--plot", picture)
    assert (done.code, len(done.records)) == (3, 1)
    assert picture.stat().st_size > 1000


def test_an_unforeseen_failure_does_not_stop_the_rest(cli, best, monkeypatch):
    from advkit import models

    real = models.load
    monkeypatch.setattr(
        models, "load", lambda path, device: torch.zeros(2)[5] if "best" in str(path)
        else real(path, device),
    )  # fmt: skip
    other = best.with_name("final.safetensors")
    done = cli("attack", best, other, "--attack", "fgsm", "--limit", "20")
    assert (done.code, len(done.records)) == (1, 1)

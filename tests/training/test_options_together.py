"""Newer options together, and where they end: averages, late terms, teachers, places."""

from __future__ import annotations

import json

import numpy as np
import pytest

from advkit.artifacts import checkpoint
from tests.conftest import SEED

NET = ["--data", "digits", "--width", "2", "--limit", "60", "--batch-size", "16",
       "--attack-steps", "1", "--seed", str(SEED)]  # fmt: skip


def test_an_even_average_is_offered_once_it_is_one(cli, tmp_path):
    """Before its first epoch it is the student: never the best average of a run."""
    words = ["train", "--method", "at-wa", "--swa-start", "3", "--epochs", "3", *NET, "-q"]
    done = cli(*words, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert checkpoint.read_info(tmp_path / "run" / "best-ema.safetensors")["metrics"]["epoch"] == 3
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert ["val_robust_accuracy-ema" in row for row in rows] == [False, False, True]


@pytest.mark.parametrize(
    ("method", "option"),
    [("sat", "--memory-from 70"), ("te", "--ramp 90:150")],
)
def test_what_begins_after_the_last_epoch_is_told(cli, tmp_path, method, option):
    done = cli("train", "--method", method, "--epochs", "1", *NET, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"{option} begins after --epochs 1" in done.err


def test_a_perturbation_that_never_begins_is_told(cli, tmp_path):
    words = ["train", "--method", "at-awp", "--awp-warmup", "3", "--epochs", "2", *NET]
    done = cli(*words, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert "--awp-warmup 3 ends after --epochs 2: weights are never perturbed" in done.err


@pytest.mark.parametrize(("drops", "told"), [("1,5", "--lr-drops 5 come after"), ("1,2", "")])
def test_a_fall_of_the_rate_after_the_end_is_told(cli, tmp_path, drops, told):
    words = ["train", "--method", "natural", "--lr-drops", drops, "--epochs", "2", *NET[:8]]
    done = cli(*words, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert (told in done.err) if told else ("come after" not in done.err)


def test_a_single_epoch_has_the_whole_rate(cli, tmp_path):
    words = ["train", "--method", "natural", "--lr", "0.1", "--epochs", "1", *NET[:8], "-q"]
    assert cli(*words, "-o", tmp_path / "run").code == 0
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["lr"] == 0.1


def test_a_run_shares_the_split_of_the_net_that_it_begins_from(cli, tmp_path):
    """Else the best epoch would be chosen on images that the net has seen."""
    words = ["train", "--method", "natural", "--epochs", "1", *NET[:8]]
    first = [*words, "--split-seed", "3", "--val-size", "12", "-q", "-o", tmp_path / "a"]
    assert cli(*first).code == 0
    begun = [*words, "--init", tmp_path / "a" / "best.safetensors"]
    done = cli(*begun, "-o", tmp_path / "b")
    assert done.code == 0, done.err
    config = checkpoint.read_info(tmp_path / "b" / "best.safetensors")["config"]
    assert (config["split_seed"], config["val_size"]) == (3, 12)
    assert "set other images aside" not in done.err
    other = cli(*begun, "--split-seed", "0", "-o", tmp_path / "c")
    assert "its net set other images aside (--split-seed 3)" in other.err


@pytest.mark.parametrize("share", ["0", "0.001"])
def test_extra_images_of_which_a_batch_has_none(cli, tmp_path, share):
    pixels = np.zeros((8, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "x.npz", image=pixels, label=np.arange(8))
    words = ["train", "--method", "at", "--epochs", "1", *NET, "--extra-data", tmp_path / "x.npz"]
    done = cli(*words, "--extra-fraction", share, "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert "is no image" in done.err


@pytest.mark.parametrize(
    ("words", "asked"),
    [(["hat", "--teacher"], "natural-teacher"), (["kd", "--natural-teacher"], "teacher")],
)
def test_the_teacher_that_is_missing_is_named(cli, tiny_run, tmp_path, words, asked):
    method, given = words
    best = tiny_run / "best.safetensors"
    done = cli("train", "--method", method, given, best, *NET, "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert f"--objective {method} asks a {asked}: give --{asked} CHECKPOINT" in done.err


def test_a_run_does_not_overwrite_what_it_begins_from(cli, tmp_path):
    words = ["train", "--method", "natural", "--epochs", "1", *NET[:8], "-q"]
    assert cli(*words, "-o", tmp_path / "run").code == 0
    best = tmp_path / "run" / "best.safetensors"
    before = best.read_bytes()
    done = cli(*words, "--init", best, "--overwrite", "-o", tmp_path / "run")
    assert done.code == 2, done.err
    assert "is one of the inputs" in done.err
    assert best.read_bytes() == before


@pytest.mark.parametrize("ramp", ["nan:2", "x", "-1:5"])
def test_an_impossible_ramp_leaves_no_folder(cli, tmp_path, ramp):
    done = cli("train", "--method", "te", f"--ramp={ramp}", *NET, "-o", tmp_path / "run")
    assert done.code == 2, done.err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_there_is_named(cli, tmp_path):
    for more in ([], ["--test-fraction", "0.2"]):
        done = cli("data", "info", f"folder:{tmp_path}/nosuch", *more)
        assert (done.code, done.out) == (3, "")
        assert f"{tmp_path}/nosuch: no such folder" in done.err


def test_extra_data_of_several_files_in_python(tmp_path):
    import advkit

    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        images = draw.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.arange(20) % 10)
    run = advkit.train(
        data="digits", method="at", width=2, limit=60, batch_size=16, attack_steps=1, epochs=1,
        extra_data=[tmp_path / "a.npz", tmp_path / "b.npz"], out=tmp_path / "run", threads=1,
    )  # fmt: skip
    assert run.best.exists()


def test_a_natural_teacher_that_was_trained_with_an_attack_is_told(cli, tmp_path):
    words = ["train", "--epochs", "1", *NET]
    assert cli(*words, "--method", "at", "-q", "-o", tmp_path / "at").code == 0
    best = tmp_path / "at" / "best.safetensors"
    done = cli(*words, "--method", "hat", "--natural-teacher", best, "-o", tmp_path / "hat")
    assert done.code == 0, done.err
    assert "--natural-teacher: it was trained with an attack (at)" in done.err


def test_a_warm_up_longer_than_the_run_is_told(cli, tmp_path):
    words = ["train", "--method", "natural", "--epochs", "1", *NET[:8], "--warmup-epochs", "5"]
    done = cli(*words, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert "--warmup-epochs 5 is more than --epochs 1" in done.err
    few = cli(*words, "--limit", "3", "-o", tmp_path / "few")
    assert (few.code, few.out) == (2, "")
    assert "3 training examples are too few to set some aside" in few.err

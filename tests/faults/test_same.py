"""Rows 33 and 36: other options are another run; the same seed is the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from advkit.artifacts import checkpoint
from advkit.images.image_set import Images
from tests.conftest import SEED
from tests.faults._runs import NET, ROOT, contents, refused
from tests.faults._same import CHAIN

AT = ["train", "--method", "at", *NET, "--epochs", "3", "--attack-steps", "2"]
full = pytest.mark.faults


@pytest.fixture(scope="module")
def stopped(server, tmp_path_factory):
    """A folder with a run that was stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    outcome = server.run(*AT, "-o", "run", cwd=folder, signals=[["step", 8, "SIGTERM"]])
    assert outcome.code == 143, outcome.err
    return folder


CHANGED = {
    "--lr 0.05": "lr: 0.1 -> 0.05",
    "--eps 0.1": "eps: 0.15 -> 0.1",
    "--method trades": "objective: at -> trades",
    f"--seed {SEED + 1}": f"seed: {SEED} -> {SEED + 1}",
    "--epochs 4": "epochs: 3 -> 4",
    "--batch-size 16": "batch_size: 32 -> 16",
    "--split-seed 3": "split_seed: 0 -> 3",
}


@pytest.mark.parametrize("more", CHANGED)
def test_row_33_resume_with_other_options(cli, stopped, more):
    """`stages.md` has no --override: another configuration is another run."""
    before = contents(stopped / "run")
    outcome = cli(*AT, *more.split(), "--resume", "-o", stopped / "run")
    refused(outcome, 4, CHANGED[more], "--overwrite")
    assert contents(stopped / "run") == before


def test_row_33_all_differences_are_listed(cli, stopped):
    more = ["--lr", "0.05", "--eps", "0.1", "--momentum", "0.8"]
    outcome = cli(*AT, *more, "--resume", "-o", stopped / "run")
    refused(outcome, 4, "lr: 0.1 -> 0.05", "eps: 0.15 -> 0.1", "momentum: 0.9 -> 0.8")


@pytest.mark.parametrize("stage", [("attack", "--attack", "none"), ("softlabels",)])
def test_a_checkpoint_of_an_unfinished_run_is_told_of(cli, stopped, tmp_path, stage):
    words = (*stage, stopped / "run" / "best.safetensors", "-o", tmp_path / "a.h5")
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    assert "its run has not ended (train --resume goes on)" in outcome.err
    assert "has not ended" not in cli(*words).err  # already done


def rewritten(stopped, folder, change):
    """Copy the run with another description of its state, and a right digest."""
    import shutil

    shutil.copytree(stopped / "run", folder / "run")
    path = folder / "run" / "state.safetensors"
    tensors, info = checkpoint.read(path, "state")
    del info["digest"]
    change(info)
    checkpoint.write(path, tensors, info)
    return folder / "run"


def test_row_33_another_number_of_processes(cli, stopped, tmp_path):
    run = rewritten(stopped, tmp_path, lambda info: info["environment"].update(world=2))
    refused(cli(*AT, "--resume", "-o", run), 4, "begun by 2 processes, not 1", "--resume-elastic")
    outcome = cli(*AT, "--resume-elastic", "-o", run)
    assert outcome.code == 0, outcome.err
    assert checkpoint.read_info(run / "final.safetensors")["elastic"] == [[1, 3, 2, 1]]


def test_row_33_other_data(cli, stopped, monkeypatch):
    monkeypatch.setattr(Images, "fingerprint", "sha256:other")
    outcome = cli(*AT, "--resume", "-o", stopped / "run")
    refused(outcome, 4, "training data or soft labels changed")


@full
def test_row_36_the_same_bytes(tmp_path):
    """Checkpoints, labels, logits, JSON, CSV and HDF5: in other folders, with other hash seeds."""
    found = []
    for place, seed in (("a", "1"), ("b/deep/é", "77")):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-c", CHAIN], cwd=folder, env=environment, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        found.append(contents(folder))
    assert found[0] == found[1]
    suffixes = {name.rsplit(".")[-1] for name in found[0]}
    assert suffixes == {"safetensors", "h5", "json", "jsonl", "csv", "toml"}
    said = {name: (tmp_path / "a" / name).read_bytes() for name in found[0]}
    telling = [name for name, raw in said.items() if str(tmp_path).encode() in raw]
    assert telling == []  # no artifact knows where it was made


def test_row_36_another_seed_is_another_run(server, whole, tmp_path):
    outcome = server.run(*AT, "--seed", SEED + 1, "-o", "run", cwd=tmp_path)
    assert outcome.code == 0
    other, first = contents(tmp_path / "run"), whole(*AT)[1]
    assert other["final.safetensors"] != first["final.safetensors"]

"""A net of another package is trained, gone on from, attacked and refused like one of ours."""

from pathlib import Path

import numpy as np
import pytest

from advkit.artifacts import checkpoint
from advkit.config.resolve import resolve
from advkit.training import parts

ARCH = "torchvision:squeezenet1_1"
SHORT = ["--method", "natural", "--epochs", "1", "--batch-size", "8", "--val-size", "4",
         "--threads", "1"]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    draw = np.random.default_rng(0)
    for name in ("train", "test"):
        images = draw.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        np.savez(f"d/{name}.npz", image=images, label=np.arange(12) % 4)
    return tmp_path


def test_a_run_of_it_has_no_part_of_ours_for_it():
    made = ({"data": "digits", "method": "natural", "arch": ARCH}, "flag")
    assert sorted(parts.digests(resolve(made).settings)) == [
        "augment/crop-flip",
        "data/digits",
        "labels/onehot",
        "objectives/natural",
    ]


@pytest.mark.slow
def test_it_is_trained_and_gone_on_from(cli):
    first = cli("train", "--data", "npz:d", "--arch", ARCH, *SHORT, "-o", "a")
    assert first.code == 0, first.err
    again = cli("train", "--data", "npz:d", "--arch", ARCH, *SHORT, "-o", "a")
    assert "already done" in again.err
    second = cli("train", "--data", "npz:d", "--init", "a/final.safetensors", *SHORT, "-o", "b")
    assert second.code == 0, second.err
    info = checkpoint.read_info("b/final.safetensors")
    assert info["arch"] == ARCH
    assert [parent["role"] for parent in info["parents"] if parent.get("use") == "init"] == [
        "final"
    ]


def test_arguments_are_told_before_a_run_folder_is_there(cli):
    arch = "torchvision:squeezenet1_1,depth=3"
    outcome = cli("train", "--data", "npz:d", "--arch", arch, *SHORT, "-o", "a")
    assert (outcome.code, outcome.out) == (2, "")
    assert "take no arguments" in outcome.err
    assert not Path("a").exists()

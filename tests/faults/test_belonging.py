"""Rows 38 to 41: files that are each whole and do not belong together."""

from __future__ import annotations

import json
import shutil

import pytest

from advkit.artifacts import artifact
from advkit.evaluation.run import Evaluation
from advkit.softlabels.labelling import Labelling
from tests.conftest import SEED

NET = [
    "--data",
    "digits",
    "--limit",
    60,
    "--epochs",
    1,
    "--batch-size",
    16,
    "--width",
    2,
    "--threads",
    1,
    "-q",
]


@pytest.fixture
def two(cli, tmp_path):
    """The folder `run` of a natural run, and the words of one that can take its place."""
    argv = ["train", "--method", "natural", *NET, "-o", tmp_path / "run"]
    assert cli(*argv, "--seed", SEED).code == 0
    return tmp_path / "run", [*argv, "--seed", SEED + 1, "--overwrite"]


def meanwhile(monkeypatch, where, name, act):
    """Let something happen once while a stage works."""
    real, acted = getattr(where, name), []

    def call(*arguments, **named):
        result = real(*arguments, **named)
        if not acted:
            acted.append(1)
            act()
        return result

    monkeypatch.setattr(where, name, call)


STAGES = {
    "attack": (["attack", "--attack", "fgsm", "--limit", 10, "-q"], Evaluation, "run"),
    "softlabels": (["softlabels", "-q"], Labelling, "_describe"),
}


@pytest.mark.parametrize("out", [[], ["-o", "elsewhere.h5"]])
@pytest.mark.parametrize("stage", STAGES)
def test_row_41_a_checkpoint_that_is_replaced_while_it_is_used(
    cli, two, monkeypatch, tmp_path, stage, out
):
    """What was made of the old one is not put beside the new one; the same command then is."""
    from advkit.__main__ import main

    monkeypatch.chdir(tmp_path)
    (folder, other), (words, where, name) = two, STAGES[stage]
    words = [words[0], folder / "best.safetensors", *words[1:], *out]
    with monkeypatch.context() as patch:
        meanwhile(patch, where, name, lambda: main([str(word) for word in other]))
        done = cli(*words)
    lines = done.out.splitlines()  # the record of the training that was put between
    assert (done.code, [json.loads(line)["kind"] for line in lines]) == (4, ["checkpoint"])
    assert "best.safetensors was replaced or removed while it was in use" in done.err
    assert list(tmp_path.rglob("*.h5")) == []
    again = cli(*words)
    assert again.code == 0, again.err
    now = artifact.read_info(folder / "best.safetensors")["digest"]
    (made,) = tmp_path.rglob("*.h5")
    assert artifact.read_info(made)["parents"][0]["digest"] == now


@pytest.mark.parametrize("gone", [False, True])
def test_row_41_a_checkpoint_that_is_replaced_before_it_is_loaded(
    cli, two, monkeypatch, tmp_path, gone
):
    """The attack's settings come from the checkpoint: they are that one's, or none."""
    from advkit.evaluation import stage

    folder, _ = two
    shutil.copytree(folder, tmp_path / "other")
    assert cli(*two[1]).code == 0
    best = folder / "best.safetensors"

    def act():
        best.unlink() if gone else shutil.copy(tmp_path / "other" / best.name, best)

    meanwhile(monkeypatch, stage, "settings_of", act)
    done = cli("attack", best, "--attack", "fgsm", "--limit", 10, "-q")
    assert (done.code, done.out) == (3 if gone else 4, ""), done.err
    assert list(tmp_path.rglob("*.h5*")) == []

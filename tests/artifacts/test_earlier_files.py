"""What commit 1b40821 wrote is read, merged and gone on with; see `tests/earlier/README.md`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from advkit.artifacts import artifact

EARLIER = Path(__file__).parents[1] / "earlier"
FILES = {
    "teacher/best.safetensors": "checkpoint", "teacher/final.safetensors": "checkpoint",
    "run/best.safetensors": "checkpoint", "labels.h5": "labels",
    "labels.shard-1-of-2.h5": "labels", "labels.shard-2-of-2.h5": "labels",
    "logits.h5": "logits", "logits.shard-1-of-2.h5": "logits", "logits.shard-2-of-2.h5": "logits",
    "calibration.json": "analysis",
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with copies of the files, as the working directory."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")
    return tmp_path / "earlier"


@pytest.mark.parametrize("name", FILES)
def test_each_is_read_and_whole(cli, here, name):
    done = cli("inspect", name)
    assert done.code == 0, done.err
    assert done.record["kind"] == FILES[name]
    assert done.record["whole"] is True


@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_shards_are_joined_to_the_whole_of_then(cli, here, kind):
    stage = {"labels": "softlabels", "logits": "attack"}[kind]
    shards = [f"{kind}.shard-{number}-of-2.h5" for number in (1, 2)]
    then = artifact.read_info(here / f"{kind}.h5")["digest"]
    done = cli(stage, "--merge", *shards, "-o", "merged.h5", "-q")
    assert done.code == 0, done.err
    assert done.record["path"] == "merged.h5"
    if kind == "labels":  # PGD's random starts are those of a shard; a teacher's answers are not
        assert done.record["digest"] == then


@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_merging_once_more_finds_the_whole(cli, here, kind):
    stage = {"labels": "softlabels", "logits": "attack"}[kind]
    shards = [f"{kind}.shard-{number}-of-2.h5" for number in (1, 2)]
    done = cli(stage, "--merge", *shards, "-o", f"{kind}.h5")
    assert done.code == 0, done.err
    assert "already done" in done.err
    assert done.record["digest"] == artifact.read_info(EARLIER / f"{kind}.h5")["digest"]


@pytest.mark.parametrize("command", [
    ["softlabels", "teacher/best.safetensors", "--dtype", "float16", "--top-k", 2,
     "-o", "labels.h5"],
    ["attack", "teacher/best.safetensors", "--attack", "pgd", "--steps", 2, "--limit", 20,
     "--batch-size", 10, "--loss", "ce", "-o", "logits.h5"],
    ["analyze", "calibration", "logits.h5", "-o", "calibration.json", "--overwrite"],
])  # fmt: skip
def test_the_stages_take_them(cli, here, command):
    done = cli(*command)
    assert done.code == 0, done.err
    if command[0] != "analyze":
        assert "already done" in done.err


def test_the_run_goes_on_to_its_end(cli, here):
    """Which files and rows there are then, not what the rest of the epochs teaches."""
    done = cli("train", "--resume", "-o", "run", "--threads", 1, "-q")
    assert done.code == 0, done.err
    assert done.record["method"] == "ltd"
    assert Path("run/final.safetensors").exists()
    assert not Path("run/state.safetensors").exists()
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    then = (EARLIER / "run/metrics.jsonl").read_text()
    assert Path("run/metrics.jsonl").read_text().startswith(then)
    # It goes on as it began: TRADES' clean pass counted once, the attack's start clipped.
    config = artifact.read_info(Path("run/final.safetensors"))["config"]
    assert (config["bn_passes"], config["clip_start"]) == ("ca", True)

"""ADR's experiments and checks with a stand-in for `advkit`: what is run, and what again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[1] / "recipes"
STAND_IN = r"""#!/usr/bin/env bash
# Notes its arguments and leaves what the stage would leave.
set -eu
echo "$*" >> "$CALLS"
case "$*" in *"${FAILS:-nothing}"*) exit 1 ;; esac
stage=$1 out='' points='best final'
for word; do
    case $word in *-wa) points='best final best-ema final-ema' ;; esac
    [ "${last:-}" != -o ] || out=$word
    last=$word
done
case $stage in
    train)
        mkdir -p "$out"
        for point in $points; do
            [ -e "$out/$point.safetensors" ] || echo x > "$out/$point.safetensors"
        done ;;
esac
echo '{}'
"""


class Bench:
    """A folder with a name that asks for care, and the stand-in on the path."""

    def __init__(self, place: Path) -> None:
        (place / "bin").mkdir()
        (place / "bin" / "advkit").write_text(STAND_IN)
        (place / "bin" / "advkit").chmod(0o755)
        self.place, self.out, self.calls = place, place / "it's a & b", place / "calls"

    def start(self, name: str = "adr-experiments", **more: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        environment = {
            **os.environ, "CALLS": str(self.calls), "RUNS": "only", "JOBS": "1",
            "PATH": f"{self.place / 'bin'}{os.pathsep}{os.environ['PATH']}", **more,
        }  # fmt: skip
        return subprocess.run(
            ["bash", str(RECIPES / f"{name}.sh"), str(self.out)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def done(self, stage: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith(stage)]


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def images(
    root: Path, count: int = 100, name: str = "a-name-as-long-as-they-are-in-archives"
) -> str:
    for split in ("train", "test"):
        for kind in ("ant", "bee"):
            (root / split / kind).mkdir(parents=True)
            for number in range(count):
                (root / split / kind / f"{name}-{number:04}.png").touch()
    return f"folder:{root}"


def test_every_row_is_trained_and_attacked_once(bench):
    assert bench.start(SMOKE="1", SEEDS="0 1").returncode == 0
    rows = 5
    assert len(bench.done("train")) == 2 * rows
    assert len([line for line in bench.done("attack") if "--autoattack" in line]) == 2 * 2


def test_only_averages_and_adr_have_a_decay(bench):
    bench.start(SMOKE="1")
    for line in bench.done("train"):
        method = line.split("--method ")[1].split()[0]
        assert ("--ema-decay" in line) == (method.endswith("-wa") or "adr" in method)


def test_a_second_start_does_nothing_again(bench):
    bench.start(SMOKE="1")
    assert bench.start(SMOKE="1").returncode == 0
    assert bench.done("train") == bench.done("attack") == []


def test_what_failed_is_run_again_and_nothing_else(bench):
    failed = bench.start(SMOKE="1", FAILS="adr-tau-s0/best.safetensors")
    assert failed.returncode == 1
    assert "some runs failed" in failed.stderr
    assert not (bench.out / "adr-tau-s0.done").exists()
    assert bench.start(SMOKE="1").returncode == 0
    assert ["adr-tau-s0" in line for line in bench.done("train")] == [True]
    assert {"adr-tau-s0" in line for line in bench.done("attack")} == {True}


def test_hours_are_records(bench):
    bench.start(SMOKE="1")
    records = [json.loads(line) for line in (bench.out / "hours.jsonl").read_text().splitlines()]
    assert {record["what"] for record in records} == {
        "train",
        "pgd",
        "fast",
        "autoattack",
    }
    settings = json.loads((bench.out / "summary" / "settings.json").read_text())
    assert settings["scale"] == "smoke"


def test_recipes_of_one_folder_share_runs(bench):
    bench.start("adr-experiments", SMOKE="1")
    bench.start("adr-checks", SMOKE="1")
    assert sorted(line.split("-o ")[1].split("/")[-1] for line in bench.done("train")) == [
        "adr-constant-s0", "adr-end-s0", "adr-linear-s0", "adr-logits-4-s0", "adr-step-s0",
        "adr-weights-s0",
    ]  # fmt: skip


def test_the_first_images_of_each_class_are_linked(bench, tmp_path):
    data = images(tmp_path / "data", count=120)
    done = bench.start(SCALE="cpu", DATA=data)
    assert done.returncode == 0, done.stderr
    for split, count in (("train", 70), ("test", 100)):
        for kind in ("ant", "bee"):
            links = sorted((bench.out / "images" / split / kind).iterdir())
            assert [path.name[-8:] for path in links] == [f"{n:04}.png" for n in range(count)]
            assert all(path.is_symlink() and path.exists() for path in links)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give DATA=folder:DIR"),
        ({"DATA": "cifar10"}, "give DATA=folder:DIR"),
        ({"SCALE": "tpu"}, "cpu or gpu"),
    ],
)
def test_what_is_missing_is_said(bench, settings, words):
    done = bench.start(**settings)
    assert done.returncode == 2
    assert words in done.stderr
    assert bench.done("train") == []


def test_too_few_or_other_images_are_refused(bench, tmp_path):
    few = bench.start(DATA=images(tmp_path / "few", count=50))
    assert (few.returncode, "wanted 70 images" in few.stderr) == (2, True)
    assert bench.start(DATA=images(tmp_path / "one")).returncode == 0
    other = bench.start(DATA=images(tmp_path / "other"))
    assert (other.returncode, "name another FOLDER" in other.stderr) == (2, True)

"""The study with stand-ins for `advkit` and for what packs: what is run, and what again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
ADVKIT = r"""#!/usr/bin/env bash
# Notes its arguments and leaves what the stage would leave.
set -eu
echo "$*" >> "$CALLS"
case "$*" in *"${FAILS:-nothing}"*) exit 1 ;; esac
for word; do
    [ "${last:-}" != -o ] || out=$word
    last=$word
done
case $1 in
    train | pretrain-teacher)
        mkdir -p "$out"
        for point in best final best-ema final-ema; do echo x > "$out/$point.safetensors"; done ;;
    softlabels) echo x > "$out" ;;
esac
echo '{}'
"""
PYTHON = r"""#!/usr/bin/env bash
# Has advkit; has Optuna only where it is told so; packs what it is asked into a summary.
set -eu
case "$*" in
    *optuna*) [ -n "${OPTUNA:-}" ]; exit ;;
    '-c import advkit') exit ;;
esac
echo "pack $*" >> "$CALLS"
asked='' kind=$2
for word; do
    case ${last:-} in --asked) asked=$word ;; --out) out=$word ;; esac
    last=$word
done
case $kind in
    numbers) echo '{"options": "--tau 2:1 --lambda 0.3:0.5 --ema-decay 0.97"}' > "$out" ;;
    *) printf '{\n "asked": "%s"\n}\n' "$asked" > "$out" ;;
esac
"""


class Bench:
    """A folder with a name that asks for care, and the stand-ins."""

    def __init__(self, place: Path) -> None:
        (place / "bin").mkdir()
        for name, text in (("advkit", ADVKIT), ("python", PYTHON)):
            (place / "bin" / name).write_text(text)
            (place / "bin" / name).chmod(0o755)
        self.place, self.out, self.calls = place, place / "it's a & b", place / "calls"

    def start(self, **more: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        environment = {
            **os.environ, "CALLS": str(self.calls), "JOBS": "1", "SMOKE": "1",
            "PYTHON": str(self.place / "bin" / "python"),
            "PATH": f"{self.place / 'bin'}{os.pathsep}{os.environ['PATH']}", **more,
        }  # fmt: skip
        return subprocess.run(
            ["bash", str(RECIPES / "study.sh"), str(self.out)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def done(self, *stages: str) -> list[str]:
        lines = self.calls.read_text().splitlines()
        return [line for line in lines if line.startswith(stages)]

    def trained(self) -> list[str]:
        return [line.split("-o ")[1] for line in self.done("train", "pretrain-teacher")]

    def summaries(self) -> list[str]:
        return sorted(path.stem for path in (self.out / "summary").glob("*.json"))


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    sys.path.insert(0, str(ROOT / "tools" / "docs"))
    try:
        from study import asked
    finally:
        sys.path.remove(str(ROOT / "tools" / "docs"))
    return SimpleNamespace(claims=asked.read(ROOT / "docs" / "results" / "claims.toml"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> list[list[str]]:
    """The lines of the whole plan, where the search has found its numbers."""
    place = Bench(tmp_path_factory.mktemp("plan"))
    (place.out / "summary").mkdir(parents=True)
    for size in ("S", "M"):
        found = '{"options": "--tau 2:1 --lambda 0.3:0.5 --ema-decay 0.97"}'
        (place.out / "summary" / f"{size}-numbers.json").write_text(found)
    done = place.start(PLAN="1", ROUNDS="0 1 2 3 4 5", ROWS="all")
    assert done.returncode == 0, done.stderr
    assert place.calls.read_text() == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_one_size_is_the_part_of_the_plan_that_names_it(plan, tmp_path):
    small = Bench(tmp_path)
    (small.out / "summary").mkdir(parents=True)
    (small.out / "summary" / "S-numbers.json").write_text('{"options": "--tau 2:1"}')
    done = small.start(PLAN="1", ROUNDS="0 1 2 3 4 5", ROWS="all", SIZES="S")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [words[:4] for words in lines] == [words[:4] for words in plan if words[1] == "S"]


def rows(lines: list[list[str]]) -> Counter[tuple[str, str]]:
    """Return how many seeds below 20 each row has: (size, run)."""
    return Counter(
        (words[1], words[2]) for words in lines if words[0] == "one" and int(words[3]) < 20
    )


def test_the_plan_has_the_rows_and_seeds_that_were_written_down(plan, study):
    found = rows(plan)
    eight = {"natural", "at", "adr", "trades", "trades-adr"}
    small = {"rslad", "score", "ikl", "sat", "te"}
    for (size, run), seeds in found.items():
        assert seeds == (8 if run in eight else 4), (size, run)
        assert size == "S" or run not in small
    asked = {(term.size, term.row) for test in study.claims.tests for term in test.terms}
    assert {(size, row.split("/")[0]) for size, row in asked} == set(found)
    for size, row in asked:  # the checkpoint that a claim asks for is attacked
        run, point = row.split("/")
        lines = [words for words in plan if words[:3] == ["one", size, run] and int(words[3]) < 4]
        assert all(point in words[4].split(",") for words in lines)


def test_the_figures_that_claims_ask_for_are_made(plan, study):
    kinds = {"ood_entropy": "ood", "discrepancy": "oracle", "rise": "rise"}
    for test in study.claims.tests:
        if test.measure in ("robust", "clean"):
            continue
        for term in test.terms:
            run = ["one", term.size, term.row.split("/")[0], "0"]
            (line,) = [words for words in plan if words[:4] == run]
            assert kinds.get(test.measure, "pgd") in line[5].split(","), run


def test_seeds_are_outermost(plan):
    """Where a row with four seeds has its k-th, all with eight have had 2k - 1 or more."""
    for place, words in enumerate(plan):
        if words[0] == "one" and words[2] == "ltd-T2":
            before = rows(plan[:place])
            assert before["S", "adr"] == before["M", "trades-adr"] == 2 * (int(words[3]) + 1)


def test_autoattack_is_for_three_seeds_of_six_rows(plan):
    assert sum(words[0] == "autoattack" for words in plan) == 2 * 3 * 6


def test_held_out_seeds_are_no_others(plan):
    held = {int(words[3]) for words in plan if words[0] == "one"} - set(range(8))
    assert held == {20, 21, 22, 23}


FEW = "at ltd-T2 rslad"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Bench:
    """Three rows of round 0, done; not to be changed."""
    bench = Bench(tmp_path_factory.mktemp("whole"))
    done = bench.start(ROWS=FEW)
    assert done.returncode == 0, done.stderr
    return bench


@pytest.fixture
def done(whole, bench) -> Bench:
    """A copy of it in another folder."""
    shutil.copytree(whole.out, bench.out)
    return bench


def test_a_run_is_trained_attacked_and_packed(whole):
    assert sorted(whole.trained()) == [
        "M-at-s0", "M-at-s1", "M-ltd-T2-s0", "M-natural-s0", "S-at-s0", "S-at-s1", "S-ltd-T2-s0",
        "S-natural-s0", "S-rslad-s0",
    ]  # fmt: skip
    own = [line for line in whole.done("attack") if "S-ltd-T2-s0/" in line]
    assert ["apgd-ce --steps" in own[0], "apgd-t --steps" in own[1], len(own)] == [True, True, 2]
    text = (whole.out / "summary" / "hours.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert {"train", "apgd-ce", "apgd-t", "pgd", "photos", "softlabels"} <= {
        record["what"] for record in records
    }
    assert all(record["user"] >= 0 for record in records)


def test_a_student_has_its_own_seed_s_teacher(whole):
    for line in whole.done("train"):
        size, seed = re.search(r"-o ([SM])-\S+-s(\d+)$", line).groups()
        if "--method ltd" in line:
            assert f"--soft-labels {size}-labels-s{seed}.h5" in line
        if "--method rslad" in line:
            assert f"--teacher {size}-at-s{seed}/best.safetensors" in line


def test_moved_it_does_nothing_again(done):
    assert done.start(ROWS=FEW).returncode == 0
    assert done.done("") == []


def test_what_failed_is_gone_on_with_in_another_folder(bench):
    failed = bench.start(
        ROWS=FEW, FAILS="apgd-t --steps 3 --targets 3 --limit 60 --data digits S-rslad"
    )
    assert failed.returncode == 1
    assert "some runs failed" in failed.stderr
    shutil.move(bench.out, bench.place / "elsewhere")
    bench.out = bench.place / "elsewhere"
    assert bench.start(ROWS=FEW).returncode == 0
    assert bench.trained() == ["S-rslad-s0"]  # which goes on, or is found done
    assert str(bench.place) not in "\n".join(bench.done("train", "attack", "softlabels"))


def test_another_machine_goes_on_from_summaries(whole, bench):
    committed = bench.place / "committed"
    shutil.copytree(whole.out / "summary", committed)
    for name in ("S-rslad-s0", "M-ltd-T2-s0"):
        (committed / f"{name}.json").unlink()
    assert bench.start(ROWS=FEW, KNOWN=str(committed)).returncode == 0
    # What they rest on is made again, and nothing else.
    assert sorted(bench.trained()) == ["M-ltd-T2-s0", "M-natural-s0", "S-at-s0", "S-rslad-s0"]
    assert len(bench.done("softlabels")) == 1


def test_other_settings_are_another_run(done):
    path = done.out / "summary" / "S-at-s0.json"
    path.write_text(path.read_text().replace("--epochs 2", "--epochs 3"))
    done.start(ROWS=FEW)
    assert done.trained() == ["S-at-s0"]


def test_no_run_is_begun_when_time_is_up(bench):
    done = bench.start(TIME="0")
    assert done.returncode == 0
    assert bench.trained() == []
    assert re.search(r"no time was left for \d+ runs: run it again to go on", done.stderr)


def test_without_optuna_the_search_is_left_out_and_said(bench):
    done = bench.start(ROWS="adr-searched")
    assert "lacks optuna" in done.stderr
    assert bench.done("train") == []
    bench.start(ROWS="adr-searched", OPTUNA="1")
    assert len(bench.done("search adr")) == 2
    (line,) = [each for each in bench.done("train") if "S-adr-searched-s0" in each]
    assert line.index("--ema-decay 0.9 ") < line.index("--ema-decay 0.97")


def images(root: Path, train: int, test: int = 200) -> str:
    for kind in ("ant", "bee"):
        for split, count in (("train", train), ("test", test)):
            (root / split / kind).mkdir(parents=True)
            for number in range(count):
                (root / split / kind / f"it's {number:04}.jpg").touch()
    return f"folder:{root}"


def test_no_two_seeds_share_an_image_and_all_share_the_test(bench, tmp_path):
    """Seeds 0 and 1 of both sizes."""
    data = images(tmp_path / "data", 900)
    done = bench.start(SMOKE="", DATA=data, ROWS="at", ROUNDS="0")
    assert done.returncode == 0, done.stderr
    for size, count in (("S", 100), ("M", 450)):
        lots = [bench.out / "images" / f"{size}-s{seed}" for seed in (0, 1)]
        trained = [{path.name for path in (lot / "train" / "bee").iterdir()} for lot in lots]
        assert [len(each) for each in trained] == [count, count]
        assert not trained[0] & trained[1]
        tests = [sorted(path.name for path in (lot / "test" / "ant").iterdir()) for lot in lots]
        assert tests[0] == tests[1] == [f"it's {n:04}.jpg" for n in range(200)]
        assert all(path.exists() for path in (lots[0] / "train" / "ant").iterdir())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SMOKE": ""}, "give DATA=folder:DIR"),
        ({"SMOKE": "", "DATA": "cifar10"}, "give DATA=folder:DIR"),
        ({"SMOKE": "", "DATA": "folder:/not/there"}, "/not/there is not there"),
        ({"TIME": "6h"}, "minutes, a whole number"),
        ({"ROUNDS": "7"}, "none of 0 to 5"),
        ({"PYTHON": "false"}, "has no advkit"),
    ],
)
def test_what_is_missing_or_wrong_is_said(bench, settings, words):
    done = bench.start(**settings)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert bench.done("train") == []


def test_too_few_images_are_refused(bench, tmp_path):
    few = bench.start(SMOKE="", DATA=images(tmp_path / "few", 120), ROWS="at")
    assert few.returncode == 2
    assert "wanted 450 images after the first 0" in few.stderr

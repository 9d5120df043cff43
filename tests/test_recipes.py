"""Every recipe runs as a trial; `make test-slow` runs them, the rest is quick."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "recipes"
TABLES = {
    # recipe: methods in its trial, in the table's order
    "adr-table1": ["at", "adr", "trades", "trades-adr"],
    "adr-table2": ["at", "at-wa", "at-awp-wa", "adr", "adr-wa", "adr-awp-wa"],
    "adr-table3": ["adr-awp-wa", "adr-awp-wa"],
    "adr-table4": ["trades", "trades-wa", "trades-awp-wa", "trades-adr", "trades-adr-wa",
                   "trades-adr-awp-wa"],
    "adr-table5": ["at", "adr-wa", "adr-awp-wa"],
    "adr-table6": ["at", "adr", "at-awp", "adr-awp"],
    "adr-table7": ["at", "adr"],
    "compare": ["at", "trades", "mart", "ls", "adr", "trades-adr", "score", "ikl", "ltd", "rslad",
                "ard", "adaad", "igdm", "saad", "iad", "hat", "kd", "sat", "te"],
    "ltd-table1": ["trades", "trades-awp", "ltd", "ltd-awp"],
    "ltd-table2": ["trades-awp", "ltd-awp"],
    "ltd-table3": ["trades", "ltd"],
    "ltd-table4": ["trades", "ltd", "natural+soft"],
    "ltd-table5": ["ltd-awp"],
    "ltd-table6": ["ltd-awp"],
}  # fmt: skip
OTHERS = {
    "adr-checks": "summary/checks/fast.csv",
    "adr-experiments": "summary/experiments/fast.csv",
    "adr-figure5": "grid.csv",
    "adr-figures": "figure7-s0.png",
    "digits-demo": "table.csv",
    "gallery": "pictures/masking.png",
    "ltd-temperature": "temperature.csv",
    "study": "summary/S-rslad-s0.json",
}
COUNT = 22


def recipes() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.sh") if not path.stem.startswith("_"))


def go(
    name: str, folder: Path | str, of: Path = RECIPES, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "SMOKE": "1", "JOBS": "1", "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more,
    }  # fmt: skip
    return subprocess.run(
        [str(of / f"{name}.sh"), str(folder)],
        cwd=of, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_recipe_is_known():
    assert len(recipes()) == COUNT
    assert set(recipes()) == TABLES.keys() | OTHERS.keys()


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_can_be_run_and_says_how(name):
    path = RECIPES / f"{name}.sh"
    assert os.access(path, os.X_OK)
    head = path.read_text(encoding="utf-8").splitlines()
    assert head[0] == "#!/usr/bin/env bash"
    assert any(f" {name}.sh [FOLDER]" in line for line in head[:8])
    assert "SMOKE" in "".join(head[:20])


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_a_trial_ends_in_its_table(cli, name, tmp_path):
    """Of a copy, in its own folder: a recipe needs nothing else of the checkout."""
    own = tmp_path / "a folder of my own"
    assert cli("recipes", "copy", name, own).code == 0
    folder = own / f"{name} with space and ' quote"
    done = go(name, folder.name, of=own)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    if name in OTHERS:
        assert (folder / OTHERS[name]).stat().st_size > 0
        return
    cost = name == "adr-table6"
    record = json.loads((folder / ("cost.jsonl" if cost else "table.jsonl")).read_text())
    if cost:
        lines = (folder / "cost.csv").read_text().splitlines()
        assert [line.split(",")[3] for line in lines[1:]] == TABLES[name]
        return
    groups = record["groups"]
    assert [group["method"] for group in groups] == TABLES[name]
    for group in groups:
        assert group["seeds"] == 1
        for figure in ("best", "final", "difference"):
            for kind in ("robust", "clean"):
                assert group[f"{kind}_{figure}_mean"] is not None
        assert group["weights"] == ("average" if group["method"].endswith("-wa") else "student")


@pytest.mark.slow
def test_a_recipe_goes_on_where_it_was(tmp_path):
    first = go("ltd-table2", tmp_path / "run")
    assert first.returncode == 0, first.stderr
    table = (tmp_path / "run" / "table.csv").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}
    again = go("ltd-table2", tmp_path / "run")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "table.csv").read_bytes() == table
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_methods_of_ones_own_are_compared(cli, tmp_path):
    assert cli("parts", "new", "labels", "halved", tmp_path / "mine").code == 0
    more = {"METHODS": "at at+halved", "ADVKIT_PARTS": str(tmp_path / "mine")}
    done = go("compare", tmp_path / "run", **more)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "table.jsonl").read_text())
    assert [group["method"] for group in record["groups"]] == ["at", "at+halved"]


def test_an_unknown_method_is_no_row_of_a_comparison(tmp_path):
    done = go("compare", tmp_path / "run", METHODS="at nope")
    assert done.returncode == 2
    assert "unknown method 'nope'" in done.stderr


@pytest.mark.parametrize("name", ["ltd-table2", "ltd-table3", "ltd-table6"])
def test_what_the_paper_leaves_open_must_be_given(name, tmp_path):
    done = go(name, tmp_path / "run", SMOKE="")
    assert done.returncode == 2
    assert "give TEMPERATURE=" in done.stderr


def test_ltds_code_has_no_numbers_for_imagenet(tmp_path):
    """Said before a teacher is trained for them."""
    done = go("ltd-table3", tmp_path / "run", SMOKE="", PRESET="repo", TEMPERATURE="1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "PRESET=repo" in done.stderr


def test_rows_keep_paths_whole(tmp_path):
    """As `xargs` reads them back from the plan; no path makes a run's name differ."""
    labels, extra = "o'u/a \"b\\c é.h5", "two words.npz"
    script = (
        'source "$1"; start "$2"; seeds="0 1"; row "npz:/a b" resnet8 ltd --soft-labels "$3" '
        '--beta 3; row digits small-cnn at --extra-data "$4"; '
        'xargs -L 1 bash -c \'printf "%s\\0" "$@"; printf "\\n\\0"\' _ < "$plan"'
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script, "_", str(RECIPES / "_table.sh"),
         str(tmp_path / "out"), labels, extra],
        capture_output=True, text=True, check=True, env={**os.environ, "SMOKE": ""},
    )  # fmt: skip
    rows = [row.strip("\0").split("\0") for row in done.stdout.split("\n") if row.strip("\0")]
    assert [row[0] for row in rows] == [
        "npz-a-b-resnet8-ltd-beta-3-s0", "npz-a-b-resnet8-ltd-beta-3-s1",
        "digits-small-cnn-at-extra-s0", "digits-small-cnn-at-extra-s1",
    ]  # fmt: skip
    assert rows[1][1:] == [
        "--data", "npz:/a b", "--arch", "resnet8", "--method", "ltd", "--seed", "1",
        "--soft-labels", labels, "--beta", "3",
    ]  # fmt: skip
    assert rows[2][-2:] == ["--extra-data", extra]


def sourced(script: str, *words: object, **more: str) -> str:
    """Run lines of bash after `_table.sh`, which is their $1; return what they print."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'source "$1"\n{script}', "_",
         str(RECIPES / "_table.sh"), *map(str, words)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "SMOKE": "", "PATH":
             f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more},
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("data", "preset"),
    [
        ("", "--preset paper"),
        ("cifar10 cifar100", "--preset paper"),
        ("tinyimagenet", "--preset paper"),
        ("digits", ""),
        ("folder:/sets/cifar10", ""),
        ("npz:a.npz svhn", ""),
    ],
)
def test_only_the_papers_data_have_a_preset(tmp_path, data, preset):
    """A preset that has no numbers for the data would refuse every row."""
    assert sourced('start "$2"; echo "$preset"', tmp_path, DATA=data) == f"{preset}\n"


@pytest.mark.parametrize(
    ("data", "arch", "model", "preset"),
    [
        ("cifar10", "wrn-34-10", "ltd", "paper"),
        ("cifar100", "wrn-34-10", "ltd-awp", "repo"),
        ("imagenet", "resnet50", "ltd", "paper"),
    ],
)
def test_trades_is_trained_with_ltds_settings(cli, tmp_path, data, arch, model, preset):
    """All but what makes the method: labels, their temperature, and the attack's loss."""
    method = model.replace("ltd", "trades")
    script = 'start "$2"; twin "$3" "$4" "$5" "$6"; cat "$plan"'
    (row,) = sourced(
        script, tmp_path / "out", data, arch, method, model, DATA=data, PRESET=preset
    ).splitlines()
    name, *words = row.split(" ")
    assert name == f"{data}-{arch}-{method}-inner-kl-s0"
    asked = ["--preset", preset, "--data", data, "--arch", arch, "--method", model,
             "--soft-labels", "x", "--temperature", "3"]  # fmt: skip
    ltd, trades = (
        tomllib.loads(cli("train", "--print-config", *line).out) for line in (asked, words)
    )
    differing = {key for key in ltd.keys() | trades.keys() if ltd.get(key) != trades.get(key)}
    assert differing - {"inner"} == {"method", "labels", "soft_labels", "temperature"}
    assert (trades["method"], trades["inner"]) == (method, "kl")
    epochs, steps = (90, 6) if data == "imagenet" else (120, 8)
    assert (trades["epochs"], trades["attack_steps"], trades["normalise"]) == (epochs, steps, False)
    assert trades["awp_warmup"] == (10 if model == "ltd-awp" else 0)


def test_ltds_last_temperature_is_that_of_a_natural_substitute(tmp_path):
    """Table 4's T = 50 is the first step of the search, with the teacher's settings."""
    script = """label() { labels=$out/labels.h5; }
        work() { cat "$plan"; exit; }
        shift; source "$1"
    """
    recipe = tmp_path / "ltd-table4.sh"  # but for what would train
    text = (RECIPES / "ltd-table4.sh").read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"^source .*$", "", text, flags=re.MULTILINE), encoding="utf-8")
    out = tmp_path / "out"
    rows = sourced(f'{script.strip()} "$2"', recipe, out, TEMPERATURES="20 50").splitlines()
    assert [row.split("--method ")[1].split()[0] for row in rows] == [
        "trades", "ltd", "natural+soft",
    ]  # fmt: skip
    values = tomllib.loads((out / "cifar10-wrn-34-10-like-natural.toml").read_text())
    assert (values["objective"], values["epochs"], values["attack_steps"]) == ("natural", 120, 0)
    assert rows[-1].endswith(f"--soft-labels {out}/labels.h5 --temperature 50")


def test_settings_from_a_file_are_not_the_presets(tmp_path):
    """`one` passes the preset on, but not beside a file, whose data no preset need know."""
    script = """advkit() { echo "$*" >&3; echo '{}'; }
        preset='--preset paper' train='' attack='--attack pgd' limit='' list=''
        out=$2
        { one a --method at; one b --config file.toml --method trades; } 3>&1 2> /dev/null
    """
    trained = [line for line in sourced(script, tmp_path).splitlines() if line.startswith("train")]
    assert ["--preset paper" in line for line in trained] == [True, False]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"FIGURES": "1 3", "OOD": "photos"}, 'FIGURES="1 2 4 6 7", not 3'),
        ({"DATA": "folder:/sets/own"}, "give OOD="),
    ],
)
def test_figures_are_checked_before_anything_is_trained(tmp_path, more, words):
    done = go("adr-figures", tmp_path / "run", **more)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert words in done.stderr


def test_extra_data_must_be_given(tmp_path):
    done = go("adr-table3", tmp_path / "run", SMOKE="")
    assert done.returncode == 2
    assert "give EXTRA=" in done.stderr


@pytest.mark.parametrize("name", recipes())
def test_help_is_the_head_of_the_script(cli, name, tmp_path):
    assert cli("recipes", "copy", name, tmp_path / "my own").code == 0
    done = go(name, "--help", of=tmp_path / "my own")
    assert (done.returncode, done.stderr) == (0, "")
    assert f" {name}.sh [FOLDER]" in done.stdout
    assert "set -euo" not in done.stdout


def test_a_failed_run_fails_the_recipe_and_keeps_old_records(tmp_path):
    (tmp_path / "digits-small-cnn-at-s0.jsonl").write_text("old\n")
    done = go("adr-table1", tmp_path, METHODS="at", TRAIN="--lr 0")
    assert done.returncode == 1
    assert "--lr 0.0 is not in (0, 1e30]" in done.stderr
    assert "no table" in done.stderr
    assert not (tmp_path / "table.csv").exists()
    assert (tmp_path / "digits-small-cnn-at-s0.jsonl").read_text() == "old\n"

"""`advkit recipes`: what there is, and copies that never take another file's place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from advkit import registry
from advkit.cli import recipes

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "recipes"
HELPERS = {
    "adr-table1": {"_table.sh"},
    "adr-checks": {"_study.sh", "_summary.sh"},
    "study": {"_sizes.sh", "_pack.py"},
    "gallery": set(),
}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_every_script_is_listed_with_a_sentence(cli):
    outcome = cli("recipes", "list")
    assert (outcome.code, outcome.err) == (0, "")
    lines = dict(line.split("\t") for line in outcome.out.splitlines())
    scripts = {path.stem for path in SCRIPTS.glob("*.sh") if not path.stem.startswith("_")}
    scripts |= {f"slurm/{path.stem}" for path in SCRIPTS.glob("slurm/*")}
    assert lines.keys() == scripts
    assert lines["adr-table1"].startswith("ADR's Table 1: AT and TRADES")
    assert all(line.endswith(".") for line in lines.values())


@pytest.mark.parametrize("name", HELPERS)
def test_a_copy_brings_what_it_sources(cli, tmp_path, name):
    into = tmp_path / "not there yet" / "tables"
    outcome = cli("recipes", "copy", name, into)
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{into}/{name}.sh\n", "")
    found = contents(into)
    assert found.keys() == {f"{name}.sh"} | HELPERS[name]
    assert all(text == (SCRIPTS / each).read_text("utf-8") for each, text in found.items())
    assert [path.name for path in into.iterdir() if os.access(path, os.X_OK)] == [f"{name}.sh"]


def test_every_helper_goes_with_some_recipe():
    needed = {path for recipe in recipes.recipes().values() for path in recipes.needed(recipe)}
    assert needed == {path for path in SCRIPTS.rglob("*") if path.is_file()}


def test_the_folder_is_the_current_one_by_default(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("recipes", "copy", "slurm/node").out == "slurm/node.sbatch\n"
    assert os.access("slurm/node.sbatch", os.X_OK)


def test_the_same_again_is_already_done(cli, tmp_path):
    first = cli("recipes", "copy", "adr-table1", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = cli("recipes", "copy", "adr-table1", tmp_path)
    assert (again.code, again.out) == (0, first.out)
    assert again.err == f"advkit recipes copy: {tmp_path}/adr-table1.sh: already done\n"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert cli("recipes", "copy", "adr-table1", tmp_path, "-q").err == ""


def test_a_copy_that_lost_its_mode_gets_it_back(cli, tmp_path):
    cli("recipes", "copy", "adr-table1", tmp_path)
    (tmp_path / "adr-table1.sh").chmod(0o644)
    assert cli("recipes", "copy", "adr-table1", tmp_path).code == 0
    assert os.access(tmp_path / "adr-table1.sh", os.X_OK)


@pytest.mark.parametrize("mine", ["adr-table1.sh", "_table.sh"])
def test_another_file_is_never_replaced_unasked(cli, tmp_path, mine):
    (tmp_path / mine).write_text("mine\n")
    outcome = cli("recipes", "copy", "adr-table1", tmp_path)
    assert (outcome.code, outcome.out) == (4, "")
    assert len(outcome.err.splitlines()) == 1
    assert str(tmp_path / mine) in outcome.err
    assert "--overwrite" in outcome.err
    assert contents(tmp_path) == {mine: "mine\n"}
    assert cli("recipes", "copy", "adr-table1", tmp_path, "--overwrite").code == 0
    assert (tmp_path / mine).read_text("utf-8") == (SCRIPTS / mine).read_text("utf-8")


@pytest.mark.parametrize("target", ["kept.txt", "nowhere"])
def test_a_link_is_refused_and_not_followed(cli, tmp_path, target):
    (tmp_path / "kept.txt").write_text("kept\n")
    (tmp_path / "gallery.sh").symlink_to(target)
    assert cli("recipes", "copy", "gallery", tmp_path).code == 4
    outcome = cli("recipes", "copy", "gallery", tmp_path, "--overwrite")
    assert outcome.code == 6
    assert "gallery.sh: a link is in its place" in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.sh", "kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "kept\n"


def test_a_folder_in_the_place_of_a_file(cli, tmp_path):
    (tmp_path / "gallery.sh").mkdir()
    outcome = cli("recipes", "copy", "gallery", tmp_path, "--overwrite")
    assert outcome.code == 6
    assert "a folder is in its place" in outcome.err


def test_a_file_in_the_place_of_the_folder(cli, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = cli("recipes", "copy", "gallery", tmp_path / "file")
    assert outcome.code == 6
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["adr-tabel1"], "did you mean 'adr-table1'"),
        (["adr-table1.sh"], "did you mean 'adr-table1'"),
        (["_table"], "unknown recipe '_table'"),
        (["../recipes/gallery"], "unknown recipe"),
        ([], "name a recipe: adr-checks, "),
        (["gallery", "a", "b"], "one recipe and one folder"),
    ],
)
def test_wrong_words(cli, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    outcome = cli("recipes", "copy", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_recipes_in_the_package_come_first(tmp_path, monkeypatch):
    """As a wheel has them; a folder beside an installed package is somebody else's."""
    package = tmp_path / "advkit"
    for place in (package / "recipes", tmp_path / "recipes"):
        place.mkdir(parents=True)
        (place / "_table.sh").touch()
    monkeypatch.setattr(registry, "ROOT", package)
    assert recipes.folder() == package / "recipes"


def test_an_installation_without_recipes_says_so(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "ROOT", tmp_path / "advkit")
    outcome = cli("recipes", "list")
    assert (outcome.code, outcome.out) == (2, "")
    assert "install advkit again" in outcome.err


@pytest.mark.parametrize("missing", ["sys.modules['fcntl'] = None", "del signal.SIGUSR1"])
def test_a_system_without_locks_or_signals_is_refused_in_a_line(missing):
    code = f"import signal, sys\n{missing}\nfrom advkit.__main__ import main\nsys.exit(main([]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "on Windows use WSL" in done.stderr
    assert len(done.stderr.splitlines()) == 1

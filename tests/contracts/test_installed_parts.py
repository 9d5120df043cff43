"""An installed package's parts: found without import, used like advkit's own, missed when gone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from advkit import registry
from advkit.contracts import new
from advkit.registry import places
from tests.conftest import ROOT, TINY, Outcome

PARTS = {
    "labels/mild.py": "labels",
    "objectives/both.py": "objectives",
    "models/tiny_net.py": "models",
    "attacks/one_step.py": "attacks",
    "analyses/confidence.py": "analyses",
    "augment/shaken.py": "augment",
}
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "robust-extras"
version = "1.0"
[project.entry-points."advkit.parts"]
mine = "robust_extras.parts"
[tool.hatch.build.targets.wheel]
packages = ["robust_extras"]
"""


def source(root: Path) -> Path:
    """Write a package with a part of each shelf, which must not be imported to be found."""
    package = root / "robust_extras"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("import robust_extras_was_imported_too_early  # noqa\n")
    (package / "parts" / "__init__.py").write_text("")
    for place, shelf in PARTS.items():
        path = package / "parts" / place
        path.parent.mkdir()
        template = (new.TEMPLATES / f"{shelf}.txt").read_text(encoding="utf-8")
        path.write_text(template.replace("NAME", path.stem.replace("_", "-")))
    return package


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """The package with a `dist-info` beside it, on the path of this process."""
    package = source(tmp_path)
    info = tmp_path / "robust_extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robust-extras\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[advkit.parts]\nmine = robust_extras.parts\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] == "robust_extras"]:
        del sys.modules[name]
    registry.forget()


def test_a_package_is_found_without_import(cli, offered, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    out = cli("train", "--help").out
    for words in ("mild: A share of", "both: Cross-entropy on", "tiny-net: Two conv", "--filters"):
        assert words in out
    assert "robust_extras" not in sys.modules
    records = [r for r in cli("parts", "list").records if r["origin"] == "package"]
    assert {record["of"] for record in records} == {"robust-extras"}
    assert len(records) == len(list(offered.glob("parts/*/*.py")))


def test_a_package_that_hides_a_built_in_is_named(cli, offered):
    shutil.copy(
        offered / "parts" / "labels" / "mild.py", offered / "parts" / "labels" / "onehot.py"
    )
    outcome = cli("train", "--help")
    assert outcome.code == 2
    assert "onehot.py (package robust-extras) has the name of " in outcome.err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("robust_extras.elsewhere", "where no folder lies"),
        ("no_such_package.parts", "where no folder lies"),
        ("robust_extras.parts:names", "which is no module path"),
    ],
)
def test_a_package_whose_parts_are_not_there_is_named(cli, offered, value, words):
    info = offered.parent / "robust_extras-1.0.dist-info"
    (info / "entry_points.txt").write_text(f"[advkit.parts]\nmine = {value}\n")
    outcome = cli("presets")
    assert outcome.code == 2
    assert f"the package robust-extras offers parts in {value!r}, {words}" in outcome.err


def test_the_metadata_of_packages_is_read_where_one_offers_parts_only():
    """Reading it takes as long as all else that a small command does."""
    code = "import sys, advkit.registry as r; r.parts('labels'); "
    code += "print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_a_package_and_its_folder_are_one_place(offered):
    with registry.using(str(offered / "parts")):
        assert registry.parts("labels")["mild"].place.kind == places.PACKAGE


@pytest.mark.slow
def test_the_way_of_a_run_with_an_installed_package(tmp_path):
    """Installed by pip, offline; trained, attacked, analysed; edited; gone."""
    source(tmp_path / "src")
    (tmp_path / "src" / "robust_extras" / "__init__.py").write_text("")
    (tmp_path / "src" / "pyproject.toml").write_text(PROJECT)
    site = tmp_path / "site"
    pip = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([sys.executable, *pip, "--target", str(site), str(tmp_path / "src")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr

    def run(*words: str, path: Path | None = site) -> Outcome:
        paths = os.pathsep.join(str(place) for place in (ROOT, path) if place)
        env = os.environ | {"PYTHONPATH": paths, "COLUMNS": "300"}
        done = subprocess.run([sys.executable, "-m", "advkit", *words], cwd=tmp_path, env=env,
                              capture_output=True, text=True, check=False)  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    help_text = run("train", "--help").out
    for name in ("mild", "both", "tiny-net", "shaken"):
        assert re.search(rf"\b{name}: ", help_text), name
    assert "one-step: " in run("attack", "--help").out
    assert "confidence" in run("analyze", "--help").out

    tiny = [word for word in TINY if word not in ("--width", "8")]
    train = ["train", *tiny, "--epochs", "1", "--objective", "both", "--labels", "mild",
             "--arch", "tiny-net", "--filters", "4", "--augment", "shaken",
             "-o", "run"]  # fmt: skip
    attack = [
        "attack",
        "run/best.safetensors",
        "--attack",
        "one-step",
        "--limit",
        "20",
        "-o",
        "a.h5",
    ]
    analyze = ["analyze", "confidence", "a.h5", "-o", "c.json"]
    for words in (train, attack, analyze):
        outcome = run(*words)
        assert outcome.code == 0, outcome.err
        assert "already done" in run(*words).err
    for words, place in ((train, "labels/mild"), (attack, "attacks/one_step"),
                         (analyze, "analyses/confidence")):  # fmt: skip
        path = site / "robust_extras" / "parts" / f"{place}.py"
        before = path.read_text()
        path.write_text(before + "\n\n_LATER = 1\n")
        outcome = run(*words)
        assert outcome.code == 4, outcome.err
        path.write_text(before)
    gone = run(*attack, path=None)
    assert gone.code == 2
    gone = run("attack", "run/best.safetensors", "--attack", "fgsm", path=None)
    assert gone.code == 2
    assert "it needs the part models/tiny-net (sha256:" in gone.err
    assert len(gone.err.splitlines()) == 1

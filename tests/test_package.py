"""What is built stands by itself: the sdist is the whole project, the wheel all that users need."""

from __future__ import annotations

import ast
import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import advkit
from advkit.cli.common.failures import PACKAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ARXIV = re.compile(r"arxiv\.org/abs/(\d{4}\.\d{5})")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of both archives; the wheel is made of the unpacked sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def sdist(built) -> set[str]:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    (name,) = (each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git here: an unpacked sdist")
def test_the_sdist_is_every_file_of_the_project(sdist):
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    )  # fmt: skip
    tracked = {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    assert tracked - sdist == set()


def test_the_sdist_checks_and_tests_itself(sdist):
    needed = {
        "Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
        "CITATION.cff", "PKG-INFO", ".ci/run", ".gitignore", "tests/conftest.py",
        "tests/faults/_runs.py", "tools/docs/generate.py", "docs/cli.md", "recipes/_table.sh",
        "recipes/slurm/node.sbatch", "benchmarks/step.py",
    }  # fmt: skip
    assert needed - sdist == set()


def test_the_sdist_carries_no_work_and_no_data(sdist):
    tops = {name.partition("/")[0] for name in sdist}
    assert not tops & {"runs", "demo", "gallery", "dist", "build", "shared", ".venv", ".git"}
    made = [name for name in sdist if name.endswith((".pyc", ".h5", ".safetensors"))]
    assert [name for name in made if not name.startswith("tests/earlier/")] == []


def test_the_wheel_is_the_package_with_its_recipes(sdist, wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {name for name in sdist if name.startswith("advkit/")}
    assert names == expected | {f"advkit/{name}" for name in sdist if name.startswith("recipes/")}
    assert {
        "advkit/py.typed",
        "advkit/config/presets/paper.toml",
        "advkit/artifacts/page.css",
        "advkit/recipes/adr-table1.sh",
    } < names


def test_a_recipe_stays_executable_in_the_wheel(wheel):
    assert wheel.getinfo("advkit/recipes/adr-table1.sh").external_attr >> 16 & 0o111 == 0o111


def test_the_metadata_says_what_it_is_and_where_it_runs(metadata):
    assert metadata["Version"] == advkit.__version__
    assert metadata["Keywords"]
    found = metadata.get_all("Classifier")
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in found
    assert {"Operating System :: POSIX :: Linux", "Operating System :: MacOS"} < set(found)
    assert not any("Windows" in each for each in found)
    papers = set(ARXIV.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {ARXIV.search(url)[1] for url in metadata.get_all("Project-URL")} == papers


def test_a_package_page_has_no_link_into_the_checkout(metadata):
    text = metadata.get_payload(decode=True).decode()
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert f"`{target}`" in text


def test_what_is_imported_is_declared():
    names = set()
    for path in (ROOT / "advkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).partition(".")[0])
    foreign = names - sys.stdlib_module_names - {"advkit", "_typeshed"}  # type checkers' own
    declared = {re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]}
    # An extra's package is imported where its option is asked for.
    optional = {k: v for k, v in PROJECT["optional-dependencies"].items() if k != "dev"}
    extras = {re.match(r"[\w-]+", each)[0] for wanted in optional.values() for each in wanted}
    assert {PACKAGES.get(name, name) for name in foreign} - extras == declared


def test_the_citation_is_of_this_version_and_of_both_papers():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == advkit.__version__
    papers = set(ARXIV.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(ARXIV.findall(text)) == papers

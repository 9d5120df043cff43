"""What the documentation shows is true of the code."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import advkit
from advkit import __version__, contracts, registry
from tests.contracts.test_floors import FLOORS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = sorted(DOCS.rglob("*.md"))
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *SITE)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"`mine/(\w+)/(\w+)\.py`:\n\n```python\n(.*?)```",
    (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.mark.parametrize(("folder", "name", "code"), EXAMPLES)
def test_examples_are_proper_parts(tmp_path, folder, name, code):
    path = tmp_path / folder / f"{name}.py"
    path.parent.mkdir()
    path.write_text(code, encoding="utf-8")
    with registry.using(str(tmp_path)):
        part = registry.part(folder, name)
        assert (part.name, part.path) == (name, path)
        assert list(contracts.breaches(part)) == []
    ruff = [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", path]
    found = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_four_examples_are_found():
    shelves = ["labels", "augment", "objectives", "analyses"]
    assert [folder for folder, _, _ in EXAMPLES] == shelves


def names_of(path: Path) -> set[str]:
    """Return what a file defines: functions, classes and `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ImportFrom):  # what stays importable from here
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


def missing(text: str) -> list[str]:
    """Name the files of the project that a page names and that are not there.

    In a table's row `| what | `file` | `name`, `name` |` the names must be in the file.
    """
    wrong = [name for name in re.findall(r"`((?:advkit|tests|tools|benchmarks)/[\w/]+\.\w+)`", text)
             if not (ROOT / name).exists()]  # fmt: skip
    rows = re.findall(r"^\|[^|]*\| `(advkit/[\w/]+\.py)` \|([^|]*)\|$", text, re.MULTILINE)
    for file, names in rows:
        known = names_of(ROOT / file) if (ROOT / file).exists() else set()
        wrong += [f"{file} {name}" for name in re.findall(r"`([\w.]+)`", names)
                  if name not in known]  # fmt: skip
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_functions_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    shown = {f"advkit/{folder}/{name}.py" for folder, name, _ in EXAMPLES}
    new = shown if page.name == "extending.md" else set()  # files that the reader is to write
    assert [name for name in missing(text) if name not in new] == []


def test_the_readme_maps_every_room_in_six_lines():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"## Map of the source.*?```\n(.*?)```", readme, re.DOTALL)[1].splitlines()
    words = {word.strip("/").removesuffix(".py") for line in lines for word in line.split()}
    assert len(lines) == 6
    assert set().union(*FLOORS) - {"__main__"} - words == set()


def test_the_ways_name_enough_stops():
    rows = re.findall(r"^\|[^|]*\| `advkit/[\w/]+\.py` \|", ARCHITECTURE, re.MULTILINE)
    assert len(rows) > 30


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("see `advkit/losses.py`", ["advkit/losses.py"]),
        ("| a | `advkit/weights/ema.py` | `Ema.update`, `Ema.updated` |",
         ["advkit/weights/ema.py Ema.updated"]),
        ("| a | `advkit/weights/ema.py` | |", []),
    ],
)  # fmt: skip
def test_the_search_finds_what_is_not_there(text, wrong):
    assert missing(text) == wrong


def test_the_picture_of_the_floors_is_the_rule_that_is_tested():
    (picture,) = re.findall(r"```\n(\d.*?)```", ARCHITECTURE, re.DOTALL)
    floors: list[set[str]] = []
    for line in picture.splitlines():
        if line[:2].strip():
            floors.insert(0, set())
            assert int(line[:2]) == len(FLOORS) - len(floors)
        floors[0].add(line[2:].split()[0])
    assert tuple(floors) == FLOORS


def test_the_page_of_analyses_has_each_of_them_in_its_table():
    text = (DOCS / "analyses.md").read_text(encoding="utf-8")
    table = text[: text.index("\n## ")]
    named = re.findall(r"^\| [^|]+ \| \[`([a-z-]+)`\]", table, re.MULTILINE)
    assert sorted(named) == sorted(registry.parts("analyses"))


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == __version__


def plain(page: Path) -> str:
    """Return a page without its blocks of code, in which a bracket is no link."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the names by which a page's headings are linked to, as code hosts and MyST make them.

    Letters, figures, `-` and `_` stay, in lower case; a blank is `-`, all else goes.
    """
    names: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", plain(page), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w -]", "", shown.lower()).replace(" ", "-")
        again = sum(1 for other in names if re.fullmatch(rf"{re.escape(name)}(-\d+)?", other))
        names.add(f"{name}-{again}" if again else name)
    return names


def dead(page: Path) -> list[str]:
    """Return a page's links to files or headings that are not there."""
    wrong = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", plain(page)):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (heading and heading not in anchors(file)):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page):
    assert dead(page) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One `a_b`, two: §3\n## Same\n## Same\n"
        "[a](#one-a_b-two-3) [b](#same-1) [c](page.md#same) [d](https://example.org/x.md)\n"
        "[e](#same-2) [f](gone.md) [g](page.md#two)\n```sh\n# [h](no.md)\n```\n",
        encoding="utf-8",
    )
    assert dead(page) == ["#same-2", "gone.md", "page.md#two"]


def test_the_site_has_every_page_once():
    """As its contents say; Sphinx is not needed for this."""
    entries = [
        re.sub(r"^.*<(.*)>$", r"\1", line)
        for page in SITE
        for block in re.findall(r"^```{toctree}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
        for line in block.splitlines()
        if line and not line.startswith(":")
    ]
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in SITE} - {"index"}
    assert sorted(entries) == sorted(pages)


def test_the_site_has_this_version_and_its_tools_are_named():
    settings: dict[str, object] = {}
    exec(compile((DOCS / "conf.py").read_text(encoding="utf-8"), "docs/conf.py", "exec"), settings)
    assert settings["version"] == settings["release"] == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tools = project["project"]["optional-dependencies"]["site"]
    assert {re.match(r"[\w-]+", tool)[0] for tool in tools} == {"sphinx", "furo", "myst-parser"}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    tools = ROOT / ".venv" / "site"  # where `make site` puts them
    if not tools.is_dir():
        pytest.importorskip("furo")
        pytest.importorskip("myst_parser")
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-n",
            "-q",
            "-b",
            "html",
            DOCS,
            tmp_path / "site",
        ],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tools}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")


PYTHON_BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize(
    ("block", "made"),
    [
        (0, {"a.h5", "l.h5", "runs/a/best.safetensors", "runs/b/final.safetensors"}),
        (1, set()),
    ],
)
def test_the_python_page_runs(tmp_path, monkeypatch, block, made):
    """Its blocks run in an empty folder; the first imports advkit."""
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON_BLOCKS[block], "docs/python.md", "exec"), {"advkit": advkit})
    assert made <= {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}

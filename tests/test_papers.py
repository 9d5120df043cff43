"""docs/papers.md has a row for each table and figure of both papers, and its commands are ones."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from advkit.cli import app
from advkit.cli.common import lazily
from advkit.cli.common.options import Call, Command

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
ITEMS = {
    # From the papers' text: every caption, in the appendices too.
    "ADR": [*(f"Figure {n}" for n in range(1, 8)), *(f"Table {n}" for n in range(1, 8))],
    "LTD": [*(f"Figure {n}" for n in range(1, 4)), *(f"Table {n}" for n in range(1, 7))],
}
DRAWINGS = {("ADR", "Figure 3"), ("LTD", "Figure 3")}
"""Schematics, in which nothing is measured."""
SPANS = re.findall(r"`([^`]+)`", PAGE)


def rows(paper: str) -> dict[str, list[str]]:
    """Return the rows of a paper's section: item → the cells after it."""
    section = re.search(rf"^## {paper} .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if re.match(r"\| (Figure|Table|Appendix) \d", line)
    ]
    assert len({first for first, *_ in cells}) == len(cells), "an item has two rows"
    return {first.strip("| "): rest for first, *rest in cells}


def commands(text: str) -> list[str]:
    return [
        span for span in re.findall(r"`([^`]+)`", text) if re.search(r"recipes/|^advkit ", span)
    ]


@pytest.mark.parametrize("paper", ITEMS)
def test_every_table_and_figure_has_a_row(paper):
    items = [item for item in rows(paper) if not item.startswith("Appendix")]
    assert sorted(items) == sorted(ITEMS[paper])


@pytest.mark.parametrize(("paper", "item"), [(p, i) for p, items in ITEMS.items() for i in items])
def test_a_row_has_a_command_or_says_why_not(paper, item):
    shows, command, without = rows(paper)[item]
    assert shows
    assert without, "say what is not made, or – for nothing"
    drawing = (paper, item) in DRAWINGS
    assert bool(commands(command)) != drawing
    assert without.startswith("a schematic") == drawing


def test_both_kinds_of_commands_are_there():
    assert len([span for span in SPANS if "recipes/" in span]) > 20
    assert len([span for span in SPANS if span.startswith("advkit ")]) > 5


@pytest.mark.parametrize("paper", ITEMS)
def test_each_table_has_a_recipe_of_its_own(paper):
    """As README.md says."""
    for item in [item for item in ITEMS[paper] if item.startswith("Table")]:
        recipe = f"recipes/{paper.lower()}-table{item.split()[1]}.sh"
        assert (ROOT / recipe).exists()
        assert recipe in rows(paper)[item][1]


def test_the_page_of_recipes_lists_every_one():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    names = {path.name for path in (ROOT / "recipes").glob("[!_]*.sh")}
    assert names - set(re.findall(r"`([\w-]+\.sh)`", page)) == set()


def settings(recipe: Path) -> str:
    """Return what a recipe and the helper that it sources say they take."""
    return recipe.read_text("utf-8") + (recipe.parent / "_table.sh").read_text("utf-8")


@pytest.mark.parametrize("span", sorted({span for span in SPANS if "recipes/" in span}))
def test_a_recipe_that_is_named_is_one(span):
    words = shlex.split(span)
    path, *folder = [word for word in words if "=" not in word]
    recipe = ROOT / path
    assert os.access(recipe, os.X_OK)
    assert folder in ([], [f"runs/{recipe.stem}"])
    for setting in [word.partition("=")[0] for word in words if "=" in word]:
        assert re.search(rf"\b{setting}\b", settings(recipe)), setting
    checked = subprocess.run(["bash", "-n", recipe], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("span", sorted({span for span in SPANS if span.startswith("advkit ")}))
def test_a_command_that_is_named_parses(monkeypatch, span):
    """By the command line's own parser, which then would run it."""
    parsed: list[tuple[Command, Call]] = []
    monkeypatch.setattr(lazily, "perform", lambda *call: parsed.append(call))
    program = app.build()
    program(shlex.split(span)[1:], standalone_mode=False, prog_name="advkit")
    ((command, _),) = parsed
    assert command.name in span.split()

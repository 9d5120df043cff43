"""What is private to a room stays there: tools, benchmarks and the pages' code use none of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"```(?:python|py)\n(.*?)```", re.DOTALL)


def private(source: str) -> list[str]:
    """Return the private names of `advkit` that a source imports, or reads off what it imports."""
    tree = ast.parse(source)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            names = {each.asname or each.name: each.name for each in node.names}
        else:
            continue
        bound |= {name: full for name, full in names.items() if full.split(".")[0] == "advkit"}
    used = [*bound.values(), *_read(tree, bound)]
    return [name for name in used if re.search(r"\._(?!_)", name)]


def _read(tree: ast.Module, bound: dict[str, str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in bound:
                yield f"{bound[first]}.{rest}"


SOURCES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for folder in ("tools", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
SOURCES |= {
    f"{page.name}, block {number}": code
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
}


def test_nothing_outside_uses_what_is_private():
    found = [f"{name}: {used}" for name, text in SOURCES.items() for used in private(text)]
    assert found == []
    assert len(SOURCES) > 15


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from advkit.models import _blocks", ["advkit.models._blocks"]),
        ("from advkit.models._blocks import Net", ["advkit.models._blocks.Net"]),
        ("import advkit.data._mat as m", ["advkit.data._mat"]),
        ("from advkit.data import svhn\nsvhn._read('x')", ["advkit.data.svhn._read"]),
        ("from advkit import __version__\nfrom advkit.data import load as _load\n_load('x')", []),
        ("from other import _thing\nimport _ours\n_ours._x", []),
    ],
)
def test_the_search_sees_what_it_should(source, names):
    assert private(source) == names

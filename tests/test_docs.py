"""What the documentation shows is true of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from advkit import __version__, registry

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(
    r"`advkit/(\w+)/(\w+)\.py`:\n\n```python\n(.*?)```",
    (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.mark.parametrize(("folder", "name", "code"), EXAMPLES)
def test_examples_are_proper_parts(tmp_path, folder, name, code):
    path = tmp_path / f"{name}.py"
    path.write_text(code, encoding="utf-8")
    part = registry._read(folder, path)
    assert (part.name, part.problems) == (name, ())
    ruff = [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", path]
    found = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_three_examples_are_found():
    assert [folder for folder, _, _ in EXAMPLES] == ["labels", "objectives", "analyses"]


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == __version__


def test_pages_that_are_named_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} names {target}"

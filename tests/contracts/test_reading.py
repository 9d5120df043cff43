"""Whatever is read from outside goes through `runtime.reading`: regular files, sized first."""

from __future__ import annotations

import ast

import pytest

from tests.faults._runs import ROOT

READS = {"read_text", "read_bytes"}
OWN = {
    "doors/unpickling.py": "the kernel's own files",
    "runtime/memory.py": "the kernel's own files",
    "contracts/new.py": "the package's own files",
    "config/methods.py": "the package's own files",
    "analyses/tables/published.py": "the package's own files",
    "artifacts/page.py": "the package's own files",
    "cli/recipes.py": "the package's own files, and a copy that was looked at first",
}
FILES = sorted((ROOT / "advkit").rglob("*.py"))


def reads(path) -> list[str]:
    """Calls that read a file by its name: `.read_text()`, `open(x)`, `x.open()`, `Image.open(x)`.

    `open` of what is open already takes another name than that of a path.
    """
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    found = []
    for call in calls:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = ast.unparse(call.func).rpartition(".")[0]
        words = {ast.unparse(argument) for argument in call.args}
        opens = name == "open" and owner not in ("archive", "self", "self.ledger", "os")
        if name in READS or (opens and not words & {"file", "'a'", "'w'"}):
            found.append(f"line {call.lineno}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_file_is_read_by_name(path):
    if str(path.relative_to(ROOT / "advkit")) not in OWN:
        assert reads(path) == []

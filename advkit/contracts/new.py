"""A part to begin with: a working file, and beside its shelf a test with values worked by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from advkit import registry
from advkit.artifacts import files
from advkit.errors import MismatchError, UsageError, brief, unknown

TEMPLATES = Path(__file__).parent / "templates"
STANDARD, OTHERS = ("math", "Path", "SimpleNamespace"), ("pytest", "torch")
OWN = ("advkit", "registry", "Logits", "Threat")
USED: Mapping[str, str] = {
    "advkit": "import advkit",
    "registry": "from advkit import registry",
    "math": "import math",
    "Path": "from pathlib import Path",
    "SimpleNamespace": "from types import SimpleNamespace",
    "pytest": "import pytest",
    "torch": "import torch",
    "Logits": "from advkit.artifacts.hdf5 import Logits",
    "Threat": "from advkit.formulas.threat import Threat",
}
"""Names that a golden test may use → what imports them."""
ALWAYS = ("Path", "advkit", "registry")


def begin(shelf: str, name: str, root: Path) -> tuple[Path, Path]:
    """Write a part and its golden test, and return both paths.

    Args:
        shelf: one of the folders of parts.
        name: of the part, as the command line will have it.
        root: folder of shelves; made where it is not there.

    Raises:
        UsageError: no such shelf, no name of a part, or one that is taken.
        MismatchError: one of the files is there.
        StorageError: one cannot be written.
    """
    known = sorted(path.stem for path in TEMPLATES.glob("*.txt"))
    shelves = [stem for stem in known if stem in registry.CONTRACTS]
    if shelf not in shelves:
        raise unknown("shelf", shelf, shelves)
    if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(
            f"{brief(repr(name))} is no name of a part: small letters, digits and single dashes"
        )
    if name in registry.parts(shelf):
        there = registry.parts(shelf)[name]
        raise UsageError(f"{shelf}/{name} is there already: {there.path} ({there.place})")
    stem = name.replace("-", "_")
    part, test = root / shelf / f"{stem}.py", root / "tests" / f"test_{shelf}_{stem}.py"
    for path in (part, test):
        if path.exists() or path.is_symlink():
            raise MismatchError(f"{path} is there already: nothing was written")
    for path, text in ((part, _part(shelf, name)), (test, _test(shelf, name))):
        files.folder(path.parent)
        files.write_text(path, text)
    return part, test


def _part(shelf: str, name: str) -> str:
    return _template(shelf).replace("NAME", name)


def _test(shelf: str, name: str) -> str:
    golden = _template(f"{shelf}_golden")
    used = [word for word in USED if word in ALWAYS or re.search(rf"\b{word}\b", golden)]
    blocks = [[USED[word] for word in group if word in used] for group in (STANDARD, OTHERS, OWN)]
    imports = "\n\n".join("\n".join(block) for block in blocks if block)
    head = _template("head").replace("IMPORTS", imports)
    return (head + golden).replace("SHELF", shelf).replace("NAME", name)


def _template(stem: str) -> str:
    return (TEMPLATES / f"{stem}.txt").read_text(encoding="utf-8")

"""What a part's source means, as a digest: an edited part is another part."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from advkit import registry

QUIET = {"kind", "type_comment"}
"""What a syntax tree holds besides what runs."""
SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def digest(folder: str, name: str) -> str:
    """Return the sha256 over a part's file and the files of its shelf that it imports.

    Comments, docstrings and layout are left out: they change no result. So is what lies outside
    the shelf, which comes with a version of advkit.

    Raises:
        UsageError: no such part, or its file does not keep the folder's contract.
    """
    sha = hashlib.sha256()
    for path in _files(folder, registry.part(folder, name).path):
        tree = ast.parse(path.read_bytes())
        sha.update(json.dumps([path.name, _meaning(tree)]).encode())
    return f"sha256:{sha.hexdigest()}"


def digests(*chosen: tuple[str, str]) -> dict[str, str]:
    """Return the digests of several parts, (shelf, name) each, by `shelf/name`."""
    return {f"{folder}/{name}": digest(folder, name) for folder, name in chosen}


def family(arch: str) -> list[tuple[str, str]]:
    """Return the part that an architecture's name means, none for a net of somebody else's.

    >>> family("wrn-34-10"), family("my-net")
    ([('models', 'wrn')], [])
    """
    words = arch.split("-")
    names = ("-".join(words[:end]) for end in range(len(words), 0, -1))
    return [("models", name) for name in names if name in registry.parts("models")][:1]


def _files(folder: str, first: Path) -> list[Path]:
    """Return a part's file, then those of its shelf that it needs, sorted."""
    needed, waiting = {first}, [first]
    while waiting:
        tree = ast.parse(waiting.pop().read_bytes())
        more = {path for path in _imported(folder, tree) if path.is_file()} - needed
        needed |= more
        waiting += more
    return [first, *sorted(needed - {first})]


def _imported(folder: str, tree: ast.Module) -> Iterator[Path]:
    """Yield where the modules of a shelf would lie that a file imports."""
    for node in ast.walk(tree):
        dotted = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):  # what is imported may be a module itself
            dotted += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            dotted += [alias.name for alias in node.names]
        for module in dotted:
            root, *rest = module.split(".")
            if root == "advkit" and len(rest) > 1 and rest[0] == folder:
                yield registry.ROOT.joinpath(*rest).with_suffix(".py")


def _meaning(node: object) -> object:
    """Return a syntax tree as JSON that all versions of Python spell alike."""
    if isinstance(node, list):
        return [_meaning(entry) for entry in node]
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!r}"
    fields = dict(ast.iter_fields(node))
    if isinstance(node, SCOPES) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    # Later versions of Python have more fields, which are empty where they say nothing.
    said = {k: _meaning(v) for k, v in fields.items() if v not in (None, []) and k not in QUIET}
    return [type(node).__name__, said]

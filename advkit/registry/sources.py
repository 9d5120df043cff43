"""What a part's source means, as a digest: an edited part is another part."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from advkit import registry
from advkit.errors import MismatchError, UsageError
from advkit.registry import places
from advkit.registry.places import Place
from advkit.runtime import reading

QUIET = {"kind", "type_comment"}
"""What a syntax tree holds besides what runs."""
SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

STANDS_FOR: Mapping[str, str] = {
    # augment/idbh and augment/autoaugment: declared to change one image after another
    "sha256:71cf2b73551f0c0706e694410b4a2087bb8d181ca056c4263915144f1af67848": (
        "sha256:4818c954a5d2bce27ce77f63340b1a6a2954023cc3b6342f72fdce99c6492aff"
    ),
    "sha256:116c2c4d67666feb0880bbd381ca1525087418df6fb7f549645eb91cb1a2969d": (
        "sha256:1ea005adbe599fefc4e82055c29f15790e15fd0ab7b91b80c0b8906e05ce7771"
    ),
    # data/digits: scikit-learn's file is read without importing it
    "sha256:570bd728193c834c107afc844af58f1b8b10e9244c6c2341e509f596203997ac": (
        "sha256:57cd7387d5e17868b10de9734281be3ab6fb143616c741e5059a2758a56eb781"
    ),
}
"""Digest → that of the source before an edit which changes no byte of any result: runs begun before
it go on. A test holds both results together."""


def digest(folder: str, name: str) -> str:
    """Return the sha256 over a part's file and the files that it imports of what goes with it.

    Of advkit's own part these are the files of its shelf: what lies outside comes with a version
    of advkit. Of somebody else's they are all files of the folder or package that it lies in.
    Comments, docstrings and layout are left out: they change no result.

    Raises:
        UsageError: no such part, or its file does not keep the folder's contract.
    """
    sha = hashlib.sha256()
    part = registry.part(folder, name)
    for path in _files(folder, part.path, part.place):
        tree = _tree(path)
        spelt = part.place.spelt(path) if part.foreign else path.name
        sha.update(json.dumps([spelt, _meaning(tree)]).encode())
    now = f"sha256:{sha.hexdigest()}"
    return STANDS_FOR.get(now, now)


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


def foreign(folder: str, name: str) -> list[tuple[str, str]]:
    """Return a part as `digests` takes it, if it is there and not advkit's own."""
    part = registry.parts(folder).get(name)
    return [(folder, name)] if part is not None and part.foreign else []


def require(recorded: Mapping[str, str], shelf: str, where: object) -> None:
    """Check that somebody else's parts that an artifact needs are here, and are those it means.

    Args:
        recorded: what its description says of parts, `shelf/name` → digest.
        shelf: whose parts are needed now.
        where: the artifact, for messages.

    Raises:
        UsageError: one is not here.
        MismatchError: its source is another one.
    """
    for key, wanted in recorded.items():
        folder, _, name = key.partition("/")
        if folder != shelf:
            continue
        if name not in registry.parts(shelf):
            raise UsageError(
                f"{where}: it needs the part {key} ({wanted[:19]}), which is not advkit's own: "
                "say where it lies with --parts (its FILE.py, or the folder that holds "
                f"{folder}/), or install the package that offers it"
            )
        part = registry.part(shelf, name)
        if part.foreign and digest(shelf, name) != wanted:
            raise MismatchError(
                f"{where}: it was made with another {key} ({wanted[:19]}) than {part.path} "
                f"({digest(shelf, name)[:19]}): undo the edit, or make it anew"
            )


def _files(folder: str, first: Path, place: Place) -> list[Path]:
    """Return a part's file, then those that it needs of what goes with it, sorted."""
    needed, waiting = {first}, [first]
    while waiting:
        path = waiting.pop()
        tree = _tree(path)
        near = (
            _imported(folder, tree) if place.kind == places.BUILT_IN else _beside(path, tree, place)
        )
        more = {path for path in near if path.is_file()} - needed
        needed |= more
        waiting += more
    return [first, *sorted(needed - {first})]


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(reading.content(path, reading.SETTINGS))
    except SyntaxError as error:
        raise UsageError(f"{path}: line {error.lineno}: it is not Python: {error.msg}") from None


def _imported(folder: str, tree: ast.Module) -> Iterator[Path]:
    """Yield where the modules of a shelf would lie that a file imports."""
    for node in ast.walk(tree):
        for module in _dotted(node):
            root, *rest = module.split(".")
            if root == "advkit" and len(rest) > 1 and rest[0] == folder:
                yield registry.ROOT.joinpath(*rest).with_suffix(".py")


def _dotted(node: ast.AST) -> list[str]:
    """Return the modules that a statement may import, from the top down."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    # What is imported may be a module itself.
    return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]


def _beside(path: Path, tree: ast.Module, place: Place) -> Iterator[Path]:
    """Yield where the modules would lie that a file of somebody else's imports of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[min(node.level, len(path.parents)) - 1]
            words = node.module.split(".") if node.module else []
            yield from _modules(base, words)
            for alias in node.names:
                yield from _modules(base, [*words, alias.name])
        elif place.kind == places.PACKAGE:
            for module in _dotted(node):
                first, *rest = module.split(".")
                if first == place.module.partition(".")[0]:
                    yield from _modules(place.top, rest)


def _modules(base: Path, words: list[str]) -> Iterator[Path]:
    """Yield the files that a module may be."""
    yield base.joinpath(*words, "__init__.py")
    if words:
        yield base.joinpath(*words[:-1], f"{words[-1]}.py")


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

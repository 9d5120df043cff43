"""Folders of parts: what exists, its help and its options, read without importing anything.

A part is a file. Its name is the file's stem with `_` as `-`; files that start with `_` are
private. The first docstring line is its help. The keyword-only parameters *with a default* of
its entry functions are its options (`lambda_` is `--lambda`), and the `Args:` block of their
docstrings is the options' help; keyword-only parameters without a default are what the engine
supplies. All of it comes from the syntax tree, so listing parts never loads torch.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from advkit.errors import AdvkitError, UsageError, unknown
from advkit.options import Option

ROOT = Path(__file__).parent

CONTRACTS: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {"load": ("root", "split")},
    "models": {"build": ("classes",)},
    "labels": {"targets": ("batch", "context")},
    "objectives": {
        "inner": ("logits", "given"),
        "outer": ("model", "x", "x_adv", "given"),
    },
    "attacks": {"attack": ("model", "x", "y", "threat")},
    "analyses": {"analyze": ("inputs",)},
}
"""Folder → entry functions → their positional parameters."""

NOUNS = {
    "data": "data set",
    "models": "architecture",
    "labels": "label source",
    "objectives": "objective",
    "attacks": "attack",
    "analyses": "analysis",
}


@dataclass(frozen=True)
class Part:
    """What the syntax tree of one part's file says about it."""

    folder: str
    name: str
    help: str
    options: tuple[Option, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Dotted name of the file."""
        return f"advkit.{self.folder}.{self.name.replace('-', '_')}"


@cache
def parts(folder: str) -> dict[str, Part]:
    """Every part of a folder by name, in alphabetical order."""
    files = sorted((ROOT / folder).glob("*.py"))
    found = [_read(folder, path) for path in files if not path.stem.startswith("_")]
    return {part.name: part for part in found}


def part(folder: str, name: str) -> Part:
    """Look one part up.

    Raises:
        UsageError: no such part; the message names the nearest ones.
    """
    shelf = parts(folder)
    if name not in shelf:
        raise unknown(NOUNS[folder], name, shelf)
    return shelf[name]


@cache
def shared_options(folder: str) -> tuple[Option, ...]:
    """Options of all parts of a folder, one each, saying whose they are.

    Where parts disagree on a default, the option has none and its help lists them.
    """
    owners: dict[str, list[tuple[str, Option]]] = {}
    for each in parts(folder).values():
        for option in each.options:
            owners.setdefault(option.name, []).append((each.name, option))
    panel = f"{NOUNS[folder].capitalize()} options"
    found = []
    for shared in owners.values():
        option = shared[0][1]
        agreed = all(other.default == option.default for _, other in shared)
        names = [name if agreed else f"{name}: {other.default}" for name, other in shared]
        text = f"{option.help} ({', '.join(names)})"
        default = option.default if agreed else None
        found.append(replace(option, default=default, help=text, panel=panel))
    return tuple(found)


def load(folder: str, name: str) -> ModuleType:
    """Import one part.

    Raises:
        UsageError: no such part.
        AdvkitError: the file does not keep its folder's contract.
    """
    found = part(folder, name)
    if found.problems:
        raise AdvkitError(f"{found.module} is not a proper part: {'; '.join(found.problems)}")
    return importlib.import_module(found.module)


def split_path(text: str) -> tuple[str, str | None]:
    """Split `NAME:PATH` of a data set.

    >>> split_path("folder:photos"), split_path("digits")
    (('folder', 'photos'), ('digits', None))
    """
    name, colon, path = text.partition(":")
    return name, path if colon else None


def split_numbers(arch: str) -> tuple[str, dict[str, int]]:
    """Split an architecture's name into its file and the options in its trailing numbers.

    >>> split_numbers("wrn-34-10")
    ('wrn', {'depth': 34, 'widen': 10})
    >>> split_numbers("resnet18")
    ('resnet18', {})

    Raises:
        UsageError: no such architecture, or too many numbers.
    """
    words = arch.split("-")
    numbers: list[int] = []
    while (
        len(words) > 1
        and words[-1].isdecimal()
        and len(words[-1]) < 10
        and "-".join(words) not in parts("models")
    ):
        numbers.insert(0, int(words.pop()))
    if "-".join(words) not in parts("models"):
        raise unknown(NOUNS["models"], arch, parts("models"))
    found = part("models", "-".join(words))
    names = [option.name for option in found.options if option.kind == "int"]
    if len(numbers) > len(names):
        raise UsageError(f"{arch}: {found.name} takes at most {len(names)} numbers")
    return found.name, dict(zip(names, numbers, strict=False))


def _read(folder: str, path: Path) -> Part:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except SyntaxError as error:
        problem = f"it is not Python: {error.msg}, line {error.lineno}"
        return Part(folder, path.stem.replace("_", "-"), problem, (), {}, (problem,))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    options: dict[str, Option] = {}
    problems: list[str] = []
    for entry, expected in CONTRACTS[folder].items():
        node = functions.get(entry)
        if node is None:
            problems.append(f"it has no function {entry}({', '.join(expected)}, ...)")
            continue
        given = tuple(arg.arg for arg in node.args.posonlyargs + node.args.args)
        if given != expected:
            problems.append(f"{entry} takes ({', '.join(given)}), not ({', '.join(expected)})")
        try:
            options.update({option.name: option for option in _options(node)})
        except ValueError:
            problems.append(f"the defaults of {entry} are not plain literals")
    constants = _constants(tree)
    for name, limits in constants.get("LIMITS", {}).items():
        if name in options:
            options[name] = replace(options[name], limits=limits)
        else:
            problems.append(f"LIMITS names {name}, which is no option")
    doc = ast.get_docstring(tree) or ""
    if not doc:
        problems.append("it has no docstring")
    help_line = doc.split("\n", 1)[0].strip()
    name = path.stem.replace("_", "-")
    return Part(folder, name, help_line, tuple(options.values()), constants, tuple(problems))


def _options(node: ast.FunctionDef) -> list[Option]:
    helps = _argument_help(ast.get_docstring(node) or "")
    found = []
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is None:
            continue
        name = arg.arg.rstrip("_")
        annotation = ast.unparse(arg.annotation) if arg.annotation else "str"
        kind, choices = _kind(annotation)
        value = ast.literal_eval(default)
        found.append(Option(name, kind, value, helps.get(arg.arg, ""), choices=choices))
    return found


def _kind(annotation: str) -> tuple[str, tuple[str, ...]]:
    literal = re.fullmatch(r"Literal\[(.*)\]", annotation)
    if literal:
        return "str", tuple(ast.literal_eval(f"({literal[1]},)"))
    return annotation.removesuffix(" | None"), ()


def _argument_help(doc: str) -> dict[str, str]:
    block = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    if not block:
        return {}
    entries = re.split(r"^    (?=\w+:)", block[1], flags=re.MULTILINE)
    pairs = (entry.split(":", 1) for entry in entries if ":" in entry)
    return {name.strip(): " ".join(text.split()).rstrip(".") for name, text in pairs}


def _constants(tree: ast.Module) -> dict[str, Any]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id.isupper():
                try:
                    found[target.id] = ast.literal_eval(node.value)
                except ValueError:
                    continue  # a computed constant concerns its own file only
    return found

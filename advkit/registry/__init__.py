"""Folders of parts: what exists, its help and its options, read without importing anything.

A part is a file. Its name is the file's stem with `_` as `-`; files that start with `_` are
private. The first docstring line is its help. The keyword-only parameters *with a default* of
its entry functions are its options (`lambda_` is `--lambda`), and the `Args:` block of their
docstrings is the options' help; keyword-only parameters without a default are what the engine
supplies. Upper-case names at the top of the file are its declarations (`declarations`). All of it
comes from the syntax tree, so listing parts never loads torch.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from advkit.errors import UsageError, unknown
from advkit.options import Option
from advkit.registry import declarations

__all__ = [
    "NOUNS",
    "OUTSIDE",
    "ROOT",
    "Part",
    "blaming",
    "is_outside",
    "load",
    "part",
    "parts",
    "shared_options",
    "sources",
    "split_numbers",
    "split_path",
]

ROOT = Path(__file__).parents[1]

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
_MEMORY = {
    "memory": ("y", "classes"),
    "update": ("memory", "index", "y", "told", "epoch"),
}
OPTIONAL: dict[str, dict[str, tuple[str, ...]]] = {"labels": _MEMORY, "objectives": _MEMORY}
"""Folder → functions that a part has all of or none → their positional parameters."""

NOUNS = {
    "data": "data set",
    "models": "architecture",
    "labels": "label source",
    "objectives": "objective",
    "attacks": "attack",
    "analyses": "analysis",
}


OUTSIDE = {"torchvision": "torchvision", "timm": "advkit[timm]"}
"""Packages whose nets are architectures too, as PACKAGE:NAME, and what installs them."""


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

    @property
    def path(self) -> Path:
        """The file."""
        return ROOT / self.folder / f"{self.name.replace('-', '_')}.py"

    @property
    def breach(self) -> str:
        """What is wrong with the file, naming it and the lines; empty where nothing is."""
        return f"{self.path} is not a proper part: {'; '.join(self.problems)}" * bool(self.problems)


@cache
def parts(folder: str) -> dict[str, Part]:
    """Every part of a folder by name, in alphabetical order."""
    files = sorted((ROOT / folder).glob("*.py"))
    shelf = [_read(folder, path) for path in files if not path.stem.startswith("_")]
    return {part.name: part for part in shelf}


def part(folder: str, name: str) -> Part:
    """Look one part up.

    Raises:
        UsageError: no such part; the message names the nearest ones. Or its file does not keep
            the folder's contract; the message names file and lines.
    """
    shelf = parts(folder)
    if folder == "models" and is_outside(name):
        return Part(folder, name, f"A net of the package {name.partition(':')[0]}.", ())
    if name not in shelf:
        raise unknown(NOUNS[folder], name, shelf)
    if shelf[name].problems:
        raise UsageError(shelf[name].breach)
    return shelf[name]


def is_outside(arch: str) -> bool:
    """Whether an architecture is a package's own: `timm:NAME`.

    >>> is_outside("timm:resnet18"), is_outside("resnet18"), is_outside("tim:resnet18")
    (True, False, False)
    """
    package, colon, _ = arch.partition(":")
    return bool(colon) and package in OUTSIDE


def blaming(error: UsageError) -> UsageError:
    """Add to the error about an unknown option the parts whose options could not be read."""
    broken = [part for folder in CONTRACTS for part in parts(folder).values() if part.problems]
    return UsageError("; ".join([str(error), *(part.breach for part in broken)]))


@cache
def shared_options(folder: str) -> tuple[Option, ...]:
    """Options of all parts of a folder, one each, saying whose they are.

    Where parts disagree on a default, the option has none and its help lists them.
    """
    owners: dict[str, list[tuple[str, Option]]] = {}
    for owner in parts(folder).values():
        for option in owner.options:
            owners.setdefault(option.name, []).append((owner.name, option))
    panel = f"{NOUNS[folder].capitalize()} options"
    options = []
    for shared in owners.values():
        option = shared[0][1]
        # With several defaults none may be shown as the option's: each part keeps its own.
        agreed = all(other.default == option.default for _, other in shared)
        names = [name if agreed else f"{name}: {other.default}" for name, other in shared]
        text = f"{option.help} ({', '.join(names)})"
        default = option.default if agreed else None
        options.append(replace(option, default=default, help=text, panel=panel))
    return tuple(options)


def load(folder: str, name: str) -> ModuleType:
    """Import one part.

    Raises:
        UsageError: no such part, or its file does not keep the folder's contract.
    """
    return importlib.import_module(part(folder, name).module)


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
    if is_outside(arch):
        return arch, {}
    words = arch.split("-")
    numbers: list[int] = []
    # An architecture may itself end in a number, and ten digits are nobody's depth.
    while (
        len(words) > 1
        and words[-1].isdecimal()
        and len(words[-1]) < 10
        and "-".join(words) not in parts("models")
    ):
        numbers.insert(0, int(words.pop()))
    if "-".join(words) not in parts("models"):
        raise unknown(NOUNS["models"], arch, parts("models"))
    family = part("models", "-".join(words))
    names = [option.name for option in family.options if option.kind == "int"]
    if len(numbers) > len(names):
        raise UsageError(f"{arch}: {family.name} takes at most {len(names)} numbers")
    return family.name, dict(zip(names, numbers, strict=False))


def _read(folder: str, path: Path) -> Part:
    name = path.stem.replace("_", "-")
    tree, problem = _parsed(path)
    if tree is None:
        return Part(folder, name, problem, (), {}, (problem,))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    options: dict[str, Option] = {}
    problems: list[str] = []
    optional = OPTIONAL.get(folder, {})
    # The contract's own functions last: the help of an option that several have is theirs.
    kept = optional if functions.keys() & optional.keys() else {}
    entries = {**kept, **CONTRACTS[folder]}
    for entry, expected in entries.items():
        node = functions.get(entry)
        if node is None:
            problems.append(f"line 1: it has no function {entry}({', '.join(expected)}, ...)")
            continue
        positional = tuple(arg.arg for arg in node.args.posonlyargs + node.args.args)
        if positional != expected:
            wrong = f"{entry} takes ({', '.join(positional)}), not ({', '.join(expected)})"
            problems.append(f"line {node.lineno}: {wrong}")
        for option, wrong in declarations.options(node):
            options[option.name] = option
            problems += [wrong] if wrong else []
    constants, misdeclared = declarations.constants(folder, tree, options)
    # LIMITS name options, which are all known only now.
    for option_name, limits in constants.get("LIMITS", {}).items():
        options[option_name] = replace(options[option_name], limits=limits)
    doc = ast.get_docstring(tree) or ""
    if not doc:
        problems.append("line 1: it has no docstring")
    problems += misdeclared
    help_line = doc.split("\n", 1)[0].strip()
    return Part(folder, name, help_line, tuple(options.values()), constants, tuple(problems))


def _parsed(path: Path) -> tuple[ast.Module | None, str]:
    """Return the syntax tree of a file, or what stands against it."""
    try:
        source = path.read_bytes()
        return ast.parse(source, filename=str(path)), ""
    except SyntaxError as error:
        return None, f"line {error.lineno or 1}: it is not Python: {error.msg}"
    except ValueError as error:  # a null byte, in Python 3.11
        line = source[: source.find(b"\0")].count(b"\n") + 1
        return None, f"line {line}: it is not Python: {error}"
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"

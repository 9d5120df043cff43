"""One part: what its file says, read from the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from advkit.errors import InputError
from advkit.options import Option
from advkit.registry import declarations, places
from advkit.registry.places import Place
from advkit.runtime import reading

OWN = Place(places.BUILT_IN, Path(__file__).parents[1], "advkit", "advkit")


@dataclass(frozen=True)
class Part:
    """What the syntax tree of one part's file says about it."""

    folder: str
    name: str
    help: str
    options: tuple[Option, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    place: Place = OWN
    file: Path | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    """Option → the line that declares it."""

    @property
    def module(self) -> str:
        """Dotted name of the file."""
        shelf = f"{self.place.module}.{self.folder}"
        return f"{shelf}.{self.file.stem if self.file else self.name.replace('-', '_')}"

    @property
    def path(self) -> Path:
        """The file."""
        return self.file or self.place.root / self.folder / f"{self.name.replace('-', '_')}.py"

    @property
    def foreign(self) -> bool:
        """Whether it is not advkit's own."""
        return self.place.kind != places.BUILT_IN

    @property
    def breach(self) -> str:
        """What is wrong with the file, naming it and the lines; empty where nothing is."""
        return f"{self.path} is not a proper part: {'; '.join(self.problems)}" * bool(self.problems)


def name_of(place: Place, path: Path) -> str:
    """Return the name of the part that a file is: `my-net` of `my_net.py`."""
    name = path.stem.replace("_", "-")
    return name if place.function in ("", "build") else f"{name}:{place.function}"


def read(
    folder: str,
    path: Path,
    place: Place,
    contract: Mapping[str, tuple[str, ...]],
    optional: Mapping[str, tuple[str, ...]] | None = None,
) -> Part:
    """Return what a part's file says; what is wrong with it is among that.

    Args:
        folder: its shelf.
        path: the file.
        place: where the shelf lies.
        contract: entry functions of the shelf → their positional parameters.
        optional: functions that a part has all of or none, likewise.
    """
    name = name_of(place, path)
    tree, problem = _parsed(path)
    if tree is None:
        return Part(folder, name, problem, (), {}, (problem,), place, path)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    options: dict[str, Option] = {}
    problems: list[str] = []
    lines: dict[str, int] = {}
    kept = optional if optional and functions.keys() & optional.keys() else {}
    # The contract's own functions last: the help of an option that several have is theirs.
    for wanted, expected in {**kept, **contract}.items():
        entry = place.function or wanted
        node = functions.get(entry)
        if node is None:
            problems.append(f"line 1: it has no function {entry}({', '.join(expected)}, ...)")
            continue
        positional = tuple(arg.arg for arg in node.args.posonlyargs + node.args.args)
        if positional != expected:
            wrong = f"{entry} takes ({', '.join(positional)}), not ({', '.join(expected)})"
            problems.append(f"line {node.lineno}: {wrong}")
        lines |= {arg.arg.rstrip("_"): arg.lineno for arg in node.args.kwonlyargs}
        for option, wrong in declarations.options(node):
            options[option.name] = option
            problems += [wrong] if wrong else []
    constants, misdeclared = declarations.constants(folder, tree, options)
    # LIMITS name options, which are all known only now.
    for option_name, limits in constants.get("LIMITS", {}).items():
        options[option_name] = replace(options[option_name], limits=limits)
    if constants.get("MIXES") and "mixed" not in functions:
        problems.append("line 1: it MIXES, but has no function mixed(drawn, shape)")
    doc = ast.get_docstring(tree) or ""
    # Of a part in a folder it is the help; somebody's own model file may have other readers.
    if not doc and place.kind != places.FILE:
        problems.append("line 1: it has no docstring")
    problems += misdeclared
    help_line = doc.split("\n", 1)[0].strip()
    own = tuple(options.values())
    return Part(folder, name, help_line, own, constants, tuple(problems), place, path, lines)


def _parsed(path: Path) -> tuple[ast.Module | None, str]:
    """Return the syntax tree of a file, or what stands against it."""
    try:
        source = reading.content(path, reading.SETTINGS)
        return ast.parse(source, filename=str(path)), ""
    except SyntaxError as error:
        return None, f"line {error.lineno or 1}: it is not Python: {error.msg}"
    except ValueError as error:  # a null byte, in Python 3.11
        line = source[: source.find(b"\0")].count(b"\n") + 1
        return None, f"line {line}: it is not Python: {error}"
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    except InputError as error:
        return None, f"line 1: {error}"

"""What the file of a part declares: options by its entry functions, constants by upper-case names.

All of it is read from the syntax tree, without import. Each folder knows the names of its constants
and what their values must be. Any other upper-case name at the top of the file is a problem, so
that a misspelt one is not passed over; constants that concern the file alone begin with `_`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from advkit.errors import unknown
from advkit.formulas.threat import STARTS
from advkit.options import Option, readable

Options = Mapping[str, Option]

KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bool": bool,
}
"""Kinds of options, and what their defaults are."""
TEACHERS = ("teacher", "natural-teacher")
"""Roles of the fixed nets that an objective may call; each has an option of that name."""


@dataclass(frozen=True)
class Rule:
    """What a declared value must be: in words, and as a check that may look at the options."""

    words: str
    holds: Callable[[object, Options], bool]


def _words(*known: str) -> Rule:
    return Rule(
        f"a tuple of {', '.join(known)}",
        lambda value, _: isinstance(value, tuple) and bool(value) and {*value} <= {*known},
    )


def _choices_of_options(value: object, options: Options) -> bool:
    return isinstance(value, dict) and all(
        name in options
        and isinstance(words, list | tuple)
        and {*words} <= {*(options[name].choices or words)}
        and all(isinstance(word, str) for word in words)
        for name, words in value.items()
    )


def _limits(value: object, options: Options) -> bool:
    return isinstance(value, dict) and all(
        name in options and isinstance(limits, str) and readable(limits)
        for name, limits in value.items()
    )


# `type(value) is int` below, not isinstance: True would be a count of 1.
_SIZES = {"train", "test", "classes", "channels", "size"}
_FLAG = Rule("True or False", lambda value, _: isinstance(value, bool))
_TEXT = Rule("a line of text", lambda value, _: isinstance(value, str) and value.isprintable())
_COUNT = Rule("a number of 1 or more", lambda value, _: type(value) is int and value >= 1)
_COUNTS = Rule(
    "a tuple of numbers of 1 or more",
    lambda value, options: (
        isinstance(value, tuple)
        and bool(value)
        and all(_COUNT.holds(number, options) for number in value)
    ),
)
_OPTION = Rule("the name of an option", lambda value, options: value in [*options])
_OPTION_NAMES = Rule(
    "a tuple of names of options",
    lambda value, options: isinstance(value, tuple) and all(name in [*options] for name in value),
)
_LIMITS = Rule('{option: limits}, such as {"share": "[0, 1]"} or {"steps": ">= 1"}', _limits)
_WORDS_OF_OPTIONS = Rule('{option: its words}, such as {"inner": ("kl",)}', _choices_of_options)
_START = Rule(
    f"one of {', '.join(STARTS)}", lambda value, _: isinstance(value, str) and value in STARTS
)
_PUBLISHED = Rule(
    f"a dict of numbers: {', '.join(sorted(_SIZES))}",
    lambda value, options: (
        isinstance(value, dict)
        and {*value} == _SIZES
        and all(_COUNT.holds(number, options) for number in value.values())
    ),
)

_DECLARATIONS: dict[str, dict[str, Rule]] = {
    "data": {"FILES": _FLAG, "PUBLISHED": _PUBLISHED},
    "models": {"CHANNELS": _COUNTS},
    "augment": {"VIEWS": _FLAG, "CROPPED": _FLAG, "MIXES": _FLAG, "BY_IMAGE": _FLAG},
    "labels": {"NEEDS": _words("ema", "soft")},
    "objectives": {
        "NEEDS": _words(*TEACHERS),
        "BEGINS": _OPTION_NAMES,
        "START": _START,
        "ATTACKS": _FLAG,
        "CLEAN_WHEN": _WORDS_OF_OPTIONS,
    },
    "attacks": {"NEEDS": _words("surrogate"), "LIKE_AUTOATTACK": _FLAG},
    "analyses": {
        "KINDS": _words("checkpoint", "labels", "logits"),
        "COMPARES": _FLAG,
        "PROBES": _FLAG,
        "PICTURE": _FLAG,
        "OVERLAY": _FLAG,
        "FORMATS": _words(".md", ".tex", ".html"),
        "NEEDS": _words("outside"),
        "ALONE": _OPTION,
        "WORDS": _WORDS_OF_OPTIONS,
        "LIMIT": _COUNT,
        "CHECKPOINTS": _OPTION_NAMES,
        "PLACES": _OPTION_NAMES,
        "EXAMPLE": _TEXT,
    },
}
DECLARATIONS = {folder: rules | {"LIMITS": _LIMITS} for folder, rules in _DECLARATIONS.items()}
"""Folder → declared name → what its value must be."""


def constants(folder: str, tree: ast.Module, options: Options) -> tuple[dict[str, Any], list[str]]:
    """Return the proper declarations of a part by name, and what is wrong with the others.

    Each problem says its line.
    """
    rules = DECLARATIONS[folder]
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, node, line in _assigned(tree):
        if name not in rules:
            if name.isupper():
                error = unknown("declaration", name, rules)
                problems.append(f"line {line}: {error}; the file's own constants begin with _")
            elif name.upper() in rules:
                problems.append(f"line {line}: {name} declares nothing: write {name.upper()}")
            continue
        try:
            value = ast.literal_eval(node) if node else None
            proper = rules[name].holds(value, options)
        except (ValueError, TypeError):  # computed, or with members that no set can hold
            proper = False
        if proper:
            values[name] = value
        else:
            shown = ast.unparse(node) if node else "this"
            problems.append(f"line {line}: {name}: {shown} is not {rules[name].words}")
    return values, problems


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None, int]]:
    """Yield every public name that the top of a file binds: name, value and line.

    The value is None where it is not the whole of one assignment's right side.
    """
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        whole: ast.expr | None = None
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets, whole = node.targets, node.value
        elif isinstance(node, ast.AnnAssign):
            targets, whole = [node.target], node.value
        # Walked, not read off the targets: names are bound by `for`, `with`, `if` and := as well.
        for name in ast.walk(node):
            if not isinstance(name, ast.Name) or not isinstance(name.ctx, ast.Store):
                continue
            if not name.id.startswith("_"):
                yield name.id, whole if name in targets else None, name.lineno


def options(node: ast.FunctionDef) -> Iterator[tuple[Option, str]]:
    """Yield each option of an entry function, and what is wrong with it or nothing."""
    helps = _argument_help(ast.get_docstring(node) or "")
    # Keyword-only without a default is what the engine supplies, such as a generator: no option.
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is None:
            continue
        kind, choices = _kind(arg.annotation)
        value, wrong = None, ""
        try:
            value = ast.literal_eval(default)
        except ValueError:
            wrong = f"the default of {arg.arg}, {ast.unparse(default)}, is not a plain literal"
        if arg.annotation is None:
            spelt = f"{arg.arg}: {type(value).__name__} = {ast.unparse(default)}"
            wrong = f"{arg.arg} has no annotation: write {spelt}"
        elif kind not in KINDS:
            wrong = f"{arg.arg} is {kind}, not one of {', '.join(KINDS)}, Literal of words"
        elif value is not None and not (isinstance(value, KINDS[kind]) and _among(value, choices)):
            of = f"one of {', '.join(choices)}" if choices else f"of kind {kind}"
            wrong = f"the default of {arg.arg}, {value!r}, is not {of}"
        kind, value = ("str", None) if wrong else (kind, value)
        helped = helps.get(arg.arg, "")
        option = Option(arg.arg.rstrip("_"), kind, value, helped, choices=choices)
        yield option, wrong and f"line {arg.lineno}: {wrong}"


def _among(value: object, choices: tuple[str, ...]) -> bool:
    return not choices or value in choices


def _kind(annotation: ast.expr | None) -> tuple[str, tuple[str, ...]]:
    """Return kind and choices: `int | None` is an int, `Literal["a"] | None` a choice of words."""
    if annotation is None:
        return "str", ()
    kinds = [kind for kind in _alternatives(annotation) if ast.unparse(kind) != "None"]
    literal = re.fullmatch(r"Literal\[(.*)\]", ast.unparse(kinds[0])) if len(kinds) == 1 else None
    if literal:
        words = ast.literal_eval(f"({literal[1]},)")
        choices = tuple(word for word in words if word is not None)
        if all(isinstance(word, str) for word in choices):
            return "str", choices
    return " | ".join(ast.unparse(kind) for kind in kinds), ()


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    """Split `A | B | C`; `Optional[A]` is A.

    >>> [ast.unparse(one) for one in _alternatives(ast.parse("int | None", mode="eval").body)]
    ['int', 'None']
    """
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _alternatives(annotation.left) + _alternatives(annotation.right)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Optional":
        return _alternatives(annotation.slice)
    return [annotation]


def _argument_help(doc: str) -> dict[str, str]:
    block = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    if not block:
        return {}
    entries = re.split(r"^    (?=\w+:)", block[1], flags=re.MULTILINE)
    pairs = (entry.split(":", 1) for entry in entries if ":" in entry)
    return {name.strip(): " ".join(text.split()).rstrip(".") for name, text in pairs}

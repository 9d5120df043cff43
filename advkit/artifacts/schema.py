"""Checks JSON against a type: TypedDicts, literals, lists, optional values, and limits on them.

Small on purpose: reading a description must not cost the import of a validation library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

WORDS = {
    str: "no text",
    int: "no whole number",
    float: "no number",
    bool: "not true or false",
    NoneType: "not null",
    list: "no list",
    dict: "no object",
}
Kind: TypeAlias = Any
"""A type as an annotation spells it: typing has no name for all of them."""
Rule = Callable[[Any], str]
"""Says what is wrong with a value of the right type; empty if nothing is."""


@dataclass(frozen=True)
class Within:
    """A rule: a number in [low, high]."""

    low: float
    high: float

    def __call__(self, value: float) -> str:
        """Say that the value is outside."""
        return "" if self.low <= value <= self.high else f"is not in {self.low:g}..{self.high:g}"


@dataclass(frozen=True)
class Sized:
    """A rule: text, a list or an object of so many characters or entries."""

    low: int
    high: int

    def __call__(self, value: Any) -> str:
        """Say that it is empty, or longer than anything a stage writes."""
        if len(value) < self.low:
            return "is empty" if not value else f"has {len(value)} entries, not {self.low} or more"
        return "" if len(value) <= self.high else f"has {len(value)} entries, over {self.high}"


def amount(text: str) -> float:
    """Read a decimal or a fraction without ever building a huge number.

    >>> amount("8/255") == 8 / 255
    True

    Raises:
        ValueError: it is none, or longer than anybody writes.
    """
    # Bounded lengths: an exponent of nine digits would be a Fraction that fills the memory.
    if not re.fullmatch(
        r"\s*\+?[0-9_]{0,20}\.?[0-9]{0,30}(e[+-]?[0-9]{1,2})?(/[0-9]{1,20})?\s*",
        text,
        re.IGNORECASE,
    ):
        raise ValueError
    try:
        return float(Fraction(text.strip()))
    except (ZeroDivisionError, OverflowError):
        raise ValueError from None


def fault(value: object, kind: Kind) -> str:
    """Return the first thing that keeps JSON from being of a type; empty if nothing does.

    >>> fault({"n": "3"}, dict[str, int])
    'n is no whole number'
    """
    return next(_faults(value, kind, ""), "")


@cache
def fields(kind: type) -> Mapping[str, tuple[Kind, bool]]:
    """Return a TypedDict's keys: the type of each, and whether it has to be there."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: (get_args(hint)[0], False) if get_origin(hint) is NotRequired else (hint, True)
        for name, hint in hints.items()
    }


def _faults(value: object, kind: Kind, key: str) -> Iterator[str]:
    origin: Kind = get_origin(kind)
    if kind in (Any, object):
        return
    if origin is Annotated:
        base, *rules = get_args(kind)
        # A size comes first: the entries of a list that is far too long are not looked at.
        sizes = [rule for rule in rules if isinstance(rule, Sized)]
        if _plainly(value, get_origin(base) or base if not is_typeddict(base) else dict):
            yield from (_join(key, text) for rule in sizes if (text := rule(value)))
        wrong = next(_faults(value, base, key), "")
        # A rule may rest on the type, so that a wrong type is all that is said of a value.
        broken = (text for rule in rules if (text := rule(value)))
        yield from [wrong] if wrong else (_join(key, text) for text in broken)
    elif origin in (Union, UnionType):
        alternatives = [next(_faults(value, one, key), "") for one in get_args(kind)]
        if all(alternatives):
            yield alternatives[0]
    elif origin is Literal:
        # 1 == True == 1.0 in Python, and they are three things in JSON.
        if not any(value == word and type(value) is type(word) for word in get_args(kind)):
            yield f"{key} is none of {', '.join(map(str, get_args(kind)))}"
    elif is_typeddict(kind):
        yield from _members(value, kind, key)
    elif (origin or kind) in (list, dict):
        yield from _entries(value, origin or kind, get_args(kind), key)
    elif not _plainly(value, kind):
        yield f"{key} is {WORDS[kind]}"


def _members(value: object, kind: type, key: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{key or 'it'} is no object"
        return
    for name, (hint, required) in fields(kind).items():
        place = f"{key}.{name}" if key else name
        if name in value:
            yield from _faults(value[name], hint, place)
        elif required:
            yield f"{place} is missing"


def _entries(value: object, kind: type, inner: tuple[Kind, ...], key: str) -> Iterator[str]:
    if not isinstance(value, kind):
        yield f"{key} is {WORDS[kind]}"
        return
    entries = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    for name, entry in entries:
        yield from _faults(entry, inner[-1], f"{key}.{name}" if key else str(name))


def _plainly(value: object, kind: type) -> bool:
    """Whether a value is of a plain type; no number is NaN, infinite, or true."""
    if isinstance(value, bool):
        return kind is bool  # a bool is an int to Python
    if kind is float:
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, kind)


def _join(key: str, text: str) -> str:
    """Put a rule's words behind the key; a rule over a whole object names its own."""
    return f"{key}.{text[1:]}".lstrip(".") if text.startswith(".") else f"{key} {text}"

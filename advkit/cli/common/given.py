"""Parameters that read only what was typed.

A command has up to 150 options, most of them not given. Newer Typers make a reader for each by
pydantic, whose import alone takes half as long as a whole help; what is not given needs none, nor
do text and plain numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer
from typer.core import TyperArgument, TyperOption

from advkit.options import misread

if TYPE_CHECKING:
    from typer._click import Context, Parameter

# Nothing that readers could take in two ways: no leading zeros, spaces, `_` or other digits.
_INT = re.compile(r"-?(0|[1-9][0-9]{0,8})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,15})?")

Kind = TypeVar("Kind", "GivenOption", "GivenArgument")


def plain(kind: type, value: object) -> object:
    """Return a value that any reader would read like this, or None: Typer's own has to see it.

    >>> plain(int, "12"), plain(float, "-0.25"), plain(int, "012"), plain(float, "1e3")
    (12, -0.25, None, None)
    """
    if isinstance(value, list | tuple):
        return value if kind is str and all(isinstance(word, str) for word in value) else None
    if not isinstance(value, str):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is str:
        return value
    pattern = {int: _INT, float: _FLOAT}.get(kind)
    return kind(value) if pattern is not None and pattern.fullmatch(value) else None


class GivenOption(TyperOption):
    """An option; `kind` is what its value, or each of several, is read as."""

    kind: type = object

    def process_value(self, ctx: Context, value: object) -> object:
        """Return the value of what was typed, None where nothing was."""
        read = None if value is None else plain(self.kind, value)
        if read is None and value is not None:
            return self._typers(ctx, value)
        return read if self.callback is None else self.callback(ctx, self, read)

    def _typers(self, ctx: Context, value: object) -> object:
        """Return what Typer reads; what it says of a bad number depends on its version.

        Raises:
            UsageError: no number, in our words.
        """
        if self.kind not in (int, float):
            return super().process_value(ctx, value)
        try:
            return super().process_value(ctx, value)
        except typer.BadParameter:
            raise misread(max(self.opts, key=len), value, self.kind.__name__) from None


class GivenArgument(TyperArgument):
    """An argument, likewise."""

    kind: type = object

    def process_value(self, ctx: Context, value: object) -> object:
        """Return the value of what was typed, None where nothing was."""
        read = None if value is None else plain(self.kind, value)
        if read is None and value is not None:
            return super().process_value(ctx, value)
        return read


def given(parameters: Sequence[Parameter], kinds: Mapping[str, type]) -> list[Parameter]:
    """Return parameters that read only what was typed.

    Args:
        parameters: none of them required.
        kinds: what values are read as, by the parameter's name; any other's are left to Typer.
    """
    made: list[Parameter] = []
    for one in parameters:
        kind = kinds.get(one.name or "", object)
        if isinstance(one, TyperOption):
            made.append(_made(GivenOption, one, kind))
        elif isinstance(one, TyperArgument):
            made.append(_made(GivenArgument, one, kind))
        else:
            made.append(one)
    return made


def flag(option: TyperOption | None) -> TyperOption | None:
    """Return an option that takes no value, such as `--help`, as one that reads only that."""
    return option if option is None else _made(GivenOption, option, bool)


def _made(cls: type[Kind], like: Parameter, kind: type) -> Kind:
    """Return a parameter of another class with all that one has."""
    new = cls.__new__(cls)
    vars(new).update(vars(like))
    new.kind = kind
    return new

"""What was meant by an option or a command that there is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from advkit.errors import brief, did_you_mean

if TYPE_CHECKING:
    from typer._click import Context, Parameter

OPTION, COMMAND = "No such option", "No such command"
"""How Typer's own messages begin."""


def message(error: typer.TyperException) -> str:
    """Return Typer's message in one line, with what may have been meant."""
    words = " ".join(error.format_message().split()).rstrip(".")
    context: Context | None = getattr(error, "ctx", None)
    if context is None:
        return words
    if words.startswith(OPTION):
        typed = str(getattr(error, "option_name", ""))
        return _hinted(OPTION, typed, _flags(context.command.get_params(context)))
    if words.startswith(COMMAND):
        # Typer's own neighbours stand behind the name, nearest by letters alone.
        typed = words.removeprefix(COMMAND).strip().partition(". Did you mean ")[0].strip("'\"")
        known = getattr(context.command, "list_commands", None)
        return _hinted(COMMAND, typed, known(context) if known else ())
    return words


def _flags(parameters: Iterable[Parameter]) -> Iterator[str]:
    for one in parameters:
        # An argument is no option, but has its name where an option has its flags.
        yield from (flag for flag in (*one.opts, *one.secondary_opts) if flag.startswith("--"))


def _hinted(what: str, typed: str, names: Iterable[str]) -> str:
    return f"{what}: {brief(typed)}: {did_you_mean(typed, names)}".rstrip(": ")

"""What was meant by an option or a command that there is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from advkit.cli.common.page import OneCommand
from advkit.errors import brief, did_you_mean, near, same

if TYPE_CHECKING:
    from typer._click import Context, Parameter

OPTION, COMMAND = "No such option", "No such command"
"""How Typer's own messages begin."""
MOST = 3
"""Answers to one mistyped option."""


def message(error: typer.TyperException) -> str:
    """Return Typer's message in one line, with what may have been meant."""
    words = " ".join(error.format_message().split()).rstrip(".")
    context: Context | None = getattr(error, "ctx", None)
    if context is None:
        return words
    if words.startswith(OPTION):
        typed = str(getattr(error, "option_name", ""))
        command = context.command
        taken = command.words if isinstance(command, OneCommand) else None
        flags = [*_flags(command.get_params(context))]
        root = context.find_root()
        if typed in _flags(root.command.get_params(root)):  # --version of `advkit train`
            return _answered(OPTION, typed, [f"{root.info_name} {typed}"])
        return _answered(OPTION, typed, _meant(typed, flags, taken() if taken else {}))
    if words.startswith(COMMAND):
        # Typer's own neighbours stand behind the name, nearest by letters alone.
        typed = words.removeprefix(COMMAND).strip().partition(". Did you mean ")[0].strip("'\"")
        known = getattr(context.command, "list_commands", None)
        return _answered(COMMAND, typed, near(typed, known(context) if known else ()))
    return words


def _flags(parameters: Iterable[Parameter]) -> Iterator[str]:
    for one in parameters:
        # An argument is no option, but has its name where an option has its flags.
        yield from (flag for flag in (*one.opts, *one.secondary_opts) if flag.startswith("--"))


def _meant(typed: str, flags: Sequence[str], words: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what may have been meant by an option: one of that name, or a value of one.

    `--pgd` is nearer to `--attack pgd` than to any option that is spelt almost like it.
    """
    close = near(typed, flags)
    names = near(typed, {word for taken in words.values() for word in taken})
    exact = names[:1] if names and same(typed, names[0]) else []
    if close and (same(typed, close[0]) or not exact):
        return close
    values = [
        f"{flag} {word}"
        for word in exact or names
        for flag, taken in words.items()
        if word in taken
    ]
    return values[:MOST]


def _answered(what: str, typed: str, meant: Sequence[str]) -> str:
    return f"{what}: {brief(typed)}: {did_you_mean(meant)}".rstrip(": ")

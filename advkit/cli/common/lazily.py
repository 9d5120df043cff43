"""Commands that are made when they are asked for: most calls need one of all there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup, TyperOption

from advkit.cli.common import options, shorter
from advkit.cli.common.failures import perform
from advkit.cli.common.given import flag, given
from advkit.cli.common.options import Command
from advkit.cli.common.page import OneCommand, page

if TYPE_CHECKING:
    from typer._click import Command as Made
    from typer._click import Context


class Commands(MutableMapping[str, "Made"]):
    """Commands by name, each made at its first use; names and helps are there before."""

    def __init__(self, makers: dict[str, tuple[str, Callable[[], Made]]]) -> None:
        """Take (help, what makes the command) by name."""
        self.makers = makers
        self.made: dict[str, Made] = {}

    def __getitem__(self, name: str) -> Made:
        if name not in self.made:
            self.made[name] = self.makers[name][1]()
        return self.made[name]

    def __setitem__(self, name: str, command: Made) -> None:
        self.makers[name] = (command.help or "", lambda: command)

    def __delitem__(self, name: str) -> None:
        del self.makers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


class Group(TyperGroup):
    """A group with plain help that makes its commands when they are asked for."""

    commands: MutableMapping[str, Made]
    helper: TyperOption | None = None

    def get_help(self, ctx: Context) -> str:
        """Return its help, without making any command."""
        known = self.commands
        rows = known.makers.items() if isinstance(known, Commands) else ()
        return page(ctx, [(name, first_line(text)) for name, (text, _) in rows])

    def get_help_option(self, ctx: Context) -> TyperOption | None:
        """Return `--help`, the same object at each call."""
        if self.helper is None:
            self.helper = flag(super().get_help_option(ctx))
        return self.helper

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names, in their order."""
        return [*self.commands]


def first_line(text: str) -> str:
    """Return the first line of a help."""
    return text.strip().partition("\n")[0]


def group(name: str, text: str, commands: tuple[Command, ...]) -> Group:
    """Return a group of commands."""
    made = Group(name=name, help=text)
    made.commands = Commands({one.name: (one.help, partial(command, one)) for one in commands})
    return made


def command(one: Command) -> Made:
    """Return one command as Typer makes it: its parameters from a signature."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    every = one.every
    options.add(app, one, every, perform)
    made = typer.main.get_command(app)
    assert isinstance(made, OneCommand)
    made.params = given(made.params, {**options.kinds(every), "help_all": bool})
    made.prose = partial(shorter.prose, one)
    made.words = partial(options.words, every)
    if shorter.is_long(every):
        made.left_out = partial(shorter.left_out, one, every)
    return made

"""The commands together, and the one place where failures become exit codes."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advkit import __version__, registry
from advkit.cli import listing
from advkit.cli.common import lazily, plain
from advkit.cli.common.failures import guarded, settle_stderr
from advkit.cli.common.given import given
from advkit.cli.common.options import Command, places_of_parts
from advkit.errors import StorageError, UsageError
from advkit.runtime import memory, signals
from advkit.runtime.progress import say

if TYPE_CHECKING:
    from typer._click import Command as Made

HELP = """Adversarial training of image classifiers as composable stages.

Example: advkit train --data digits --method adr | advkit attack --autoattack
| advkit analyze calibration

Each stage reads artifacts (files, or the records of the stage before it on stdin), writes
artifacts, and prints one record for each on stdout: a line at a terminal, JSON elsewhere.
"""


def command(name: str) -> Command:
    """Return a command of the top level."""
    made = import_module(listing.COMMANDS[name].module).COMMAND
    assert isinstance(made, Command)
    return made


def commands() -> tuple[Command, ...]:
    """Return the commands of the top level."""
    return tuple(command(name) for name in listing.COMMANDS)


def group(name: str) -> tuple[Command, ...]:
    """Return a group as it is now: an analysis of somebody else's is a command too."""
    made: tuple[Command, ...] = import_module(listing.GROUPS[name].module).commands()
    return made


def groups() -> dict[str, tuple[str, tuple[Command, ...]]]:
    """Return each group's help and commands as they are now."""
    return {name: (listed.help, group(name)) for name, listed in listing.GROUPS.items()}


def _show_version(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        print(f"advkit {__version__}")
        if ctx.params.get("verbose"):
            from advkit.cli.common.version import surroundings  # imports torch

            print("\n".join(surroundings()))
        raise typer.Exit
    if ctx.params.get("verbose") and not ctx.resilient_parsing:
        raise UsageError("-v belongs to --version here: of a command it comes behind its name")


VERSION = typer.Option("--version", help="Print the version.", callback=_show_version)
# Eager: it is read before --version, wherever it stands.
VERBOSE = typer.Option(
    "--verbose", "-v", is_eager=True, help="With --version: torch, device, threads and Python too."
)


def build() -> lazily.Group:
    """Return the program."""
    app = typer.Typer(
        cls=lazily.Group,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(help=HELP)
    def top(
        verbose: Annotated[bool, VERBOSE] = False, version: Annotated[bool, VERSION] = False
    ) -> None:
        del version, verbose  # the callback has done the work

    program = typer.main.get_command(app)
    assert isinstance(program, lazily.Group)
    program.params = given(program.params, {"version": bool, "verbose": bool})
    program.commands = lazily.Commands(
        {
            **{name: (one.help, partial(_one, name)) for name, one in listing.COMMANDS.items()},
            **{name: (one.help, partial(_several, name)) for name, one in listing.GROUPS.items()},
        }
    )
    return program


def _one(name: str) -> Made:
    return lazily.command(command(name))


def _several(name: str) -> Made:
    return lazily.group(name, listing.GROUPS[name].help, group(name))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    words = [word for word in arguments if not word.startswith("-")]
    stage = " ".join(words[: 2 if words and words[0] in listing.GROUPS else 1])
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (for the life of the process)
    # Python has None where the caller closed the descriptor (`>&-`).
    if sys.stdout is None:
        say(stage, "error: stdout is closed: there is nowhere to put a record")
        return StorageError.code
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of ASCII shows what it can; records are ASCII anyway.
            stream.reconfigure(errors=plain.NAME)
    before = {number: signal.getsignal(number) for number in signals.HANDLED}
    signals.install()
    memory.take_over()  # the process is ours: its allocator may be told to keep what is freed

    def work() -> int:
        # Their options are options of the commands, which are made of them.
        with registry.using(*places_of_parts(arguments)):
            return _invoke(arguments)

    try:
        return guarded(stage, "--debug" in arguments, work)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signals.release()
        memory.take_over(False)
        settle_stderr()


@cache
def _program(generation: int) -> Callable[..., object]:
    """Return the application, ready to be called: made once in a process for the same parts."""
    del generation  # it says that they are the same
    return build()


def _invoke(arguments: list[str]) -> int:
    """Let Typer parse and call.

    Raises:
        UsageError: the command line is wrong; Typer's own message, in one line.
    """
    # Outside its standalone mode Typer raises instead of printing in its own form and exiting.
    try:
        program = _program(registry.generation())
        code = program(arguments, standalone_mode=False, prog_name="advkit")
    except typer.TyperException as error:
        from advkit.cli.common import mistyped  # a mistake alone has use for it

        message = mistyped.message(error)
        if message == "Missing command":
            raise UsageError(f"name a command: {', '.join(_commands(arguments))}") from None
        wrong = UsageError(f"{message} (see --help)")
        raise (registry.blaming(wrong) if message.startswith(mistyped.OPTION) else wrong) from None
    except typer.Abort:
        raise UsageError("aborted") from None
    return code if isinstance(code, int) else 0


def _commands(arguments: list[str]) -> list[str]:
    named = next((word for word in arguments if word in listing.GROUPS), None)
    if named is not None:
        return [one.name for one in group(named)]
    return [*listing.COMMANDS, *listing.GROUPS]

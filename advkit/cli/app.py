"""The commands together, and the one place where failures become exit codes."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from advkit import __version__, registry
from advkit.cli import (
    analyze,
    attack,
    bench,
    data,
    export,
    import_weights,
    inspect,
    parts,
    presets,
    pretrain_teacher,
    recipes,
    search,
    softlabels,
    train,
)
from advkit.cli.common import mistyped, options
from advkit.cli.common.failures import guarded, perform, settle_stderr
from advkit.cli.common.options import Command, places_of_parts
from advkit.errors import StorageError, UsageError
from advkit.runtime import memory, signals
from advkit.runtime.progress import say

HELP = """Adversarial training of image classifiers as composable stages.

Each stage reads artifacts (files, or the records of the stage before it on stdin), writes
artifacts, and prints one JSON record for each on stdout.

Example: advkit train --data digits --method adr | advkit attack --autoattack
| advkit analyze calibration
"""

COMMANDS: tuple[Command, ...] = (
    pretrain_teacher.COMMAND,
    softlabels.COMMAND,
    train.COMMAND,
    attack.COMMAND,
    import_weights.COMMAND,
    export.COMMAND,
    inspect.COMMAND,
    presets.COMMAND,
    bench.COMMAND,
)
GROUPS: dict[str, tuple[str, tuple[Command, ...] | Callable[[], tuple[Command, ...]]]] = {
    "analyze": ("Numbers and pictures from logits files.", analyze.commands),
    "search": ("Searches for the numbers that a method needs.", search.COMMANDS),
    "data": ("Data sets: what there is, what one holds, and fetching one.", data.COMMANDS),
    "parts": (
        "Parts: what there is, checks of your own, and one to begin with.",
        parts.COMMANDS,
    ),
    "recipes": (
        "Scripts for the papers' tables: what there is, and copies of them.",
        recipes.COMMANDS,
    ),
}


def groups() -> dict[str, tuple[str, tuple[Command, ...]]]:
    """Return the groups as they are now: an analysis of somebody else's is a command too."""
    return {
        name: (text, commands() if callable(commands) else commands)
        for name, (text, commands) in GROUPS.items()
    }


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"advkit {__version__}")
        raise typer.Exit


VERSION = typer.Option(
    "--version", help="Print the version.", callback=_show_version, is_eager=True
)


def build() -> typer.Typer:
    """Return the application."""
    app = typer.Typer(
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(help=HELP.replace("[", "\\["))
    def top(version: Annotated[bool, VERSION] = False) -> None:
        del version  # its callback has done the work

    for command in COMMANDS:
        options.add(app, command, perform)
    for name, (text, commands) in groups().items():
        group = typer.Typer(help=text)
        for command in commands:
            options.add(group, command, perform)
        app.add_typer(group, name=name)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    words = [word for word in arguments if not word.startswith("-")]
    stage = " ".join(words[: 2 if words and words[0] in GROUPS else 1])
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (for the life of the process)
    # Python has None where the caller closed the descriptor (`>&-`).
    if sys.stdout is None:
        say(stage, "error: stdout is closed: there is nowhere to put a record")
        return StorageError.code
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of ASCII shows what it can; records are ASCII anyway.
            stream.reconfigure(errors="backslashreplace")
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
    return typer.main.get_command(build())


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
        message = mistyped.message(error)
        if message == "Missing command":
            raise UsageError(f"name a command: {', '.join(_commands(arguments))}") from None
        wrong = UsageError(f"{message} (see --help)")
        raise (registry.blaming(wrong) if message.startswith(mistyped.OPTION) else wrong) from None
    except typer.Abort:
        raise UsageError("aborted") from None
    return code if isinstance(code, int) else 0


def _commands(arguments: list[str]) -> list[str]:
    group = next((word for word in arguments if word in GROUPS), None)
    if group is not None:
        return [command.name for command in groups()[group][1]]
    return [*(command.name for command in COMMANDS), *GROUPS]

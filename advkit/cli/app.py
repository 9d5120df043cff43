"""The commands together, and the one place where failures become exit codes."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from advkit import __version__, signals
from advkit.cli import (
    analyze,
    attack,
    data,
    inspect,
    options,
    presets,
    pretrain_teacher,
    softlabels,
    train,
)
from advkit.cli.options import Command
from advkit.cli.stage import call, guarded
from advkit.errors import UsageError

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
    inspect.COMMAND,
    presets.COMMAND,
)
GROUPS: dict[str, tuple[str, tuple[Command, ...]]] = {
    "analyze": ("Numbers and pictures from logits files.", analyze.COMMANDS),
    "data": ("Data sets: what there is, what one holds, and fetching one.", data.COMMANDS),
}


def build() -> typer.Typer:
    """Return the application."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(help=HELP.replace("[", "\\["))
    def top(
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        if version:
            print(f"advkit {__version__}")
            raise typer.Exit

    for command in COMMANDS:
        options.add(app, command, call)
    for name, (text, commands) in GROUPS.items():
        group = typer.Typer(no_args_is_help=True, help=text)
        for command in commands:
            options.add(group, command, call)
        app.add_typer(group, name=name)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    words = [word for word in arguments if not word.startswith("-")]
    stage = " ".join(words[: 2 if words and words[0] in GROUPS else 1])
    before = {each: signal.getsignal(each) for each in signals.HANDLED}
    signals.install()
    try:
        return guarded(stage, "--debug" in arguments, lambda: _invoke(arguments))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _invoke(arguments: list[str]) -> int:
    """Let Typer parse and call.

    Raises:
        UsageError: the command line is wrong; Typer's own message, in one line.
    """
    try:
        code = build()(arguments, standalone_mode=False, prog_name="advkit")
    except typer.TyperException as error:
        message = error.format_message()
        if "\n" in message or not message:  # no command was given: that is the help text
            print(message, file=sys.stderr)
            raise UsageError("name a command") from None
        raise UsageError(f"{_unquoted(message)} (see --help)") from None
    except typer.Abort:
        raise UsageError("aborted") from None
    return code if isinstance(code, int) else 0


def _unquoted(message: str) -> str:
    return " ".join(message.split()).rstrip(".")

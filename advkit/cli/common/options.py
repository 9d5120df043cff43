"""From options as data to Typer parameters, and the options that stages share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from advkit import registry
from advkit.config import methods
from advkit.formulas.threat import NORMS
from advkit.options import Option

Given = dict[str, Any]
"""Option name → value; None where it was not given."""

SHORT = {"out": "-o", "quiet": "-q", "verbose": "-v"}
TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool}
"""Kinds that Typer parses itself; all others arrive as text."""

DIALOGUE = "Output and diagnosis"


def _shared(name: str, kind: str, text: str, panel: str, choices: tuple[str, ...] = ()) -> Option:
    return Option(name, kind, None, text, panel, choices)


OUT = _shared("out", "str", "where the result goes", DIALOGUE)
OVERWRITE = _shared("overwrite", "bool", "replace what lies there", DIALOGUE)
TALK = (
    _shared("json", "bool", "print records as JSON lines at a terminal too", DIALOGUE),
    _shared("quiet", "bool", "no progress, only warnings and errors", DIALOGUE),
    _shared("verbose", "bool", "also what libraries say", DIALOGUE),
    _shared("debug", "bool", "tracebacks", DIALOGUE),
)
MACHINE = (
    _shared("device", "str", "auto, cpu, cuda, cuda:N or mps (auto)", "Machine"),
    _shared("threads", "int", "CPU threads; 1 for tiny nets, else one a core", "Machine"),
)
SHARD = _shared("shard", "str", "I/N: the I-th of N shards, in a file of its own", "Machine")
MERGE = _shared("merge", "bool", "join the files of all shards into the whole one", "Actions")
DATA_ROOT = _shared("data_root", "str", "where data sets lie (env ADVKIT_DATA)", "Data")
NORM = _shared("norm", "str", "norm of the perturbation; the checkpoint's", "Attack", NORMS)
EPS = _shared("eps", "str", "radius in pixel space, 8/255 or 0.03; the checkpoint's", "Attack")


@dataclass(frozen=True)
class Command:
    """One command: `run` gets what was given and yields records.

    `argument` names the input files, if there are any; `listing` names registry folders whose
    parts the help lists.
    """

    name: str
    help: str
    options: Sequence[Option]
    run: Callable[[Given], Any]
    argument: str = ""
    listing: tuple[str, ...] = ()
    example: str = ""
    single: bool = field(default=False)

    @property
    def every(self) -> tuple[Option, ...]:
        """Its own options and those of every command."""
        return (*self.options, *TALK)


def add(app: typer.Typer, command: Command, call: Callable[[Command, Given], None]) -> None:
    """Register a command; Typer reads its parameters from a signature made here."""

    def callback(**given: Any) -> None:
        call(command, {name.rstrip("_"): value for name, value in given.items()})

    parameters = [_parameter(option) for option in command.every]
    if command.argument:
        parameters.insert(0, _argument(command))
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {each.name: each.annotation for each in parameters}
    app.command(command.name, help=_help(command))(callback)


def _help(command: Command) -> str:
    lines = [command.help]
    for folder in command.listing:
        found = registry.parts(folder).values()
        noun = registry.NOUNS[folder].capitalize()
        lines.append(f"{noun}:\n" + "\n".join(f"- {part.name}: {part.help}" for part in found))
    if command.example:
        lines.append(f"Example: {command.example}")
    return "\n\n".join(lines).replace("[", "\\[")


def _argument(command: Command) -> inspect.Parameter:
    kind: Any = str | None if command.single else list[str] | None
    text = "files; - or nothing reads records or paths from stdin"
    annotation = Annotated[
        kind, typer.Argument(help=text, metavar=command.argument, show_default=False)
    ]
    return _keyword("files", annotation)


def _parameter(option: Option) -> inspect.Parameter:
    text = option.help
    if option.default is not None and option.default != "":
        shown = str(option.default).lower() if option.kind == "bool" else option.default
        text += f" ({shown})"
    flags = [option.flag]
    if option.kind == "bool" and option.panel not in (DIALOGUE, "Actions"):
        flags = [f"{option.flag}/--no-{option.flag[2:]}"]
    if option.name in SHORT:
        flags.append(SHORT[option.name])
    metavar = "|".join(option.choices) if option.choices else None
    typed = TYPES.get(option.kind, str)
    info = typer.Option(
        *flags,
        help=text.replace("[", "\\["),
        metavar=metavar,
        show_default=False,
        rich_help_panel=option.panel or None,
        autocompletion=_completer(option),
        envvar="ADVKIT_DATA" if option.name == "data_root" else None,
        show_envvar=False,
    )
    name = option.name + "_" if option.name in ("lambda",) else option.name
    return _keyword(name, Annotated[typed | None, info])


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _completer(option: Option) -> Callable[[str], list[str]] | None:
    folders = {"objective": "objectives", "arch": "models"}
    folders |= {name: name for name in ("labels", "data")} | {"attack": "attacks"}
    if option.choices:
        words = list(option.choices)
    elif option.name == "method":
        words = methods.names()
    elif option.name in folders:
        words = list(registry.parts(folders[option.name]))
    else:
        return None

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete

"""From options as data to Typer parameters, and the options that stages share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import typer

from advkit import registry
from advkit.artifacts.record import Record
from advkit.cli.common import shorter
from advkit.cli.common.page import OneCommand, show_all
from advkit.config import methods
from advkit.config.machine import DIALOGUE, Machine, Output, Sharded
from advkit.options import TEXTS, Option, StageOptions, declared, options_of
from advkit.parallel import ranks
from advkit.runtime import progress
from advkit.runtime.reporting import Reporter

FOLDERS = "DIR"
MANY = (FOLDERS, TEXTS)
"""Kinds of options that may be given several times."""
SHORT = {"out": "-o", "quiet": "-q", "verbose": "-v"}
TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool}
"""Kinds that Typer parses itself; all others arrive as text."""
VALUES = {"int": "N", "float": "X", "ints": "N,N", FOLDERS: FOLDERS, TEXTS: TEXTS}
"""Kind → how the help calls a value of it; all others are text."""
NAMED = {
    **dict.fromkeys(("method", "objective", "labels", "arch", "augment", "attack"), "NAME"),
    **dict.fromkeys(("teacher", "natural_teacher", "init", "surrogate"), "CHECKPOINT"),
    **dict.fromkeys(("soft_labels", "config", "extra_data", "image_list"), "FILE"),
    **dict.fromkeys(("tau", "lambda"), "A:B"),
    **dict.fromkeys(("device", "name", "corruption"), "NAME"),
    "data": "NAME[:PATH]",
    "log": "NAMES",
    **dict.fromkeys(("plot", "oracle"), "FILE"),
    "size": "column|page|WxH",
    "against": "NAME",
    "data_root": "DIR",
    "out": "PATH",
    "eps": "EPS",
    "step_size": "EPS",
    "shard": "I/N",
}
"""Option → what a value of it is, where the kind says too little."""


SHELVES = {
    **{name: name for name in ("labels", "data", "augment")},
    "objective": "objectives",
    "arch": "models",
    "attack": "attacks",
}
"""Option → the registry folder whose parts it names."""


@dataclass(frozen=True, kw_only=True)
class Talk(StageOptions):
    """What every command is told about its output."""

    json: bool = declared(False, DIALOGUE, "print records as JSON lines at a terminal too")
    quiet: bool = declared(False, DIALOGUE, "no progress, only warnings and errors")
    verbose: bool = declared(False, DIALOGUE, "records in full at a terminal; what libraries say")
    debug: bool = declared(False, DIALOGUE, "tracebacks")


@dataclass(frozen=True, kw_only=True)
class Merge(StageOptions):
    """For stages whose work can be sharded."""

    merge: bool = declared(False, "Actions", "join the files of all shards into the whole one")


Stage = TypeVar("Stage", bound=StageOptions)


@dataclass(frozen=True)
class Call:
    """One call of a command: its input files and the options that were typed."""

    files: tuple[str, ...] = ()
    typed: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, files: str | Sequence[str] | None, parsed: Mapping[str, object]) -> Call:
        """Return a call from the parser's values; None is what was not given."""
        named = (files,) if isinstance(files, str) else tuple(files or ())
        return cls(named, {key: value for key, value in parsed.items() if value is not None})

    @cached_property
    def talk(self) -> Talk:
        """How records, progress and errors are to look."""
        return Talk.build(self.typed)

    def reporter(self, stage: str) -> Reporter:
        """Return the reporter of a stage; of the processes that torchrun started one speaks."""
        # With --shard the processes do separate work, and each speaks for its own.
        if ranks.rank() > 0 and not self.typed.get("shard"):
            return Reporter()
        return progress.reporter(stage, quiet=self.talk.quiet)

    def build(self, stage: type[Stage], **more: object) -> Stage:
        """Return the options of a stage.

        Raises:
            UsageError: impossible ones.
        """
        return stage.build({**self.typed, **more})

    def pick(self, options: Iterable[Option]) -> dict[str, object]:
        """Return those of the options that were typed, by name."""
        names = [option.name for option in options]
        return {name: self.typed[name] for name in names if name in self.typed}


def shown(declaring: type) -> tuple[Option, ...]:
    """Return a dataclass' own options as a command has them.

    What was not typed is None there, so that the default stands in the help alone.
    """
    return tuple(
        replace(option, default=None, help=_with_default(option))
        for option in options_of(declaring)
    )


def _with_default(option: Option) -> str:
    return option.help if _silent(option) else f"{option.help} ({option.default})"


def _silent(option: Option) -> bool:
    """Return whether a default says nothing that has to be shown."""
    return option.default is None or option.default is False or option.default in ("", ())


PARTS = Option(
    "parts",
    FOLDERS,
    None,
    "folder of your own parts, or FILE.py of a net (env ADVKIT_PARTS)",
    DIALOGUE,
)
DATA_ROOT, *MACHINE = shown(Machine)
(SHARD,) = shown(Sharded)
OUT, OVERWRITE = shown(Output)
HELP_ALL = typer.Option(
    "--help-all",
    help="Show every option, and what each part is.",
    is_eager=True,
    callback=show_all,
    show_default=False,
)
STAGE = (DATA_ROOT, *MACHINE, OUT, OVERWRITE)
"""What stages share: where the data lie, where to compute, and where the result goes."""


@dataclass(frozen=True)
class Command:
    """One command: `run` gets the call and yields records.

    `options` is a function where parts add to them, which may come with the call. `argument` names
    the input files, if there are any, and `about` says what they are; `listing` names registry
    folders whose parts the help lists.
    """

    name: str
    help: str
    options: Sequence[Option] | Callable[[], Sequence[Option]]
    run: Callable[[Call], Iterable[Record | str]]
    argument: str = ""
    about: str = "files; - or nothing reads records or paths from stdin"
    listing: tuple[str, ...] = ()
    example: str = ""
    single: bool = field(default=False)

    @property
    def every(self) -> tuple[Option, ...]:
        """Its own options and those of every command.

        Raises:
            UsageError: a part has an option that the command itself has.
        """
        own = self.options() if callable(self.options) else self.options
        every = (*own, PARTS, *shown(Talk))
        names = [option.name for option in every]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise registry.clash(twice, f"advkit {self.name}")
        return every


def add(
    app: typer.Typer,
    command: Command,
    every: Sequence[Option],
    call: Callable[[Command, Call], None],
) -> None:
    """Register a command; Typer reads its parameters from a signature made here.

    Args:
        app: gets the command.
        command: what is registered.
        every: its options, `command.every`, which takes time to make.
        call: does the work.
    """

    def callback(*, files: str | Sequence[str] | None = None, **parsed: object) -> None:
        values = {name.rstrip("_"): value for name, value in parsed.items()}
        values.pop("help_all", None)  # its callback has done the work
        values.pop(PARTS.name)  # they were there before the options were made
        call(command, Call.of(files, values))

    parameters = [_parameter(option) for option in every]
    if command.argument:
        parameters.insert(0, _argument(command))
    if shorter.is_long(every):
        parameters.append(_keyword("help_all", Annotated[bool | None, HELP_ALL]))
    # Typer takes defaults from the signature and types from the annotations.
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {one.name: one.annotation for one in parameters}
    app.command(command.name, cls=OneCommand, help=command.help)(callback)


def kinds(every: Sequence[Option]) -> dict[str, type]:
    """Return what the parser makes of a command's values, by the parameter's name."""
    return {"files": str} | {_safe(one): TYPES.get(one.kind, str) for one in every}


def words(every: Sequence[Option]) -> dict[str, list[str]]:
    """Return the names that options take as values, by flag, of those that take names."""
    return {option.flag: taken for option in every if (taken := _words(option))}


def places_of_parts(arguments: Sequence[str]) -> list[str]:
    """Return where a command line says that parts lie, read before its options are known.

    >>> places_of_parts(["train", "--parts", "a", "--arch=net.py:make", "--", "--parts", "b"])
    ['a', 'net.py:make']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words = list(arguments[:end])
    places = []
    for flag in (PARTS.flag, "--arch"):
        following = [after for word, after in pairwise(words) if word == flag]
        joined = [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
        places += [
            value
            for value in following + joined
            if flag == PARTS.flag or registry.places.arch_file(value)
        ]
    return places


def _argument(command: Command) -> inspect.Parameter:
    kind: Any = str | None if command.single else list[str] | None
    annotation = Annotated[
        kind, typer.Argument(help=command.about, metavar=command.argument, show_default=False)
    ]
    return _keyword("files", annotation)


def _parameter(option: Option) -> inspect.Parameter:
    text = option.help
    if not _silent(option):
        shown = str(option.default).lower() if option.kind == "bool" else option.default
        text += f" ({shown})"
    typed: Any = list[str] if option.kind in MANY else TYPES.get(option.kind, str)
    info = typer.Option(
        *flags(option),
        help=text,
        metavar=value(option),
        show_default=False,
        rich_help_panel=option.panel or None,
        autocompletion=_completer(option),
        envvar="ADVKIT_DATA" if option.name == "data_root" else None,
        show_envvar=False,
    )
    return _keyword(_safe(option), Annotated[typed | None, info])


def flags(option: Option) -> list[str]:
    """Return how an option is typed: `--amp/--no-amp`, or `--out` and `-o`."""
    # What turns something on for one call has no off form; a setting may be on in a file.
    off = option.kind == "bool" and option.panel not in (DIALOGUE, "Actions")
    first = f"{option.flag}/--no-{option.flag[2:]}" if off else option.flag
    return [first, *([SHORT[option.name]] if option.name in SHORT else [])]


def value(option: Option) -> str:
    """Return what the help calls an option's value."""
    return "|".join(option.choices) or NAMED.get(option.name) or VALUES.get(option.kind, "TEXT")


def _safe(option: Option) -> str:
    """Return a name that a parameter may have, which no keyword of Python is.

    `add` takes the underscore away again.
    """
    return option.name + "_" if option.name in ("lambda",) else option.name


def _keyword(name: str, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _completer(option: Option) -> Callable[[str], list[str]] | None:
    taken = _words(option)

    def complete(incomplete: str) -> list[str]:
        return [word for word in taken if word.startswith(incomplete)]

    return complete if taken else None


def _words(option: Option) -> list[str]:
    """Return the names that an option takes; none where it takes anything."""
    if option.choices:
        return list(option.choices)
    if option.name == "method":
        return methods.names()
    if option.kind == "str" and option.name in SHELVES:
        return list(registry.parts(SHELVES[option.name]))
    return []

"""The help of a command as plain text: quick to draw, and the same in a file and at a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from typer.core import TyperCommand, TyperOption

from advkit.cli.common.given import flag

if TYPE_CHECKING:
    from typer._click import Command, Context, Parameter

MARGIN = "  "
EXAMPLE = "Example: "
WIDEST = 26
"""The longest option, in characters, whose text begins on the same line."""
LEAST = 40
"""Characters that a line has at least, however narrow the terminal."""


class OneCommand(TyperCommand):
    """A command with plain help."""

    helper: TyperOption | None = None
    prose: Callable[[bool], str] | None = None
    """What it does, and what its parts are: each with its help, or their names alone."""
    words: Callable[[], Mapping[str, Sequence[str]]] | None = None
    """The names that its options take as values, by flag: `--attack` → pgd, fgsm, ..."""
    left_out: Callable[[], set[str]] | None = None
    """Names of the options that `--help` leaves to `--help-all`, where there is that."""

    def get_help(self, ctx: Context) -> str:
        """Return its help, the short one where there are two."""
        return page(ctx, full=self.left_out is None)

    def get_help_option(self, ctx: Context) -> TyperOption | None:
        """Return `--help`, the same object at each call."""
        if self.helper is None:
            self.helper = flag(super().get_help_option(ctx))
        return self.helper


def show_all(ctx: typer.Context, wanted: bool | None) -> None:
    """Print the whole help of a command and end, as `--help` does."""
    if wanted and not ctx.resilient_parsing:
        print(page(ctx))
        raise typer.Exit


def page(ctx: Context, rows: Sequence[tuple[str, str]] = (), full: bool = True) -> str:
    """Return the help of a command: usage, what it does, its commands, its options by heading.

    Args:
        ctx: the command, as it was called.
        rows: commands of a group, (name, help) each.
        full: leave nothing to --help-all.
    """
    # Click makes tests narrow and wide by the same variable, COLUMNS.
    width = max(LEAST, shutil.get_terminal_size().columns)
    command = ctx.command
    usage = " ".join([f"Usage: {ctx.command_path}", *_pieces(ctx, command)])
    text, left_out = command.help or "", set[str]()
    if isinstance(command, OneCommand):
        text = command.prose(full) if command.prose else text
        left_out = command.left_out() if command.left_out and not full else left_out
    lines = [*wrapped(usage, width, MARGIN), "", *_prose(text, width)]
    if rows:
        lines += ["", heading("Commands"), *_table(rows, width)]
    parameters = [
        one for one in command.get_params(ctx) if (one.name or "").rstrip("_") not in left_out
    ]
    for title, entries in _headings(ctx, parameters):
        lines += ["", heading(title), *_table(entries, width)]
    if left_out:
        more = f"{len(left_out)} more options: {ctx.command_path} --help-all"
        lines += ["", *wrapped(more, width)]
    return "\n".join(lines)


def heading(text: str) -> str:
    """Return a heading, bold at a terminal that shows it."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    bold = not plain and sys.stdout.isatty()
    return f"\x1b[1m{text}:\x1b[0m" if bold else f"{text}:"


def wrapped(text: str, width: int, indent: str = "", first: str = "") -> Iterator[str]:
    """Yield a text in lines of at most `width` characters, except for longer words.

    >>> list(wrapped("- at: a net, trained", 12, "  "))
    ['- at: a net,', '  trained']

    Args:
        text: words.
        width: characters of a line.
        indent: begins each line after the first.
        first: begins the first line.
    """
    line, space = first, ""
    for word in text.split():
        if space and len(line) + 1 + len(word) > width:
            yield line
            line, space = indent, ""
        line += space + word
        space = " "
    yield line


def _pieces(ctx: Context, command: Command) -> list[str]:
    named = {
        piece: _argument(one, ctx)
        for one in command.get_params(ctx)
        if one.param_type_name == "argument"
        for piece in one.get_usage_pieces(ctx)
    }
    return [named.get(piece, piece) for piece in command.collect_usage_pieces(ctx)]


def _argument(one: Parameter, ctx: Context) -> str:
    """Return an argument as its command calls it; Typer would add brackets and dots once more."""
    return one.metavar or " ".join(one.get_usage_pieces(ctx))


def _prose(text: str, width: int) -> Iterator[str]:
    """Yield a text's paragraphs; a line of a list that begins with "- " stays one of its own."""
    for number, paragraph in enumerate(text.replace("\\[", "[").split("\n\n")):
        if number:
            yield ""
        if paragraph.startswith(EXAMPLE):
            yield from _shell_lines(" ".join(paragraph.split()), width)
            continue
        words: list[str] = []
        for line in paragraph.splitlines():
            if words and line.startswith("- "):
                yield from wrapped(" ".join(words), width, MARGIN if _listed(words) else "")
                words = []
            words.append(line)
        yield from wrapped(" ".join(words), width, MARGIN if _listed(words) else "")


def _shell_lines(text: str, width: int) -> Iterator[str]:
    """Yield a command in lines that a shell takes as one."""
    # Two columns for the backslash.
    lines = [*wrapped(text, width - 2, MARGIN)]
    yield from (f"{line} \\" for line in lines[:-1])
    yield lines[-1]


def _listed(words: Sequence[str]) -> bool:
    return bool(words) and words[0].startswith("- ")


def _headings(
    ctx: Context, parameters: Iterable[Parameter]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the rows (option, help) of each heading; what has none comes last."""
    rows: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    rest: list[tuple[str, str]] = []
    for one in parameters:
        if getattr(one, "hidden", False):
            continue
        text = (getattr(one, "help", None) or "").replace("\\[", "[")
        if one.param_type_name == "argument":
            rows["Arguments"].append((_argument(one, ctx), text))
            continue
        title = getattr(one, "rich_help_panel", None)
        (rows.setdefault(title, []) if title else rest).append((_spelt(one), text))
    return [(title, some) for title, some in [*rows.items(), ("Options", rest)] if some]


def _spelt(option: Parameter) -> str:
    """Return an option as typed: `--wa / --no-wa`, `-o, --out TEXT`."""
    flags = sorted(option.opts, key=len)
    value = option.metavar if not getattr(option, "is_flag", False) else None
    return " / ".join([", ".join(flags), *option.secondary_opts]) + (f" {value}" if value else "")


def _table(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield rows of two columns; a long first cell has a line of its own."""
    short = [len(name) for name, _ in rows if len(name) <= WIDEST]
    column = len(MARGIN) + max(short, default=WIDEST) + 2
    for name, text in rows:
        begin = f"{MARGIN}{name}"
        if len(begin) + 2 > column:
            yield begin
            begin = ""
        yield from wrapped(text, width, " " * column, begin.ljust(column))

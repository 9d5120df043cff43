"""The help of a command as plain text: quick to draw, and the same in a file and at a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperOption

from advkit.cli.common.given import flag

if TYPE_CHECKING:
    from typer._click import Context, Parameter

MARGIN = "  "
WIDEST = 26
"""The longest option, in characters, whose text begins on the same line."""
LEAST = 40
"""Characters that a line has at least, however narrow the terminal."""


class OneCommand(TyperCommand):
    """A command with plain help."""

    helper: TyperOption | None = None

    def get_help(self, ctx: Context) -> str:
        """Return its help."""
        return page(ctx)

    def get_help_option(self, ctx: Context) -> TyperOption | None:
        """Return `--help`, the same object at each call."""
        if self.helper is None:
            self.helper = flag(super().get_help_option(ctx))
        return self.helper


def page(ctx: Context, rows: Sequence[tuple[str, str]] = ()) -> str:
    """Return the help of a command: usage, what it does, its commands, its options by heading.

    Args:
        ctx: the command, as it was called.
        rows: commands of a group, (name, help) each.
    """
    # Click makes tests narrow and wide by the same variable, COLUMNS.
    width = max(LEAST, shutil.get_terminal_size().columns)
    command = ctx.command
    usage = " ".join([f"Usage: {ctx.command_path}", *command.collect_usage_pieces(ctx)])
    lines = [*wrapped(usage, width, MARGIN), "", *_prose(command.help or "", width)]
    if rows:
        lines += ["", heading("Commands"), *_table(rows, width)]
    for title, entries in _headings(ctx, command.get_params(ctx)):
        lines += ["", heading(title), *_table(entries, width)]
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


def _prose(text: str, width: int) -> Iterator[str]:
    """Yield a text's paragraphs; a line of a list that begins with "- " stays one of its own."""
    for number, paragraph in enumerate(text.replace("\\[", "[").split("\n\n")):
        if number:
            yield ""
        words: list[str] = []
        for line in paragraph.splitlines():
            if words and line.startswith("- "):
                yield from wrapped(" ".join(words), width, MARGIN if _listed(words) else "")
                words = []
            words.append(line)
        yield from wrapped(" ".join(words), width, MARGIN if _listed(words) else "")


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
            rows["Arguments"].append((" ".join(one.get_usage_pieces(ctx)), text))
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

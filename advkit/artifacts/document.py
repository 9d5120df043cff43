"""Tables as a paper prints them: what they hold, whatever the format, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

NOTHING = "–"
"""A cell where nothing is known."""


@dataclass(frozen=True)
class Cell:
    """One cell; `bold` where it is the best of its column beyond noise."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Sheet:
    """One table.

    `spans` are headings over columns: (text, how many), together as many as `head`. The first
    `words` columns are text, the others figures. `breaks` are rows before which a block begins;
    `notes` stand below.
    """

    caption: str
    spans: tuple[tuple[str, int], ...]
    head: tuple[str, ...]
    words: int
    rows: tuple[tuple[Cell, ...], ...]
    breaks: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def flat_head(self) -> list[str]:
        """Return one heading a column, the one over it in front."""
        over = [text for text, columns in self.spans for _ in range(columns)]
        return [f"{top} {own}".strip() for top, own in zip(over, self.head, strict=True)]


@dataclass(frozen=True)
class Figure:
    """A picture, drawn as SVG when it is needed; `alt` says in words what it shows."""

    title: str
    alt: str
    draw: Callable[[], bytes]


@dataclass(frozen=True)
class Gallery:
    """Pictures under one heading, and what to know of them."""

    heading: str
    told: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Source:
    """A file behind the tables: its name, and what its description says of it."""

    name: str
    facts: Mapping[str, object]


@dataclass(frozen=True)
class Document:
    """What a page holds: tables, notes, pictures and the files behind them.

    `figures` finds the pictures when a format shows them.
    """

    title: str
    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...] = ()
    figures: Callable[[], Sequence[Gallery]] = tuple
    sources: tuple[Source, ...] = ()


def markdown(document: Document) -> str:
    """Return the tables and notes as Markdown with tables (GitHub's, CommonMark otherwise)."""
    parts = [f"# {_escaped(document.title)}"]
    for sheet in document.sheets:
        parts += [f"**{_escaped(sheet.caption)}**", _table(sheet)]
        parts += [_list(sheet.notes)] if sheet.notes else []
    parts += [_list(document.notes)] if document.notes else []
    return "\n\n".join(parts) + "\n"


def _table(sheet: Sheet) -> str:
    # Figures to the right, so that their digits stand under each other.
    rule = ["---" if place < sheet.words else "---:" for place in range(len(sheet.head))]
    rows = [[_escaped(text) for text in sheet.flat_head], rule]
    rows += [[_cell(cell) for cell in row] for row in sheet.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: Cell) -> str:
    return f"**{_escaped(cell.text)}**" if cell.bold else _escaped(cell.text)


def _list(notes: tuple[str, ...]) -> str:
    return "\n".join(f"- {_escaped(note)}" for note in notes)


def _escaped(text: str) -> str:
    """Return text that Markdown leaves as it is, in one line.

    >>> _escaped("a|b <script> 5*3 run_1")
    'a\\\\|b \\\\<script\\\\> 5\\\\*3 run\\\\_1'
    """
    return "".join(f"\\{char}" if char in "\\`*_[]<>|~#$&!" else char for char in one_line(text))


def one_line(text: str) -> str:
    """Return text without line breaks and other characters that nobody can see."""
    return "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))


def aligned(lines: Sequence[Sequence[object]]) -> str:
    """Return a table as text, columns aligned; floats with three decimals.

    >>> print(aligned([("T", "entropy"), (1.0, 0.25)]))
    T  entropy
    1  0.250
    """
    shown = [[_text(column, cell) for column, cell in enumerate(line)] for line in lines]
    widths = [max(len(line[place]) for line in shown) for place in range(len(shown[0]))]
    padded = ["  ".join(c.ljust(w) for c, w in zip(x, widths, strict=True)) for x in shown]
    return "\n".join(line.rstrip() for line in padded)


def _text(column: int, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}" if column == 0 else f"{value:.3f}"
    return str(value)

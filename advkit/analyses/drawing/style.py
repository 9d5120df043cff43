"""How every picture looks: colours, marks, letters, widths.

Colours are Okabe and Ito's, which stay apart for colour-blind readers. In grey some of them are one
shade, so that no two series of a panel share marker and line either. Vector formats carry their
letters: PDF as TrueType (type 42, which publishers ask for), SVG as outlines, which look the same
wherever they are shown and need no font.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from advkit.artifacts.document import one_line
from advkit.errors import UsageError, brief

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
PINK, SKY, AMBER, BLACK = "#CC79A7", "#56B4E9", "#E69F00", "#000000"
CYCLE = (BLUE, ORANGE, GREEN, PINK, GREY)
MARKERS = "os^Dv"
LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
)
"""Line, dashes, dots, dashes and dots."""
HATCHES = {"clean, wrong": "////", "adversarial, wrong": "////"}
COLOURS = {
    "clean": BLUE,
    "adversarial": ORANGE,
    "clean, right": BLUE,
    "clean, wrong": GREEN,
    "adversarial, right": ORANGE,
    "adversarial, wrong": PINK,
}
STYLE: dict[RcKeyType, object] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "figure.titlesize": 10,
    "legend.frameon": False,
    "legend.handlelength": 2.6,  # long enough to tell dashes from dots
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "text.parse_math": False,  # names of runs and classes are no formulas
    "svg.hashsalt": "advkit",  # else every SVG names its elements anew
}
PANEL = (3.4, 2.7)
"""Width and height of one panel in inches."""
LEAST = 2.15
"""Inches below which a panel is too narrow for its letters."""
COLUMN, PAGE = 8.5 / 2.54, 17.4 / 2.54
"""Width of a paper's column, and of both with the gap between them, in inches."""
SMALLEST, LARGEST = 1.5, 50.0
"""Inches of a picture's side."""
LONGEST = 500
"""Letters of a title."""
UNITS = {"": 1.0, "in": 1.0, "cm": 1 / 2.54}


class Look(NamedTuple):
    """How one series of a panel is drawn."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


def look(place: int) -> Look:
    """Return colour, marker and line of a series by its place among those of a panel.

    The first 100 have no two alike, and the first four differ in each of the three.
    """
    rounds = place // len(CYCLE)
    return Look(
        CYCLE[place % len(CYCLE)],
        MARKERS[(place + rounds) % len(MARKERS)],
        LINES[(place + place // (len(CYCLE) * len(MARKERS))) % len(LINES)],
    )


@dataclass(frozen=True)
class Frame:
    """What the caller of a picture asks for.

    `title` stands above all; `width` and `height` are in inches, None where the picture may choose;
    with `overlay` several nets share panels instead of having rows of their own.
    """

    title: str = ""
    width: float | None = None
    height: float | None = None
    overlay: bool = False

    @classmethod
    def of(cls, title: str | None, size: str | None, *, overlay: bool) -> Frame:
        """Return a frame from what was typed.

        Raises:
            UsageError: a title too long; see `parse_size`.
        """
        text = one_line(title or "")
        if len(text) > LONGEST:
            raise UsageError(f"--title: more than {LONGEST} letters")
        return cls(text, *parse_size(size), overlay)


PLAIN = Frame()
"""What a picture is like that nobody asked anything of."""


def parse_size(text: str | None) -> tuple[float | None, float | None]:
    """Read `column`, `page` or WIDTHxHEIGHT, in inches or with in or cm behind it, as inches.

    >>> parse_size("3.5x2"), parse_size("page")[1]
    ((3.5, 2.0), None)

    Raises:
        UsageError: something else, or a side too small or too large.
    """
    if text is None:
        return None, None
    if text in ("column", "page"):
        return (COLUMN if text == "column" else PAGE), None
    side = r"([0-9]{1,4}(?:\.[0-9]{1,4})?)"
    parts = re.fullmatch(rf"{side}[x×]{side} ?(in|cm|)", text.strip())
    if parts is None:
        raise UsageError(
            f"--size {brief(text)}: column, page or WIDTHxHEIGHT in inches, as in 3.4x2.5 or 8x6cm"
        )
    width, height = (float(parts[k]) * UNITS[parts[3]] for k in (1, 2))
    for inches in (width, height):
        if not SMALLEST <= inches <= LARGEST:
            raise UsageError(
                f"--size {brief(text)}: a side of {inches:.3g} inches is not in "
                f"[{SMALLEST:g}, {LARGEST:g}]"
            )
    return width, height

"""Images in rows, each under its label and over the classes that it is given to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from advkit.analyses.drawing.style import BLUE, GREY, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 6
CELL = 1.15
"""Width of an image with the gap to the next, in inches."""
LEAST = 0.8
"""Inches of such a place below which its letters overlap."""
SIDE, HEAD, BAR, GAP = 0.92, 0.24, 0.17, 0.1
"""Of a cell of width 1: the image's longer side, the label above, a class below, and the rest."""
LETTERS = 15
"""Letters that stand in a bar beside its figure."""


@dataclass(frozen=True)
class Tile:
    """One image: its label, and classes with their probabilities, the most probable first."""

    label: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Mosaic:
    """A panel of tiles, row by row; `pixels` gives their images (N, C, H, W) uint8 when drawn.

    A bar is as long as its class is probable; that of the label is blue, others are orange.
    Where `pixels` is None, nobody knows the images, and their places say so.
    """

    tiles: Sequence[Tile]
    pixels: Callable[[], Tensor] | None
    title: str
    room: float | None = None

    def fit(self, width: float) -> Mosaic:
        """Return the same for a picture of a width in inches: images go below, not smaller."""
        return replace(self, room=width)

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        most = COLUMNS if self.room is None else max(1, int(self.room / LEAST))
        return min(COLUMNS, most, len(self.tiles))

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-len(self.tiles) // self.columns)

    @property
    def cell(self) -> float:
        """Height of a cell of width 1."""
        return HEAD + SIDE + BAR * max(len(tile.classes) for tile in self.tiles) + GAP

    @property
    def inches(self) -> float:
        """Height, with a title's place."""
        side = CELL if self.room is None else min(CELL, self.room / self.columns)
        return side * self.cell * self.rows + 0.4

    @property
    def width(self) -> float:
        """Width in inches."""
        return max(CELL * self.columns + 0.1, CELL * 3)

    def __call__(self, axes: Axes) -> None:
        """Draw all tiles."""
        images = self.pixels() if self.pixels else [None] * len(self.tiles)
        for place, (tile, image) in enumerate(zip(self.tiles, images, strict=True)):
            row, column = divmod(place, self.columns)
            _draw(axes, tile, image, column, -row * self.cell)
        # imshow sets both, for its own image.
        axes.set_xlim(0, self.columns)
        axes.set_ylim(-self.rows * self.cell, 0)
        axes.set_aspect("equal", anchor="NW")
        axes.set_axis_off()
        axes.set_title(self.title)


def _draw(axes: Axes, tile: Tile, image: Tensor | None, x: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    small = 0.75 * float(str(STYLE["font.size"]))
    axes.text(x, top - HEAD / 2, _cut(tile.label), fontsize=small, weight="bold", va="center")
    below = top - HEAD - SIDE
    if image is None:
        axes.add_patch(Rectangle((x, below), SIDE, SIDE, fill=False, edgecolor=GREY))
        middle = (x + SIDE / 2, below + SIDE / 2)
        axes.text(*middle, "image unknown", fontsize=small, ha="center", va="center")
    else:
        _show(axes, image, x, top - HEAD)
    for name, p in zip(tile.classes, tile.probabilities, strict=True):
        below -= BAR
        colour = BLUE if name == tile.label else ORANGE
        bar = Rectangle((x, below), SIDE * p, 0.85 * BAR, facecolor=colour, alpha=0.35, linewidth=0)
        axes.add_patch(bar)
        height = below + 0.42 * BAR
        axes.text(x + 0.02, height, _cut(name), fontsize=small - 0.5, va="center")
        axes.text(x + SIDE, height, f"{p:.2f}", fontsize=small - 0.5, va="center", ha="right")


def _show(axes: Axes, image: Tensor, x: float, top: float) -> None:
    height, width = (SIDE * side / max(image.shape[1:]) for side in image.shape[1:])
    shown = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    axes.imshow(
        shown.numpy(),
        extent=(x, x + width, top - height, top),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest",
    )


def _cut(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"

"""The images whose soft labels are flattest, or farthest from their own label, as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from advkit.analyses.drawing.mosaic import Mosaic, Tile
from advkit.analyses.gathering.originals import originals
from advkit.analyses.gathering.rows import require_labels
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Result
from advkit.artifacts.rows import height
from advkit.artifacts.soft_labels import SoftLabels
from advkit.formulas.information import entropy
from advkit.labels.soft import soften

KINDS = ("labels", "logits")
EXAMPLE = "runs/*/best.labels-*.h5 --plot flattest.png"
LIMITS = {
    "count": "[1, 1000]",
    "top": "[1, 1000]",
    "temperature": "[1e-6, 1e6]",
    "image_size": "[1, 4096]",
}
PLACES = ("data", "data_root")
_DIGITS = 9
"""Decimals within which values are equal: how a sum is rounded depends on where its row lies."""
_WORDS = {"entropy": "flattest soft labels", "distance": "soft labels farthest from the label"}


def analyze(
    inputs: Sequence[Logits | SoftLabels],
    *,
    by: Literal["entropy", "distance"] = "entropy",
    count: int = 12,
    top: int = 3,
    temperature: float = 1.0,
    data: str | None = None,
    data_root: str | None = None,
    image_size: int | None = None,
) -> Result:
    """List the images of a labels file, or of the clean logits of a file, that are least clear.

    An image's soft label is softmax(z/T), its mean over the views that the file holds. `entropy`
    is that label's, in nats, `distance` the mass off the image's own label, which is the total
    variation distance to the one-hot label, in [0, 1]. Rows come in falling order of one of them,
    equal ones by index, whatever order the file has; `index` is the place in the data set's split.

    Args:
        by: entropy, for the flattest soft labels, or distance, for those farthest from the label.
        count: images.
        top: classes shown of each.
        temperature: T of the soft labels.
        data: NAME[:PATH] of the file's data set, for the picture; what its run's folder says if
            not given.
        data_root: where data sets lie (env ADVKIT_DATA).
        image_size: side of a folder's images; that of the file's own work if not given.

    Raises:
        InputError: out-of-distribution data, which has no labels.
        MismatchError: the images are not those of the file.
        UsageError: nobody says where the data set lies.

    Source: LTD, section 3, Figures 1 and 2 show such images; how they were found it does not say.
    """
    (artifact,) = inputs
    if isinstance(artifact, Logits):
        require_labels(artifact, "ambiguous")
    look = cache(lambda: originals(artifact, data, data_root, image_size))
    if data is not None:
        look()  # a wrong place is told before any work, also where nothing is drawn
    figures = torch.cat([*_figures(artifact, temperature)])
    places = _chosen(figures[:, ("entropy", "distance").index(by)], artifact.index, count)
    names = artifact.info["data"]["classes"]
    tiles, rows = [], []
    for place in places.tolist():
        (p,) = _targets(artifact, slice(place, place + 1), temperature)
        tile = _tile(p, names[int(artifact.labels[place])], names, top)
        pairs = zip(tile.classes, tile.probabilities, strict=True)
        head = (int(artifact.index[place]), tile.label, *figures[place].tolist())
        rows.append((*head, *(cell for pair in pairs for cell in pair)))
        tiles.append(tile)
    shown = range(1, len(tiles[0].classes) + 1)
    tail = (f"{what}_{k}" for k in shown for what in ("class", "probability"))
    columns = ("index", "label", "entropy", "distance", *tail)
    means = figures.mean(0).tolist()
    numbers: dict[str, Number] = {
        "n": len(figures),
        "by": by,
        "temperature": temperature,
        "shown": len(rows),
        "mean_entropy": means[0],
        "max_entropy": math.log(len(names)),
        "mean_distance": means[1],
    }
    title = f"{_WORDS[by]}, T = {temperature:g} ({len(rows)} of {len(figures)})"
    # A file that names no data has figures, and places for pictures that nobody can fill.
    named = artifact.info["parents"][-1].get("kind") == "data"
    pixels = (lambda: look().batch(artifact.index[places])) if named else None
    picture = Mosaic(tiles, pixels, title)
    return Result(numbers, columns, tuple(rows), (picture,), text=aligned([columns, *rows]))


def _figures(artifact: Logits | SoftLabels, temperature: float) -> Iterator[Tensor]:
    """Yield entropy and distance from the label, (B, 2) float64, piece by piece."""
    step = height(artifact.clean if isinstance(artifact, Logits) else artifact.logits)
    for start in range(0, len(artifact.labels), step):
        here = slice(start, start + step)
        p, y = _targets(artifact, here, temperature), artifact.labels[here]
        # A sum over the other classes: beside a sure teacher 1 − p would be 0 for many.
        others = p.scatter(1, y[:, None], 0.0).sum(1)
        yield torch.stack([entropy(p), others], 1)


def _targets(artifact: Logits | SoftLabels, rows: slice, temperature: float) -> Tensor:
    """Return soft labels (B, C) float64: of a labels file the mean over an image's views."""
    if isinstance(artifact, Logits):
        return soften(artifact.clean[rows].double(), temperature)
    piece = artifact.piece(rows)
    every, views = torch.arange(len(piece.labels)), piece.logits.shape[1]
    total = torch.zeros(len(every), artifact.class_count, dtype=torch.float64)
    for view in range(views):
        total += soften(piece.at(every, torch.full_like(every, view)).double(), temperature)
    return total / views


def _chosen(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Return the places of the `count` highest values, falling; equal ones by their index."""
    by_index = index.argsort(stable=True)
    falling = _rounded(values[by_index]).argsort(descending=True, stable=True)
    return by_index[falling[:count]]


def _tile(p: Tensor, label: str, names: Sequence[str], top: int) -> Tile:
    """Return the most probable classes of a soft label (C,); equal ones in the classes' order."""
    ranked = _rounded(p).argsort(descending=True, stable=True)[:top].tolist()
    return Tile(label, tuple(names[k] for k in ranked), tuple(p[ranked].tolist()))


def _rounded(values: Tensor) -> Tensor:
    return torch.round(values, decimals=_DIGITS)

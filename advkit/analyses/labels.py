"""What a teacher's targets look like by temperature: entropy, top mass, rank of the true class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from advkit.analyses.drawing.panels import curve, layer
from advkit.analyses.gathering.rows import require_labels, rows_of
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Result
from advkit.artifacts.soft_labels import SoftLabels
from advkit.formulas.information import entropy
from advkit.labels.adr import rectify
from advkit.labels.soft import soften
from advkit.options import parse_temperatures

LIMITS = {"lambda": "[0, 1]", "temperatures": "[1e-6, 1e6]"}
KINDS = ("labels", "logits")
EXAMPLE = "runs/*/best.labels-*.h5"
OVERLAY = True


class Row(NamedTuple):
    """Means over the targets of one temperature."""

    temperature: float
    entropy: float
    top_mass: float
    true_mass: float
    true_rank: float
    true_on_top: float


@dataclass
class Sums:
    """Sums over targets of what the columns average."""

    values: Tensor
    count: int = 0

    def add(self, p: Tensor, y: Tensor, order: Tensor) -> None:
        """Add targets (B, C) with true classes (B,), and what orders the classes as they do.

        Equal classes share the mean of their ranks.
        """
        true = order.gather(1, y[:, None])
        rank = 1 + (order > true).sum(1) + ((order == true).sum(1) - 1).double() / 2
        on_top = order.argmax(1) == y
        mass = p.gather(1, y[:, None]).squeeze(1)
        columns = (entropy(p), p.amax(1), mass, rank, on_top)
        self.values += torch.stack([column.double().sum() for column in columns])
        self.count += len(y)


def analyze(
    inputs: Sequence[Logits | SoftLabels],
    *,
    temperatures: str = "1,2,3,5,8,10,12,15,20,50",
    lambda_: float | None = None,
) -> Result:
    """Describe the targets that a labels file (all views) or the clean logits of a file give.

    LTD's targets are softmax(z/T). With `lambda_` they are ADR's, rectified by trust λ at τ = T.

    Args:
        temperatures: T, apart by commas.
        lambda_: show ADR's targets with this trust λ instead of LTD's.

    Raises:
        InputError: out-of-distribution data, which has no labels.
        UsageError: temperatures that are not positive numbers.
    """
    (artifact,) = inputs
    if isinstance(artifact, Logits):
        require_labels(artifact, "labels")
    grid = parse_temperatures(temperatures)
    sums = {t: Sums(torch.zeros(5, dtype=torch.float64)) for t in grid}
    for logits, y, _ in rows_of(artifact):
        for t in grid:
            p = soften(logits, t) if lambda_ is None else rectify(logits, y, t, lambda_)
            # softmax(z/T) keeps the order of z, but for what its smallest values round to.
            sums[t].add(p, y, logits if lambda_ is None else p)
    rows = tuple(Row(t, *(sums[t].values / sums[t].count).tolist()) for t in grid)
    classes = len(artifact.info["data"]["classes"])
    numbers = {"n": len(artifact.labels), "targets": sums[grid[0]].count, "classes": classes}
    pictures = (
        curve(
            grid,
            {"soft labels": [row.entropy for row in rows]},
            xlabel="temperature (no unit)",
            ylabel="entropy (nats)",
            logx=True,
            level=(f"all {classes} classes alike, ln {classes}", math.log(classes)),
        ),
        curve(
            grid,
            {
                "most probable class": [row.top_mass for row in rows],
                "true class": [row.true_mass for row in rows],
            },
            xlabel="temperature (no unit)",
            ylabel="mean probability",
            logx=True,
            level=(f"all {classes} classes alike, 1/{classes}", 1 / classes),
        ),
    )
    shared = tuple(
        layer(grid, values, xlabel="temperature (no unit)", ylabel=label, logx=True)
        for label, values in (
            ("entropy (nats)", [row.entropy for row in rows]),
            ("mean probability of the true class", [row.true_mass for row in rows]),
        )
    )
    text = aligned([Row._fields, *rows])
    return Result(numbers, Row._fields, rows, pictures, text=text, overlay=shared)

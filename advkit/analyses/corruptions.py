"""Accuracy over corruptions and severities, of one net's logits of `cifar10c` or `cifar100c`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from advkit.analyses.gathering import naming, protocol
from advkit.analyses.gathering.entries import entries_of
from advkit.analyses.gathering.pairing import model_of
from advkit.analyses.gathering.rows import require_labels, right
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Panel, Result
from advkit.errors import InputError, MismatchError
from advkit.formulas.stats import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("logits",)
EXAMPLE = "runs/adr/best.none*-on-cifar10c-*.h5"
COMPARES = True
_SETS = ("cifar10c-", "cifar100c-")
_INCHES, _LINE = 1.4, 0.22
"""Height of a picture without lines, and of a line."""
_PALE = 0.55
"""Accuracy above which a cell's number is dark on light."""


class _Row(NamedTuple):
    """One corruption at one severity; `robust` where the file is attacked."""

    corruption: str
    severity: int
    n: int
    accuracy: float
    low: float
    high: float
    robust_accuracy: float | None
    robust_low: float | None
    robust_high: float | None


def analyze(inputs: Sequence[Logits]) -> Result:
    """Put the accuracies of files that hold a corruption and a severity each into one table.

    `mean_accuracy` is the mean over all corruptions and severities that are there, each counting
    alike, and `mean_corruption_error` is 1 less it: not divided by another net's errors, as the
    mCE of ImageNet-C is. `severity_N` are means over corruptions, `complete` says whether every
    corruption has all the severities that any has. Robust accuracies have a mean only where the
    files were attacked alike; what differs is named (`differs`).

    Raises:
        InputError: a file of another data set, without labels, or a cell that is there twice.
        MismatchError: another checkpoint, or other examples.

    Source: Hendrycks and Dietterich, ICLR 2019; the unnormalised mean as RobustBench reports it.
    """
    cells: dict[tuple[str, int], _Row] = {}
    seen: dict[tuple[str, int], str] = {}
    for logits in inputs:
        key = _cell(logits)
        first = inputs[0]
        if model_of(logits).get("digest") != model_of(first).get("digest"):
            raise MismatchError(
                f"{first.path} and {logits.path}: other checkpoints: corruptions takes one net's"
            )
        if len(logits.labels) != len(first.labels):
            raise MismatchError(
                f"{first.path} and {logits.path}: {len(first.labels)} and {len(logits.labels)} "
                "examples: take as many of each (the same --limit)"
            )
        if not torch.equal(logits.index, first.index):
            raise MismatchError(f"{first.path} and {logits.path}: other examples")
        if key in cells:
            raise InputError(
                f"{seen[key]} and {logits.path}: both are {key[0]} at severity {key[1]}: give one"
            )
        cells[key], seen[key] = _row(key, logits), logits.path
    rows = [cells[key] for key in sorted(cells)]
    names = sorted({row.corruption for row in rows})
    levels = sorted({row.severity for row in rows})
    attacked = [logits for logits in inputs if logits.broken_by is not None]
    differs = _differences(attacked)
    numbers = _numbers(rows, names, levels)
    robust = [row.robust_accuracy for row in rows if row.robust_accuracy is not None]
    if len(robust) == len(rows) and not differs:
        numbers["mean_robust_accuracy"] = statistics.fmean(robust)
    told = protocol.words(differs, [logits.info["data"]["name"] for logits in attacked])
    note = f"\nnote: attacked otherwise: {told}" if told else ""
    return Result(
        numbers,
        _Row._fields,
        tuple(rows),
        tuple(_panels(cells, names, levels)),
        text=_text(cells, names, levels) + note,
        heading=naming.name(inputs[0]),
        more={"differs": protocol.plain(differs)},
    )


def _differences(attacked: Sequence[Logits]) -> dict[str, list[object]]:
    """Return the settings in which attacked files differ, the corruptions aside."""
    protocols = [protocol.evaluated(entry) for entry in entries_of(attacked)]
    return protocol.differences([{k: v for k, v in x.items() if k != "data"} for x in protocols])


def _cell(logits: Logits) -> tuple[str, int]:
    """Return a file's corruption and severity, which the name of its data set holds."""
    require_labels(logits, "corruptions")
    name = str(logits.info["data"]["name"])
    own = next((name.removeprefix(start) for start in _SETS if name.startswith(start)), "")
    corruption, _, severity = own.rpartition("-")
    if not corruption or not severity.isdecimal():
        raise InputError(f"{logits.path}: its data are {name}, not of cifar10c or cifar100c")
    return corruption, int(severity)


def _row(key: tuple[str, int], logits: Logits) -> _Row:
    n = len(logits.labels)
    shares: list[float | None] = []
    for what in ("clean", "robust"):
        verdicts = right(logits, what)
        if verdicts is None:
            shares += [None, None, None]
        else:
            hits = int(verdicts.sum())
            shares += [hits / n, *wilson(hits, n)]
    return _Row(*key, n, shares[0] or 0.0, shares[1] or 0.0, shares[2] or 0.0, *shares[3:])


def _numbers(
    rows: Sequence[_Row], names: Sequence[str], levels: Sequence[int]
) -> dict[str, Number]:
    mean = statistics.fmean(row.accuracy for row in rows)
    numbers: dict[str, Number] = {
        "n": rows[0].n,
        "corruptions": len(names),
        "severities": len(levels),
        "complete": len(rows) == len(names) * len(levels),
        "mean_accuracy": mean,
        "mean_corruption_error": 1 - mean,
    }
    for level in levels:
        own = [row.accuracy for row in rows if row.severity == level]
        numbers[f"severity_{level}"] = statistics.fmean(own)
    return numbers


def _text(cells: dict[tuple[str, int], _Row], names: Sequence[str], levels: Sequence[int]) -> str:
    """Return the table of accuracies with means at its edges, of the cells that are there."""

    def line(title: str, values: Sequence[float | None]) -> tuple[str, ...]:
        known = [value for value in values if value is not None]
        shown = ["" if value is None else f"{value:.2%}" for value in values]
        return (title, *shown, f"{statistics.fmean(known):.2%}")

    def accuracy(name: str, level: int) -> float | None:
        return cells[name, level].accuracy if (name, level) in cells else None

    lines = [("corruption", *map(str, levels), "mean")]
    lines += [line(name, [accuracy(name, level) for level in levels]) for name in names]
    means = []
    for level in levels:
        own = [row.accuracy for row in cells.values() if row.severity == level]
        means.append(statistics.fmean(own))
    total = statistics.fmean(row.accuracy for row in cells.values())
    lines.append(("mean", *(f"{mean:.2%}" for mean in means), f"{total:.2%}"))
    return aligned(lines)


class _Map:
    """A map of accuracies: a line a corruption, a column a severity, the numbers written in."""

    def __init__(
        self,
        title: str,
        names: Sequence[str],
        levels: Sequence[int],
        values: dict[tuple[str, int], float],
    ) -> None:
        self.title, self.names, self.levels, self.values = title, names, levels, values
        self.inches = _INCHES + _LINE * len(names)

    def __call__(self, axes: Axes) -> None:
        """Draw it."""
        nothing = float("nan")
        grid = [[self.values.get((name, k), nothing) for k in self.levels] for name in self.names]
        axes.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (name, level), value in self.values.items():
            axes.text(
                self.levels.index(level),
                self.names.index(name),
                f"{100 * value:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if value > _PALE else "white",
            )
        axes.set_xticks(range(len(self.levels)), [str(level) for level in self.levels])
        axes.set_yticks(range(len(self.names)), list(self.names))
        axes.set(xlabel="severity", title=self.title)
        axes.grid(visible=False)


def _panels(
    cells: dict[tuple[str, int], _Row], names: Sequence[str], levels: Sequence[int]
) -> list[Panel]:
    clean = {key: row.accuracy for key, row in cells.items()}
    panels: list[Panel] = [_Map("accuracy in percent", names, levels, clean)]
    robust = {
        key: row.robust_accuracy for key, row in cells.items() if row.robust_accuracy is not None
    }
    if robust:
        panels.append(_Map("robust accuracy in percent", names, levels, robust))
    return panels

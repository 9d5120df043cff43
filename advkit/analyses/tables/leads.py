"""Which line of a table leads a column beyond noise: what may be printed bold."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.provenance import canonical
from advkit.artifacts.rows import argmax
from advkit.formulas.stats import mcnemar
from advkit.formulas.threat import parse_eps

LEVEL = 0.05
FIELD = ("data", "arch", "attack", "norm", "steps", "attack_settings")
"""Labels that lines must share to compete, beside ε."""
COLUMNS = tuple((what, point) for what in ("robust", "clean") for point in ("best", "final"))
RULE = (
    "bold: better than every other line of its data set, architecture and attack, on the same "
    "examples, at 5 %: Welch's t-test over seeds, or the exact McNemar test where both lines are "
    "one run each (then the two models differ, which need not hold for their methods); a line of "
    "one run against one of several is not decided"
)


@dataclass
class Line:
    """A group's labels and figures, with the files behind it: point → seed → file."""

    plain: Mapping[str, Any]
    files: dict[str, dict[int | None, Logits]] = field(default_factory=dict)

    @property
    def rivals(self) -> str:
        """What lines that compete have in common."""
        eps = self.plain["eps"]
        shared = {name: self.plain[name] for name in FIELD}
        radius = parse_eps(eps, self.plain["norm"]) if eps is not None else None
        return canonical({**shared, "eps": radius})

    def known(self, what: str, point: str) -> list[Logits]:
        """Return the files that have a figure of that column."""
        logits = self.files.get(point, {}).values()
        return [each for each in logits if right(each, what) is not None]


def right(logits: Logits, what: str) -> Tensor | None:
    """Return which examples a file has right, (N,) bool: under attack or clean; None if unknown."""
    if bool((logits.labels < 0).any()):
        return None
    if what == "clean":
        return argmax(logits.clean) == logits.labels
    return None if logits.broken_by is None else logits.broken_by == ROBUST


def leads(lines: Sequence[Line]) -> list[list[str]]:
    """Return for each line the columns that it leads, such as `robust_best`.

    The line of the highest mean leads if it is better than each of its rivals beyond noise, each
    at 5 %: that all of them say so is again a test at 5 %.
    """
    marks: list[list[str]] = [[] for _ in lines]
    blocks: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        blocks.setdefault(line.rivals, []).append(place)
    for what, point in COLUMNS:
        name = f"{what}_{point}"
        for places in blocks.values():
            there = [each for each in places if lines[each].plain[f"{name}_mean"] is not None]
            if len(there) < 2:
                continue
            first = max(there, key=lambda place: lines[place].plain[f"{name}_mean"])
            rest = [lines[each] for each in there if each != first]
            if all(beyond_noise(lines[first], other, what, point) for other in rest):
                marks[first].append(name)
    return marks


def beyond_noise(first: Line, second: Line, what: str, point: str) -> bool:
    """Whether the accuracies of two lines differ by more than noise."""
    ours, theirs = first.known(what, point), second.known(what, point)
    if not same_examples([*ours, *theirs]):
        return False
    if len(ours) == len(theirs) == 1:
        return paired_p(right(ours[0], what), right(theirs[0], what)) < LEVEL
    if min(len(ours), len(theirs)) > 1:
        return welch([_share(each, what) for each in ours], [_share(x, what) for x in theirs])
    return False


def same_examples(inputs: Sequence[Logits]) -> bool:
    """Whether files judge the same examples of the same data in the same order."""
    first = inputs[0]
    return all(
        torch.equal(first.index, each.index)
        and torch.equal(first.labels, each.labels)
        and _data(first) == _data(each)
        for each in inputs[1:]
    )


def paired_p(first: Tensor | None, second: Tensor | None) -> float:
    """Return the p-value of McNemar's exact test of two (N,) bool verdicts; 1 if one is unknown."""
    if first is None or second is None:
        return 1.0
    return mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))


def welch(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two samples differ by Welch's t-test at 5 %.

    Where no run differs from another on either side there is no noise to measure against, and
    nothing is said to lie beyond it.
    """
    from scipy.stats import ttest_ind

    if statistics.pstdev(first) == 0 and statistics.pstdev(second) == 0:
        return False
    return bool(ttest_ind(first, second, equal_var=False).pvalue < LEVEL)


def _share(logits: Logits, what: str) -> float:
    verdicts = right(logits, what)
    return 0.0 if verdicts is None else int(verdicts.sum()) / len(verdicts)


def _data(logits: Logits) -> str | None:
    return next((p["digest"] for p in logits.info["parents"] if p["kind"] == "data"), None)

"""Which line of a table leads a column beyond noise: what may be printed bold."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from advkit.analyses.gathering.entries import POINTS, WHATS, radius
from advkit.analyses.gathering.groups import Group
from advkit.analyses.gathering.protocol import alike, evaluated
from advkit.analyses.gathering.rows import data_digest, right
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.provenance import canonical
from advkit.formulas.stats import mcnemar

LEVEL = 0.05
COLUMNS = tuple((what, point) for what in WHATS for point in POINTS)
RULE = (
    "bold: better than every other line of its data set, architecture and attack, all of them "
    "trained alike but for their methods, on the same examples, at 5 %: Welch's t-test over seeds, "
    "or the exact McNemar test where both lines are one run each (then the two "
    "models differ, which need not hold for their methods); a line of one run against one of "
    "several is not decided"
)


def leads(groups: Sequence[Group]) -> list[list[str]]:
    """Return for each line the columns that it leads, such as `robust_best`.

    The line of the highest mean leads if it is better than each of its rivals beyond noise, each
    at 5 %: that all of them say so is again a test at 5 %. None leads where a rival was trained or
    judged under another protocol, or nobody recorded under which.
    """
    names: list[list[str]] = [[] for _ in groups]
    protocols = [[evaluated(entry) for entry in group.entries] for group in groups]
    blocks: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        blocks.setdefault(_contest(group), []).append(place)
    for what, point in COLUMNS:
        for places in blocks.values():
            means = {place: groups[place].column(what, point).mean for place in places}
            known = {place: mean for place, mean in means.items() if mean is not None}
            if len(known) < 2:
                continue
            first = max(known, key=lambda place: known[place])
            rivals = [place for place in known if place != first]
            if all(
                alike(protocols[first], protocols[rival])
                and beyond_noise(groups[first], groups[rival], what, point)
                for rival in rivals
            ):
                names[first].append(f"{what}_{point}")
    return names


def _contest(group: Group) -> str:
    """Return what lines that compete have in common."""
    labels = group.labels
    attack = (labels.attack, labels.norm, radius(group.entries[0].attack), labels.steps)
    return canonical([labels.data, labels.arch, attack, labels.attack_settings])


def judged(group: Group, what: str, point: str) -> list[Logits]:
    """Return the files that have a figure of a column."""
    entries = group.of_point(point).values()
    return [entry.logits for entry in entries if entry.hits[what] is not None]


def beyond_noise(first: Group, second: Group, what: str, point: str) -> bool:
    """Whether the accuracies of two lines differ by more than noise."""
    ours, theirs = judged(first, what, point), judged(second, what, point)
    if not same_examples([*ours, *theirs]):
        return False
    # One run each: McNemar pairs their examples. Several: the runs are the sample. One against
    # several has neither pairs nor a spread on both sides.
    if len(ours) == len(theirs) == 1:
        return paired_p(right(ours[0], what), right(theirs[0], what)) < LEVEL
    if min(len(ours), len(theirs)) > 1:
        return welch(first.column(what, point).shares, second.column(what, point).shares)
    return False


def same_examples(inputs: Sequence[Logits]) -> bool:
    """Whether files judge the same examples of the same data in the same order."""
    first = inputs[0]
    return all(
        torch.equal(first.index, other.index)
        and torch.equal(first.labels, other.labels)
        and data_digest(first) == data_digest(other)
        for other in inputs[1:]
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
    from scipy.stats import ttest_ind  # a second to import

    if statistics.pstdev(first) == 0 and statistics.pstdev(second) == 0:
        return False
    return bool(ttest_ind(first, second, equal_var=False).pvalue < LEVEL)

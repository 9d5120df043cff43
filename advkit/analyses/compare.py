"""Two logits files on the same examples: paired difference of accuracy, exact McNemar test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from advkit.analyses.drawing.differences import Point, differences, interval_text
from advkit.analyses.gathering.pairing import Pair, names_of, paired
from advkit.analyses.gathering.rows import require_labels
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.result import Panel, Result
from advkit.artifacts.rows import argmax
from advkit.errors import UsageError
from advkit.formulas import resampling
from advkit.formulas.stats import examples_needed, holm, mcnemar, paired_interval

KINDS = ("logits",)
COMPARES = True
_FEW = 25
"""Discordant examples below which the bootstrap's interval is too narrow."""
_LEVEL = 0.05
_COLUMNS = (
    "first",
    "second",
    "what",
    "n",
    "first_accuracy",
    "second_accuracy",
    "difference",
    "low",
    "high",
    "interval",
    "both",
    "only_first",
    "only_second",
    "neither",
    "p",
    "p_adjusted",
    "decided",
    "examples_needed",
    "same_model",
    "same_attack",
)


@dataclass(frozen=True)
class Verdicts:
    """How the right answers of two files fall together: counts of examples."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n(self) -> int:
        """All examples."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Second accuracy less the first."""
        return (self.only_second - self.only_first) / self.n

    def interval(self, generator: np.random.Generator) -> tuple[str, float, float]:
        """Return the kind and the ends of the 95 % interval of the difference.

        The paired bootstrap, or the adjusted Wald interval where few examples are discordant.
        """
        if self.only_first + self.only_second < _FEW:
            ends = paired_interval(self.only_first, self.only_second, self.n)
            return "adjusted wald", *ends
        counts = (self.only_first, self.both + self.neither, self.only_second)
        gaps = np.repeat(np.array([-1.0, 0.0, 1.0]), counts)
        return "bootstrap", *resampling.of_mean(gaps, generator)


def verdicts(first: Tensor, second: Tensor) -> Verdicts:
    """Count right answers, (n,) bool each, of the same examples in the same order."""
    cells = (first & second, first & ~second, ~first & second, ~first & ~second)
    return Verdicts(*(int(each.sum()) for each in cells))


def analyze(inputs: Sequence[Logits], *, seed: int = 0) -> Result:
    """Compare each file with the first one: clean and robust accuracy, second less first.

    The interval is the paired bootstrap's (adjusted Wald where fewer than 25 examples are
    discordant); a difference is decided where the exact McNemar test, adjusted by Holm for
    several files, gives less than 5 %.

    Args:
        seed: of the bootstrap.

    Raises:
        InputError: out-of-distribution data, which has no labels.
        MismatchError: not the same examples.
        UsageError: a single file.
    """
    if len(inputs) < 2:
        given = inputs[0].path if inputs else "none"
        raise UsageError(f"compare needs two logits files or more, got one ({given})")
    for each in inputs:
        require_labels(each, "compare")
    pairs = [paired(inputs[0], each) for each in inputs[1:]]
    names = names_of(inputs)
    lines = [line for place, pair in enumerate(pairs) for line in _lines(pair, names, place, seed)]
    for what in ("robust", "clean"):
        _decide([line for line in lines if line["what"] == what])
    return Result(
        _numbers(pairs, lines),
        _COLUMNS,
        tuple(tuple(line[name] for name in _COLUMNS) for line in lines),
        _pictures(names, lines),
        text="\n".join([*_text(lines), *_notes(pairs)]),
    )


def _lines(pair: Pair, names: Sequence[str], place: int, seed: int) -> list[dict[str, Any]]:
    """Return a row for robust accuracy, where both files are attacked, and one for clean."""
    lines = []
    for what in ("robust", "clean"):
        first, second = _right(pair.first, what), _right(pair.second, what)
        if first is None or second is None:
            continue
        cells = verdicts(first[pair.first_rows], second[pair.second_rows])
        generator = resampling.stream(seed, "compare", what, place)
        kind, low, high = cells.interval(generator)
        lines.append(
            {
                "first": names[0],
                "second": names[place + 1],
                "what": what,
                "n": cells.n,
                "first_accuracy": (cells.both + cells.only_first) / cells.n,
                "second_accuracy": (cells.both + cells.only_second) / cells.n,
                "difference": cells.difference,
                "low": low,
                "high": high,
                "interval": kind,
                **vars(cells),
                "p": mcnemar(cells.only_first, cells.only_second),
                "examples_needed": examples_needed(cells.only_first, cells.only_second, cells.n),
                "same_model": pair.same_model,
                "same_attack": pair.same_attack,
            }
        )
    return lines


def _right(logits: Logits, what: str) -> Tensor | None:
    """Return which examples are right, (N,) bool; None for robust accuracy without an attack."""
    if what == "clean":
        return argmax(logits.clean) == logits.labels
    return None if logits.broken_by is None else logits.broken_by == ROBUST


def _decide(lines: Sequence[dict[str, Any]]) -> None:
    """Add the adjusted p-value and the decision to rows of one question."""
    for line, adjusted in zip(lines, holm([line["p"] for line in lines]), strict=True):
        line["p_adjusted"] = adjusted
        line["decided"] = adjusted < _LEVEL


def _numbers(
    pairs: Sequence[Pair], lines: Sequence[dict[str, Any]]
) -> dict[str, float | int | str | None]:
    """Return plain figures of one pair; of several, how many are decided."""
    if len(pairs) > 1:
        numbers: dict[str, float | int | str | None] = {"files": len(pairs) + 1}
        for what in dict.fromkeys(line["what"] for line in lines):
            of = [line for line in lines if line["what"] == what]
            numbers[f"{what}_compared"] = len(of)
            numbers[f"{what}_differ"] = sum(line["decided"] for line in of)
        return numbers
    (pair,) = pairs
    numbers = {
        "files": 2,
        "n": pair.n,
        "first_n": len(pair.first.labels),
        "second_n": len(pair.second.labels),
        "same_model": pair.same_model,
        "same_attack": pair.same_attack,
        "same_threat": pair.same_threat,
    }
    aside = ("first", "second", "what", "n", "same_model", "same_attack", "p_adjusted")
    for line in lines:
        numbers |= {f"{line['what']}_{name}": line[name] for name in _COLUMNS if name not in aside}
        for end in ("low", "high", "interval"):
            numbers[f"{line['what']}_difference_{end}"] = numbers.pop(f"{line['what']}_{end}")
    return numbers


def _text(lines: Sequence[dict[str, Any]]) -> list[str]:
    return [text for line in lines for text in _block(line)]


def _block(line: dict[str, Any]) -> list[str]:
    """Return the table of two by two counts and what it says."""
    first, second = f"first ({line['first']})", f"second ({line['second']})"
    head = (line["what"], f"{second} right", "wrong")
    cells = aligned(
        [
            head,
            (f"{first} right", line["both"], line["only_first"]),
            ("wrong", line["only_second"], line["neither"]),
        ]
    )
    ends = (100 * line["difference"], 100 * line["low"], 100 * line["high"])
    gap = interval_text(ends, 2, "points")
    test = "exact McNemar" if line["p"] == line["p_adjusted"] else "exact McNemar, Holm"
    p = f"p = {line['p_adjusted']:.2g} ({test})"
    shares = f"{line['first_accuracy']:.2%} to {line['second_accuracy']:.2%}"
    return [cells, f"{shares}: {gap}, {p}: {_outcome(line)}"]


def _outcome(line: dict[str, Any]) -> str:
    if line["decided"]:
        return "they differ"
    if line["examples_needed"] is None:
        return "no difference seen"
    return (
        f"not decided by {line['n']} examples; a true difference of this size would show "
        f"(4 times of 5) with {line['examples_needed']}"
    )


def _notes(pairs: Sequence[Pair]) -> list[str]:
    """Say once what makes a comparison other than of two models under one attack."""
    notes = []
    for pair in pairs:
        path = pair.second.path
        attacked = [each.broken_by is not None for each in (pair.first, pair.second)]
        if not pair.whole:
            notes.append(
                f"note: {path}: compared on {pair.n} common examples of "
                f"{len(pair.first.labels)} and {len(pair.second.labels)}"
            )
        if any(attacked) and not all(attacked):
            notes.append(f"note: {path}: one of the two is not attacked: clean accuracy alone")
        elif all(attacked) and not pair.same_threat:
            notes.append(f"warning: {path}: other norm or ε than the first file's")
        elif all(attacked) and not pair.same_attack:
            what = "the attacks are compared" if pair.same_model else "model and attack both differ"
            notes.append(f"note: {path}: another attack than the first file's: {what}")
    return notes


def _pictures(names: Sequence[str], lines: Sequence[dict[str, Any]]) -> tuple[Panel, ...]:
    """Return one panel of a pair, else one for robust and one for clean accuracy."""
    unit = "percentage points, 95 % interval"
    whats = list(dict.fromkeys(line["what"] for line in lines))
    if len(names) == 2:
        title = f"{names[1]} less {names[0]} (n = {lines[0]['n']})"
        points = {"": [_point(each) for each in lines]}
        return (differences(whats, points, xlabel=unit, title=title),)
    panels = []
    for what in whats:
        of = {line["second"]: line for line in lines if line["what"] == what}
        points = {"": [_point(of.get(name)) for name in names[1:]]}
        title = f"{what} accuracy less that of {names[0]}"
        panels.append(differences(names[1:], points, xlabel=unit, title=title))
    return tuple(panels)


def _point(line: dict[str, Any] | None) -> Point | None:
    if line is None:
        return None
    return 100 * line["difference"], (100 * line["low"], 100 * line["high"])

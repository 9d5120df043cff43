"""Two logits files on the same examples: paired difference of accuracy, exact McNemar test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from advkit.analyses.drawing.differences import Point, differences, interval_text
from advkit.analyses.gathering import naming, protocol
from advkit.analyses.gathering.entries import WHATS, entries_of
from advkit.analyses.gathering.pairing import Pair, names_of, paired
from advkit.analyses.gathering.rows import require_labels, right
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Panel, Result
from advkit.errors import UsageError
from advkit.formulas import resampling
from advkit.formulas.stats import examples_needed, holm, mcnemar, paired_interval

LIMITS = {"seed": "[0, 4294967295]"}
KINDS = ("logits",)
EXAMPLE = "runs/at/best.autoattack-*.h5 runs/adr/best.autoattack-*.h5"
COMPARES = True
_FEW = 25
"""Discordant examples below which the bootstrap's interval is too narrow."""
_LEVEL = 0.05
_EXAMPLES = ("n", "examples")
"""Of these a note of its own speaks: common ones alone are compared."""


class _Row(NamedTuple):
    """One accuracy of two files."""

    first: str
    second: str
    what: str
    n: int
    first_accuracy: float
    second_accuracy: float
    difference: float
    low: float
    high: float
    interval: str
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    p_adjusted: float
    decided: bool
    examples_needed: int | None
    same_model: bool
    same_attack: bool
    differs: str


class Verdicts(NamedTuple):
    """How the right answers of two files fall together: counts of examples."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n(self) -> int:
        """All examples."""
        return sum(self)

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
        # Of the difference of two verdicts, resampling sees three values and how often each is.
        gaps = np.repeat(np.array([-1.0, 0.0, 1.0]), counts)
        return "bootstrap", *resampling.of_mean(gaps, generator)


def verdicts(first: Tensor, second: Tensor) -> Verdicts:
    """Count right answers, (n,) bool each, of the same examples in the same order."""
    cells = (first & second, first & ~second, ~first & second, ~first & ~second)
    return Verdicts(*(int(cell.sum()) for cell in cells))


def analyze(inputs: Sequence[Logits], *, seed: int = 0) -> Result:
    """Compare each file with the first one: clean and robust accuracy, second less first.

    The interval is the paired bootstrap's (adjusted Wald where fewer than 25 examples are
    discordant); a difference is decided where the exact McNemar test, adjusted by Holm for
    several files, gives less than 5 %. The settings in which files differ, their methods' own
    aside, are named: a decided difference is one of two nets, whatever made it.

    Args:
        seed: of the bootstrap.

    Raises:
        InputError: out-of-distribution data, which has no labels.
        MismatchError: not the same examples.
        UsageError: a single file.
    """
    if len(inputs) < 2:
        path = inputs[0].path if inputs else "none"
        raise UsageError(f"compare needs two logits files or more, got one ({path})")
    for logits in inputs:
        require_labels(logits, "compare")
    pairs = [paired(inputs[0], other) for other in inputs[1:]]
    names = names_of(inputs)
    shown = [naming.beside(x, name) for x, name in zip(inputs, names, strict=True)]
    settings = [protocol.evaluated(entry) for entry in entries_of(inputs)]
    differing = [protocol.differences([settings[0], other]) for other in settings[1:]]
    rows = [
        row._replace(differs=protocol.words(differing[place], [names[0], names[place + 1]]))
        for place, pair in enumerate(pairs)
        for row in _rows(pair, names, place, seed)
    ]
    # Holm's family is one question, robust or clean, asked of every file.
    adjusted = {what: iter(holm([row.p for row in rows if row.what == what])) for what in WHATS}
    p_values = [next(adjusted[row.what]) for row in rows]
    rows = [
        row._replace(p_adjusted=p, decided=p < _LEVEL)
        for row, p in zip(rows, p_values, strict=True)
    ]
    return Result(
        _numbers(pairs, rows),
        _Row._fields,
        tuple(rows),
        _pictures(dict(zip(names, shown, strict=True)), rows),
        text="\n".join([*(_block(row) for row in rows), *_notes(pairs, names, differing)]),
        more={"differs": protocol.plain(protocol.differences(settings))},
    )


def _rows(pair: Pair, names: Sequence[str], place: int, seed: int) -> list[_Row]:
    """Return a row for robust accuracy, where both files are attacked, and one for clean."""
    rows = []
    for what in WHATS:
        first, second = right(pair.first, what), right(pair.second, what)
        if first is None or second is None:
            continue
        cells = verdicts(first[pair.first_rows], second[pair.second_rows])
        generator = resampling.stream(seed, "compare", what, place)
        kind, low, high = cells.interval(generator)
        p = mcnemar(cells.only_first, cells.only_second)
        rows.append(
            _Row(
                first=names[0],
                second=names[place + 1],
                what=what,
                n=cells.n,
                first_accuracy=(cells.both + cells.only_first) / cells.n,
                second_accuracy=(cells.both + cells.only_second) / cells.n,
                difference=cells.difference,
                low=low,
                high=high,
                interval=kind,
                **cells._asdict(),
                p=p,
                p_adjusted=p,
                decided=p < _LEVEL,
                examples_needed=examples_needed(cells.only_first, cells.only_second, cells.n),
                same_model=pair.same_model,
                same_attack=pair.same_attack,
                differs="",
            )
        )
    return rows


def _numbers(pairs: Sequence[Pair], rows: Sequence[_Row]) -> dict[str, Number]:
    """Return plain figures of one pair; of several, how many are decided."""
    numbers: dict[str, Number]
    if len(pairs) > 1:
        numbers = {"files": len(pairs) + 1}
        for what in dict.fromkeys(row.what for row in rows):
            decided = [row.decided for row in rows if row.what == what]
            numbers |= {f"{what}_compared": len(decided), f"{what}_differ": sum(decided)}
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
    aside = ("first", "second", "what", "n", "same_model", "same_attack", "p_adjusted", "differs")
    for row in rows:
        figures = row._asdict()
        numbers |= {f"{row.what}_{name}": figures[name] for name in figures if name not in aside}
        # The interval is the difference's: beside two accuracies the record has to say so.
        for end in ("low", "high", "interval"):
            numbers[f"{row.what}_difference_{end}"] = numbers.pop(f"{row.what}_{end}")
    return numbers


def _block(row: _Row) -> str:
    """Return the table of two by two counts and what it says."""
    first, second = f"first ({row.first})", f"second ({row.second})"
    counts = aligned(
        [
            (row.what, f"{second} right", "wrong"),
            (f"{first} right", row.both, row.only_first),
            ("wrong", row.only_second, row.neither),
        ]
    )
    gap = interval_text((100 * row.difference, 100 * row.low, 100 * row.high), 2, "points")
    test = "exact McNemar" if row.p == row.p_adjusted else "exact McNemar, Holm"
    p = f"p = {row.p_adjusted:.2g} ({test})"
    shares = f"{row.first_accuracy:.2%} to {row.second_accuracy:.2%}"
    return f"{counts}\n{shares}: {gap}, {p}: {_outcome(row)}"


def _outcome(row: _Row) -> str:
    if row.decided:
        return "they differ"
    if row.examples_needed is None:
        return "no difference seen"
    return (
        f"not decided by {row.n} examples; a true difference of this size would show "
        f"(4 times of 5) with {row.examples_needed}"
    )


def _notes(
    pairs: Sequence[Pair],
    names: Sequence[str],
    differing: Sequence[Mapping[str, Sequence[object]]],
) -> list[str]:
    """Say once what makes a comparison other than of two methods under one attack."""
    notes = []
    for place, pair in enumerate(pairs, start=1):
        path = pair.second.path
        attacked = [x.broken_by is not None for x in (pair.first, pair.second)]
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
        own = {k: v for k, v in differing[place - 1].items() if k not in _EXAMPLES}
        if told := protocol.words(own, [names[0], names[place]]):
            notes.append(f"note: {path}: other settings than the first file's: {told}")
    return notes


def _pictures(shown: Mapping[str, str], rows: Sequence[_Row]) -> tuple[Panel, ...]:
    """Return one panel of a pair, else one for robust and one for clean accuracy.

    Args:
        shown: name → what the picture calls that file, in the order of the files.
        rows: what is drawn.
    """
    first, *others = shown.values()
    unit = "percentage points, 95 % interval"
    whats = list(dict.fromkeys(row.what for row in rows))
    if len(others) == 1:
        title = f"{others[0]} less {first} (n = {rows[0].n})"
        points = {"": [_point(row) for row in rows]}
        return (differences(whats, points, xlabel=unit, title=title),)
    panels = []
    for what in whats:
        own = {row.second: _point(row) for row in rows if row.what == what}
        series = {"": [own.get(name) for name in list(shown)[1:]]}
        title = f"{what} accuracy less that of {first}"
        panels.append(differences(others, series, xlabel=unit, title=title))
    return tuple(panels)


def _point(row: _Row) -> Point:
    return 100 * row.difference, (100 * row.low, 100 * row.high)

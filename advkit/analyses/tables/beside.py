"""Published figures beside ours, as a table for a document and as text for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from advkit.analyses.tables.against import Pair, pairs, protocol, why_none
from advkit.analyses.tables.leads import Line
from advkit.analyses.tables.published import Published
from advkit.analyses.tables.sheets import attack_of, minus, name_of
from advkit.artifacts.document import NOTHING, Cell, Sheet, aligned

HEAD = ("Data", "Architecture", "Published", "Point", "Ours")
FIGURES = ("Published", "Ours", "Difference [95 %]")
PUBLISHED = ("Data", "Architecture", "Published", "Point")
INTERVAL = (
    "difference: ours − published, in points; the interval is Wilson's of one run (its test "
    "examples), Student's over seeds, Welch's against published reruns; a published figure of one "
    "run is taken as it stands, without noise of its own"
)


class Beside:
    """One published table beside our lines: its pairs, and what differs apart from the figures."""

    def __init__(self, published: Published, lines: Sequence[Line]) -> None:
        self.published = published
        self.pairs = pairs(published, lines)
        self.matched = sum(pair.ours is not None for pair in self.pairs)
        self.differences = protocol(published, self.pairs, lines)
        self.reasons = [] if self.matched else why_none(published, lines)

    @property
    def notes(self) -> list[str]:
        """Return what stands below the table."""
        told = [f"source: {self.published.paper['source']}"]
        if not self.matched:
            told.append(f"nothing here matches a published line: {'; '.join(self.reasons)}")
        told += [f"protocol, {line}" for line in self.differences]
        told += self.published.notes
        own = dict.fromkeys(f"{p.line.label}: {p.line.note}" for p in self.pairs if p.line.note)
        return [*told, *own]

    def sheet(self) -> Sheet:
        """Return a row for each published line and each of ours that matches it."""
        head, words = [*HEAD, *FIGURES, *FIGURES], len(HEAD)
        # Where nothing matches, columns of ours would be empty.
        kept = [k for k, name in enumerate(head) if self.matched or name in PUBLISHED]
        words = sum(place < words for place in kept)
        figures = (len(kept) - words) // 2
        cells = [_row(pair) for pair in self.pairs]
        rows = [tuple(Cell(row[place] or NOTHING) for place in kept) for row in cells]
        data = [pair.line.data for pair in self.pairs]
        return Sheet(
            caption=f"{self.published.title}: published figures and ours, accuracy in %",
            spans=(("", words), (self._robust(), figures), ("Standard accuracy (%)", figures)),
            head=tuple(head[place] for place in kept),
            words=words,
            rows=tuple(rows),
            breaks=frozenset(k for k in range(1, len(rows)) if data[k] != data[k - 1]),
            notes=(*([INTERVAL] if self.matched else []), *self.notes),
        )

    def _robust(self) -> str:
        attacks = {pair.line.attack for pair in self.pairs}
        names = {"autoattack": "AutoAttack"}
        return f"{' or '.join(names.get(a, a.upper()) for a in sorted(attacks))} (%)"

    def text(self) -> str:
        """Return the same for a terminal."""
        head = ["data", "arch", "published", "point", "ours"]
        head += [
            f"{what} {each}" for what in ("robust", "clean") for each in ("paper", "ours", "±")
        ]
        head = [word.replace("±", "difference [95 %]") for word in head]
        lines = [head, *([cell or "-" for cell in _row(pair)] for pair in self.pairs)]
        kept = [k for k in range(len(head)) if k < 4 or any(line[k] != "-" for line in lines[1:])]
        table = aligned([[line[place] for place in kept] for line in lines])
        return "\n".join([self.published.title, table, *(f"- {note}" for note in self.notes)])

    def plain(self) -> dict[str, Any]:
        """Return everything as plain objects for the record and JSON."""
        return {
            "published": [pair.plain() for pair in self.pairs],
            "protocol_differences": [*self.reasons, *self.differences],
        }


def _row(pair: Pair) -> list[str]:
    line, ours = pair.line, ""
    if pair.ours is not None:
        ours = f"{name_of(pair.ours.plain)}, {attack_of(pair.ours.plain)}"
    label = line.label + (" (extra data)" if line.extra else "")
    cells = [line.data, line.arch, label, line.point, ours]
    for what in ("robust", "clean"):
        cells += [_mean(getattr(line, what)), _mean(pair.shares(what)), _difference(pair, what)]
    return cells


def _mean(shares: Sequence[float]) -> str:
    """Return a mean in percent, with the sample standard deviation where there are several."""
    if not shares:
        return ""
    told = f"{statistics.fmean(shares) * 100:.2f}"
    return told + (f" ± {statistics.stdev(shares) * 100:.2f}" if len(shares) > 1 else "")


def _difference(pair: Pair, what: str) -> str:
    difference = pair.difference(what)
    if difference is None:
        return ""
    centre, ends = difference
    told = f"{centre * 100:+.2f}"
    if ends is not None:
        told += " [{:+.2f}, {:+.2f}]".format(*(end * 100 for end in ends))
    return minus(told)

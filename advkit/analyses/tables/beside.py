"""Published figures beside ours, as a table for a document and as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from advkit.analyses.gathering import naming
from advkit.analyses.gathering.entries import WHATS
from advkit.analyses.gathering.groups import Column, Group
from advkit.analyses.tables.against import Pair, near, pairs, protocol, why_none
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

    def __init__(self, published: Published, groups: Sequence[Group]) -> None:
        self.published = published
        self.pairs = pairs(published, groups)
        self.matched = sum(pair.ours is not None for pair in self.pairs)
        self.shown = [pair for pair in self.pairs if pair.ours or near(pair.line, groups)]
        self.differences = protocol(published, self.pairs, groups)
        self.reasons = [] if self.matched else why_none(published, groups)

    @property
    def notes(self) -> list[str]:
        """Return what stands below the table."""
        notes = [f"source: {self.published.paper['source']}"]
        if not self.matched:
            notes.append(f"nothing here matches a published line: {'; '.join(self.reasons)}")
        if left := len(self.pairs) - len(self.shown):
            notes.append(f"{left} published lines of other data, nets or radii are not shown")
        notes += [f"protocol, {difference}" for difference in self.differences]
        notes += self.published.notes
        lines = [pair.line for pair in self.shown]
        # A line that several of ours match stands several times; its note once.
        return [*notes, *dict.fromkeys(f"{x.label}: {x.note}" for x in lines if x.note)]

    def sheet(self) -> Sheet | None:
        """Return a row for each published line near ours, and for each of ours that matches one.

        Near is a line of the same data, architecture, norm and ε, whatever its method. None where
        no line is.
        """
        if not self.shown:
            return None
        head = [*HEAD, *FIGURES, *FIGURES]
        # Where nothing matches, columns of ours would be empty.
        used = [k for k, name in enumerate(head) if self.matched or name in PUBLISHED]
        words = sum(place < len(HEAD) for place in used)
        figures = (len(used) - words) // 2
        cells = [_row(pair) for pair in self.shown]
        rows = [tuple(Cell(row[place] or NOTHING) for place in used) for row in cells]
        data = [pair.line.data for pair in self.shown]
        return Sheet(
            caption=f"{self.published.title}: published figures and ours, accuracy in %",
            spans=(("", words), (self._robust(), figures), ("Standard accuracy (%)", figures)),
            head=tuple(head[place] for place in used),
            words=words,
            rows=tuple(rows),
            breaks=frozenset(k for k in range(1, len(rows)) if data[k] != data[k - 1]),
            notes=(*([INTERVAL] if self.matched else []), *self.notes),
        )

    def _robust(self) -> str:
        attacks = {pair.line.attack for pair in self.shown}
        return f"{' or '.join(map(_attack, sorted(attacks)))} (%)"

    def text(self) -> str:
        """Return the same for a terminal."""
        figures = ("paper", "ours", "difference [95 %]")
        head = ["data", "arch", "published", "point", "ours"]
        head += [f"{what} {figure}" for what in WHATS for figure in figures]
        lines = [head, *([cell or "-" for cell in _row(pair)] for pair in self.shown)]
        used = [k for k in range(len(head)) if k < 4 or any(line[k] != "-" for line in lines[1:])]
        table = aligned([[line[place] for place in used] for line in lines])
        table = table if self.shown else ""
        return "\n".join(
            [self.published.title, *filter(None, [table]), *(f"- {note}" for note in self.notes)]
        )

    def plain(self) -> dict[str, object]:
        """Return everything as plain objects for the record and JSON."""
        return {
            "published": [pair.plain() for pair in self.pairs],
            "protocol_differences": [*self.reasons, *self.differences],
        }


def _attack(name: str) -> str:
    """Return a published attack as papers print it, as in `pgd-100`."""
    first, _, steps = name.partition("-")
    return naming.attack(first, int(steps)) if steps.isdecimal() else naming.attack(name)


def _row(pair: Pair) -> list[str]:
    line, ours = pair.line, ""
    if pair.ours is not None:
        ours = f"{name_of(pair.ours)}, {attack_of(pair.ours.labels)}"
    label = line.label + (" (extra data)" if line.extra else "")
    cells = [line.data, line.arch, label, line.point, ours]
    for what in WHATS:
        cells += [_mean(line.column(what)), _mean(pair.column(what)), _difference(pair, what)]
    return cells


def _mean(column: Column) -> str:
    """Return a mean in percent, with the sample standard deviation where there are several."""
    spread = "" if column.sd is None else f" ± {column.sd * 100:.2f}"
    return "" if column.mean is None else f"{column.mean * 100:.2f}{spread}"


def _difference(pair: Pair, what: str) -> str:
    difference = pair.difference(what)
    if difference is None:
        return ""
    centre, ends = difference
    text = f"{centre * 100:+.2f}"
    if ends is not None:
        text += " [{:+.2f}, {:+.2f}]".format(*(end * 100 for end in ends))
    return minus(text)

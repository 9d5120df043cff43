"""Logits files grouped as papers do: a line a recipe and attack, over seeds, best and final."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from advkit.analyses.gathering.entries import (
    ASIDE,
    POINTS,
    WHATS,
    Entry,
    Settings,
    differing,
    entries_of,
    radius,
)
from advkit.analyses.gathering.taught import parting
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.identity import PLAIN
from advkit.artifacts.provenance import canonical
from advkit.errors import InputError, MismatchError
from advkit.formulas.stats import wilson

OWN = ("attack", "norm", "eps", "steps")
"""What the label of an attack always shows."""


@dataclass(frozen=True)
class Labels:
    """What the files of a group have in common, as records name it."""

    data: str
    arch: str
    method: str
    weights: str
    settings: Settings
    settings_recorded: bool
    attack: str
    norm: str | None
    eps: str | None
    steps: int | None
    attack_settings: Settings


@dataclass(frozen=True)
class Column:
    """Accuracies, or differences of two, of the seeds that have them, in [−1, 1].

    `ci95` is the Wilson interval of a single run's accuracy.
    """

    shares: Sequence[float]
    ci95: tuple[float, float] | None = None

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None where nothing is known."""
        return statistics.fmean(self.shares) if self.shares else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds; None below two."""
        return statistics.stdev(self.shares) if len(self.shares) > 1 else None

    @property
    def variance(self) -> float | None:
        """Its square."""
        return statistics.variance(self.shares) if len(self.shares) > 1 else None

    def plain(self, name: str) -> dict[str, object]:
        """Return the figures under the names that records give them."""
        return {
            f"{name}_mean": self.mean,
            f"{name}_sd": self.sd,
            f"{name}_variance": self.variance,
            f"{name}_min": min(self.shares, default=None),
            f"{name}_max": max(self.shares, default=None),
            f"{name}_seeds": len(self.shares),
        }


@dataclass
class Group:
    """One line of the table."""

    number: int
    labels: Labels
    entries: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Take one more file.

        Raises:
            MismatchError: it was judged on other examples than the rest.
            InputError: this seed and role is there already.
        """
        for other in self.entries:
            pair = f"{other.path} and {entry.path}"
            if other.n != entry.n:
                raise MismatchError(
                    f"{pair}: {other.n} and {entry.n} examples cannot share a line of the table"
                )
            if other.fingerprint != entry.fingerprint:
                raise MismatchError(
                    f"{pair}: other images, both called {entry.data}, cannot share a line of the "
                    "table"
                )
            if (other.seed, other.point) == (entry.seed, entry.point):
                raise InputError(
                    f"{pair}: both are the {entry.point} one of seed {entry.seed} under the same "
                    "settings and attack: give one of them"
                )
        self.entries.append(entry)

    @property
    def n(self) -> int:
        """Examples in each file."""
        return self.entries[0].n

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len({entry.seed for entry in self.entries})

    @property
    def runs(self) -> list[str]:
        """Folders of its files' runs."""
        return list(dict.fromkeys(str(Path(entry.path).parent) for entry in self.entries))

    def of_point(self, point: str) -> dict[int | None, Entry]:
        """Return seed → file of the best or the final checkpoint."""
        return {entry.seed: entry for entry in self.entries if entry.point == point}

    def column(self, what: str, point: str) -> Column:
        """Return robust or clean accuracy, best or final, or their `difference`.

        The difference is best − final of each seed that has both.
        """
        if point == "difference":
            best, final = (self._hits(what, name) for name in POINTS)
            gaps = [best[seed] - final[seed] for seed in best if seed in final]
            return Column([gap / self.n for gap in gaps])
        counts = list(self._hits(what, point).values())
        interval = wilson(counts[0], self.n) if len(counts) == 1 else None
        return Column([count / self.n for count in counts], interval)

    def plain(self) -> dict[str, object]:
        """Return labels and figures: for robust and clean accuracy, best, final and difference.

        Each has `_mean`, `_sd` and `_variance` (sample standard deviation over seeds and its
        square, None for one seed), `_min`, `_max` and `_seeds`; best and final of one seed have
        `_ci95`, the Wilson interval. None where nothing is known.
        """
        row = {"group": self.number, **vars(self.labels), "n": self.n, "seeds": self.seeds}
        for what in WHATS:
            for point in POINTS:
                column = self.column(what, point)
                ends = None if column.ci95 is None else list(column.ci95)
                row |= {**column.plain(f"{what}_{point}"), f"{what}_{point}_ci95": ends}
            row |= self.column(what, "difference").plain(f"{what}_difference")
        return row

    def _hits(self, what: str, point: str) -> dict[int | None, int]:
        """Return seed → right answers."""
        counts = {seed: entry.hits[what] for seed, entry in self.of_point(point).items()}
        return {seed: count for seed, count in counts.items() if count is not None}


def grouped(inputs: Sequence[Logits]) -> list[tuple[Entry, Group]]:
    """Return each file, in the order given, with its group; groups count in that order too.

    Raises:
        InputError, MismatchError: see `Group.add`.
    """
    entries = entries_of(inputs)
    groups: dict[str, Group] = {}
    pairs = []
    for entry, labels in zip(entries, _labels(entries), strict=True):
        # 8/255 and 0.03137… are one ε, however a file spells it.
        key = canonical({**vars(labels), "eps": radius(entry.attack)})
        group = groups.setdefault(key, Group(len(groups) + 1, labels))
        group.add(entry)
        pairs.append((entry, group))
    return pairs


def _labels(entries: Sequence[Entry]) -> Iterator[Labels]:
    own = zip(entries, _settings(entries), _attack_settings(entries), strict=True)
    for entry, settings, attack_settings in own:
        config = entry.attack
        yield Labels(
            data=entry.data,
            arch=entry.arch,
            method=entry.method,
            weights="average" if entry.role.endswith("-ema") else "student",
            settings=settings,
            settings_recorded=entry.recorded,
            attack=config["attack"],
            norm=config.get("norm"),
            eps=config.get("eps"),
            steps=config.get("steps"),
            attack_settings=attack_settings,
        )


def _settings(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """Return for each file the training settings in which its family differs.

    What taught a student is such a setting too, where `taught.parting` says so; so is the
    checkpoint of imported nets, which have no seed to tell them apart.
    """
    families = [(e.data, e.arch, e.method, e.recorded) for e in entries]
    settings = _differences(families, [e.trained for e in entries])
    keys = [canonical(pair) for pair in zip(families, settings, strict=True)]
    alike: dict[str, list[Entry]] = defaultdict(list)
    for key, entry in zip(keys, entries, strict=True):
        alike[key].append(entry)
    roles = {key: parting([(e.seed, e.taught_by) for e in own]) for key, own in alike.items()}
    seedless = {
        key: len({entry.checkpoint for entry in own if entry.seed is None}) > 1
        for key, own in alike.items()
    }
    for key, entry, own in zip(keys, entries, settings, strict=True):
        own |= {role: entry.taught_by[role] for role in roles[key]}
        if seedless[key] and entry.seed is None:
            own["checkpoint"] = entry.checkpoint
    return settings


def _attack_settings(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """Return for each file the options in which files of the same attack differ.

    A loss that papers' figures are not of is told in any case.
    """
    options = [
        {name: value for name, value in entry.attack.items() if name not in (*OWN, *ASIDE)}
        for entry in entries
    ]
    differences = _differences([entry.attack["attack"] for entry in entries], options)
    for entry, own in zip(entries, differences, strict=True):
        loss = entry.attack.get("loss", PLAIN)
        own |= {} if loss == PLAIN else {"loss": loss}
    return differences


def _differences(
    families: Sequence[Hashable], configs: Sequence[Settings]
) -> list[dict[str, object]]:
    """Return of each configuration the options in which those of its family differ."""
    members: dict[Hashable, list[Settings]] = defaultdict(list)
    for family, config in zip(families, configs, strict=True):
        members[family].append(config)
    names = {family: differing(own) for family, own in members.items()}
    return [
        {name: config.get(name) for name in names[family]}
        for family, config in zip(families, configs, strict=True)
    ]

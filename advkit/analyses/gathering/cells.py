"""Runs laid out by two of their training settings: the cells of an ablation grid."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from advkit.analyses.gathering.entries import WHATS, Entry, Settings, attack_options, differing
from advkit.analyses.gathering.groups import Group
from advkit.analyses.gathering.taught import TAUGHT_BY
from advkit.artifacts.provenance import canonical
from advkit.errors import InputError, MismatchError, UsageError, unknown
from advkit.formulas.schedules import parse_span
from advkit.formulas.stats import wilson
from advkit.formulas.threat import number

Interval = tuple[float, float]
Noise = tuple[float, int]
"""Standard deviation between seeds, and its degrees of freedom."""
ADR = ("tau", "lambda")
"""What label smoothing stands beside, as the limit τ → ∞."""


CONSTANT, ENDLESS, SPAN, WORD = range(4)
"""What may stand on an axis, in this order."""


@dataclass(frozen=True, order=True)
class Mark:
    """Where a run stands on an axis. Constants come first, then what has no finite number."""

    order: tuple[int, float, float]
    text: str

    @property
    def value(self) -> float | None:
        """The constant; None for an annealed value, a word or infinity."""
        return self.order[1] if self.order[0] == CONSTANT else None

    @property
    def plain(self) -> float | str:
        """The constant as a number, anything else as text."""
        return self.text if self.value is None else self.value


@dataclass(frozen=True)
class Summary:
    """Mean over runs, sample standard deviation (None for one run), 95 % interval of the mean."""

    mean: float
    sd: float | None
    interval: Interval


@dataclass(frozen=True)
class Cell:
    """The runs that stand at one place."""

    x: Mark | None
    y: Mark | None
    group: Group
    noise: Mapping[str, Noise] = field(default_factory=dict)

    def shares(self, what: str) -> list[float]:
        """Accuracies of the runs, `robust` or `clean`, in [0, 1]; none where it is unknown."""
        counts = [entry.hits[what] for entry in self.group.entries]
        return [count / self.group.n for count in counts if count is not None]

    def summary(self, what: str) -> Summary | None:
        """Return mean, deviation and interval of an accuracy; None where it is unknown."""
        shares = self.shares(what)
        if not shares:
            return None
        sd = statistics.stdev(shares) if len(shares) > 1 else None
        interval = spread(shares, self.group.n, self.noise.get(what))
        return Summary(statistics.fmean(shares), sd, interval)


def seed_noise(runs: Iterable[Sequence[float]]) -> Noise | None:
    """Return the standard deviation between runs of one recipe, pooled, and its degrees of freedom.

    √(Σ_j Σ_i (a_ij − ā_j)² / Σ_j (k_j − 1)) over recipes j of k_j runs; None where all have one.

    >>> seed_noise([[0.5, 0.7], [0.1, 0.1], [0.3]])
    (0.1, 2)
    """
    several = [shares for shares in runs if len(shares) > 1]
    freedom = sum(len(shares) - 1 for shares in several)
    if not freedom:
        return None
    total = sum((len(shares) - 1) * statistics.variance(shares) for shares in several)
    return round(math.sqrt(total / freedom), 12), freedom


def spread(shares: Sequence[float], n: int, noise: Noise | None) -> Interval:
    """Return a 95 % interval of the mean of k runs' accuracies on the same n examples.

    The wider of Wilson's, for the examples, and mean ± t·s/√k, for the seeds, where s is pooled
    over recipes: two or three runs of one alone say too little of it.

    >>> spread([0.5], 100, None) == wilson(50, 100)
    True
    """
    mean = statistics.fmean(shares)
    # All runs judge the same n examples: more runs do not make more of them.
    low, high = wilson(round(mean * n), n)
    if noise is not None:
        from scipy.special import stdtrit  # slow to import

        sd, freedom = noise
        reach = float(stdtrit(freedom, 0.975)) * sd / math.sqrt(len(shares))
        low, high = max(0.0, min(low, mean - reach)), min(1.0, max(high, mean + reach))
    return low, high


def mark(value: object) -> Mark:
    """Return a setting's place on its axis.

    >>> mark("2.5:2.0").text, mark("1.0:1.0").plain, mark("1/4").value, mark("adr").text
    ('2.5→2', 1.0, 0.25, 'adr')
    """
    if value == math.inf:
        return Mark((ENDLESS, 0.0, 0.0), "∞")
    # A range before a number: `1.0:1.0` is a constant, and 1/4 no range.
    for read in (parse_span, number):
        try:
            parsed = read(str(value))
        except UsageError:
            continue
        start, end = parsed if isinstance(parsed, tuple) else (parsed, parsed)
        if start == end:
            text = f"{start:g}" if isinstance(parsed, tuple) else str(value)
            return Mark((CONSTANT, start, start), text)
        return Mark((SPAN, start, end), f"{start:g}→{end:g}")
    return Mark((WORD, 0.0, 0.0), str(value))


def settings_of(entry: Entry, group: Group, axes: Sequence[str]) -> dict[str, object]:
    """Return what a run was trained with, without what says the same twice or does not apply.

    Where τ or λ is an axis, label smoothing ε is ADR with λ = ε in the limit τ → ∞ (the teacher's
    answer is uniform then), and one-hot labels are its ε = 0.
    """
    labels = group.labels
    own = {"data": entry.data, "arch": entry.arch, "weights": labels.weights}
    settings: dict[str, object] = {**entry.trained, **own}
    settings |= {role: labels.settings[role] for role in TAUGHT_BY if role in labels.settings}
    # Unrecorded settings leave the method's name as all that is known.
    if entry.recorded:
        settings.pop("method", None)  # objective, labels, wa and awp say it
    else:
        settings["method"] = entry.method
    if set(axes) & set(ADR) and settings.get("labels") in ("smoothing", "onehot"):
        settings |= {"labels": "adr", "lambda": settings.pop("smoothing", 0.0), "tau": math.inf}
        # ADR's teacher is the weight average; label smoothing has one with --wa alone.
        if not settings.get("wa"):
            settings.pop("ema_decay", None)
    if settings.get("anneal") == "constant":
        settings |= {name: parse_span(str(settings[name]))[0] for name in ADR if name in settings}
    # Where nothing is annealed, the shape of the annealing makes no difference.
    if all(mark(settings.get(name)).order[0] != SPAN for name in ADR):
        settings.pop("anneal", None)
    return settings


def disagreeing(settings: Sequence[Settings]) -> list[str]:
    """Return the names in which files that have them differ, sorted.

    A part brings its options: files that have other parts differ in those already.
    """
    names = sorted({name for own in settings for name in own})
    texts = {name: {_plain(own[name]) for own in settings if name in own} for name in names}
    return [name for name in names if len(texts[name]) > 1]


def require_one_attack(entries: Sequence[Entry]) -> None:
    """Check that files hold the same attack on the same examples.

    Raises:
        MismatchError: they do not; the message names in what they differ.
    """
    names = differing([attack_options(entry.attack) for entry in entries])
    if names:
        raise MismatchError(
            f"the files were attacked in other ways ({', '.join(names)} differ): give files of one "
            "attack, or choose with --attack NAME"
        )
    if len({(entry.n, entry.data, entry.fingerprint) for entry in entries}) > 1:
        raise MismatchError("the files were judged on other examples: give files of the same ones")


def cells(
    placed: Sequence[tuple[Entry, Group]],
    settings: Sequence[Settings],
    axes: Sequence[str],
    over: Sequence[str],
) -> list[Cell]:
    """Return the cells, in the order of their axes.

    Raises:
        InputError: a run lacks the setting of an axis.
    """
    cell_at: dict[tuple[Mark, ...], Cell] = {}
    runs: dict[str, int] = {}
    for (entry, group), own in zip(placed, settings, strict=True):
        for name in axes:
            if own.get(name) is None:
                raise InputError(f"{entry.path}: its run has no setting {name}")
        place = tuple(mark(own[name]) for name in axes)
        x, y = (*place, None, None)[:2]
        cell = cell_at.setdefault(place, Cell(x, y, Group(len(cell_at) + 1, group.labels)))
        # Runs that are taken together count as seeds do.
        run = canonical([entry.seed, *(_plain(own.get(name)) for name in over)])
        cell.group.add(replace(entry, seed=runs.setdefault(run, len(runs))))
    ordered = [cell_at[place] for place in sorted(cell_at)]
    noise = {
        what: known
        for what in WHATS
        if (known := seed_noise(cell.shares(what) for cell in ordered))
    }
    return [replace(cell, noise=noise) for cell in ordered]


def require_known(names: Sequence[str], settings: Sequence[Settings]) -> None:
    """Check that every name is a setting of some file.

    Raises:
        UsageError: one is not; the message names the nearest.
    """
    known = sorted({name for own in settings for name in own})
    for name in names:
        if name not in known:
            raise unknown("training setting", name, known)


def _plain(value: object) -> str:
    """Return equal text for equal settings, however they were written: 1:1 is 1.0."""
    place = mark(value)
    return canonical([*place.order, place.text if place.order[0] == WORD else ""])

"""Published figures beside ours: which lines match, by how much they differ, and what else does."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advkit.analyses.gathering.groups import POINTS, implementation
from advkit.analyses.tables.leads import Line as Ours
from advkit.analyses.tables.leads import right
from advkit.analyses.tables.published import Line, Published
from advkit.artifacts.hdf5 import Logits
from advkit.config import methods
from advkit.formulas.stats import wilson
from advkit.formulas.threat import number, parse_eps, step_size

Interval = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """A published line and one of ours that is the same recipe on the same data; None: none is."""

    line: Line
    ours: Ours | None

    @property
    def point(self) -> str:
        """Which of our checkpoints is compared; the best one where the source does not say."""
        return self.line.point or POINTS[0]

    def shares(self, what: str) -> list[float]:
        """Return our accuracies of that point, one a seed."""
        files = self.ours.known(what, self.point) if self.ours else []
        return [hits / n for hits, n in (_hits(each, what) for each in files)]

    @property
    def same_attack(self) -> bool:
        """Whether robust accuracy was measured by the same attack within the same ball."""
        return self.ours is not None and same_attack(self.line, self.ours)

    def difference(self, what: str) -> tuple[float, Interval | None] | None:
        """Return ours − published and its 95 % interval; None where they cannot be compared.

        One run has the Wilson interval of its accuracy, moved by the published figure; several
        have Student's t-interval of their mean; against published reruns Welch's. The published
        figure of one run is taken as it stands: its own noise is not in the interval.
        """
        theirs, ours = getattr(self.line, what), self.shares(what)
        if not theirs or not ours or (what == "robust" and not self.same_attack):
            return None
        centre = statistics.fmean(theirs)
        gap = statistics.fmean(ours) - centre
        if len(ours) == 1 and self.ours is not None:
            low, high = wilson(*_hits(self.ours.known(what, self.point)[0], what))
            return gap, (low - centre, high - centre)
        return gap, _interval(ours, theirs)

    def plain(self) -> dict[str, Any]:
        """Return the pair as a plain object: shares in [0, 1], null where nothing is known."""
        line = self.line
        facts = {"data": line.data, "arch": line.arch, "label": line.label, "point": line.point}
        row: dict[str, Any] = {**facts, "method": line.method or None, "attack": line.attack}
        row |= {"eps": line.eps, "note": line.note}
        row["group"] = self.ours.plain["group"] if self.ours else None
        for what in ("robust", "clean"):
            theirs, ours = getattr(line, what), self.shares(what)
            row[f"{what}_published"] = statistics.fmean(theirs) if theirs else None
            row[f"{what}_ours"] = statistics.fmean(ours) if ours else None
            difference, ends = self.difference(what) or (None, None)
            row[f"{what}_difference"] = difference
            row[f"{what}_difference_ci95"] = list(ends) if ends else None
        return row


def pairs(published: Published, lines: Sequence[Ours]) -> list[Pair]:
    """Return every published line with each of ours that matches it, or with none.

    Where some of ours were attacked as the published line was, others are left out.
    """
    pairings = []
    for line in published.lines:
        fit = [ours for ours in lines if matches(line, ours)]
        alike = [ours for ours in fit if same_attack(line, ours)]
        pairings += [Pair(line, ours) for ours in alike or fit] or [Pair(line, None)]
    return pairings


def matches(line: Line, ours: Ours) -> bool:
    """Whether ours is that recipe: data, architecture, method and weights, its own settings."""
    labels = ours.plain
    trained = trained_as(ours)
    extra = trained.get("extra_digest") is not None
    point = line.point or POINTS[0]
    return (
        (labels["data"], labels["arch"], own_method(labels), extra)
        == (line.data, line.arch, line.method, line.extra)
        and all(trained.get(name) == value for name, value in line.settings.items())
        and any(labels[f"{what}_{point}_mean"] is not None for what in ("clean", "robust"))
    )


def own_method(labels: Mapping[str, Any]) -> str:
    """Return the method that a line's weights are those of: ADR's EMA is the weight average."""
    base = str(labels["method"]).removesuffix("-wa")
    return base + ("-wa" if labels["weights"] == "average" else "")


def same_attack(line: Line, ours: Ours) -> bool:
    """Whether attack, steps, norm (all published ones are linf) and ε are the same."""
    labels = ours.plain
    name, _, steps = line.attack.partition("-")
    if labels["attack"] != name or labels["norm"] != "linf":
        return False
    if steps and labels["steps"] != int(steps):
        return False
    return parse_eps(labels["eps"]) == parse_eps(line.eps)


def trained_as(ours: Ours) -> Mapping[str, Any]:
    """Return the training configuration of the first file; empty if it was not recorded."""
    return next((each.info.get("trained") or {} for each in _files(ours)), {})


def why_none(published: Published, lines: Sequence[Ours]) -> list[str]:
    """Say why nothing matches: what ours are, and what the published lines are."""
    reasons = []
    for name, word in (("data", "data"), ("arch", "architecture")):
        here = sorted({str(each.plain[name]) for each in lines})
        there = sorted({getattr(each, name) for each in published.lines})
        if not set(here) & set(there):
            reasons.append(f"{word}: {', '.join(here)} here; {', '.join(there)} there")
    here = sorted({own_method(each.plain) for each in lines})
    there = sorted({each.method for each in published.lines if each.method})
    if not reasons or not set(here) & set(there):
        reasons.append(f"method: {', '.join(here)} here; {', '.join(there)} there")
    return reasons + _in_general(published, lines)


def _in_general(published: Published, lines: Sequence[Ours]) -> list[str]:
    """Compare what any evaluation and training have: ball, examples, runs, epochs."""
    rules = [
        rule
        for rule in methods.rules("paper")
        if rule.source.startswith(published.paper["training"])
        and {line.data for line in published.lines} & set(rule.when.get("data", ()))
    ]
    trained = [trained_as(line) for line in lines]
    compared = {
        "ε": ({x.plain["eps"] for x in lines}, {x.eps for x in published.lines}),
        "test examples": ({x.plain["n"] for x in lines}, set(published.paper["examples"].values())),
        "runs": (
            {x.plain["seeds"] for x in lines},
            {len(x.clean) for x in published.lines if x.clean},
        ),
        "epochs": (
            {each.get("epochs") for each in trained},
            {rule.values.get("epochs") for rule in rules},
        ),
    }
    return [
        f"{name}: {_words(here)} here; {_words(there)} there"
        for name, (here, there) in compared.items()
        if here - {None} and there - {None} and not here - {None} <= there
    ]


def protocol(published: Published, pairs: Sequence[Pair], lines: Sequence[Ours]) -> list[str]:
    """List how our protocol differs from the published one, as far as files and sources tell.

    Of the lines that match; of all of ours where none does.
    """
    matched = [pair for pair in pairs if pair.ours is not None]
    told = [line for pair in matched for line in _of_pair(published, pair)]
    here = [pair.ours for pair in matched if pair.ours is not None] or list(lines)
    told += _evaluation(published, here) + _training(published, here)
    return list(dict.fromkeys(told))


def _of_pair(published: Published, pair: Pair) -> list[str]:
    """Return what differs for a published line and ours: ball, attack, examples, settings."""
    ours, line = pair.ours, pair.line
    if ours is None:
        return []
    labels, told = ours.plain, []
    who = f"{line.data}, {line.arch}, {labels['method']}"
    if line.robust and not pair.same_attack:
        here = " ".join(str(labels[x]) for x in ("attack", "steps", "norm", "eps") if labels[x])
        told.append(
            f"attack ({who}): {here} here; {line.attack} linf {line.eps} there: robust "
            "accuracies are not compared"
        )
    there = published.paper["examples"].get(line.data)
    if there and labels["n"] != there:
        told.append(f"test examples ({line.data}): {labels['n']} here; {there} there")
    runs = max(len(line.robust), len(line.clean))
    if labels["seeds"] != runs:
        told.append(f"runs ({who}): {labels['seeds']} here; {runs} there")
    return told + [f"{text} ({who})" for text in _settings(published, ours)]


def _settings(published: Published, ours: Ours) -> list[str]:
    """Return the training settings that the paper gives otherwise, by its preset's rules."""
    trained = trained_as(ours)
    if not trained:
        return ["how ours was trained is not recorded"]
    values = {"awp": 0.0, **trained, "extra_data": trained.get("extra_digest")}
    wanted: dict[str, tuple[Any, str]] = {}
    for rule in methods.rules("paper"):
        if rule.source.startswith(published.paper["training"]) and rule.fits(methods.facts(values)):
            wanted |= {name: (value, rule.source) for name, value in rule.values.items()}
    return [
        f"{name}: {_shown(trained.get(name))} here; {_shown(value)} there, {source}"
        for name, (value, source) in wanted.items()
        if _value(name, trained.get(name), trained) != _value(name, value, trained)
    ]


def _value(name: str, value: Any, trained: Mapping[str, Any]) -> Any:
    """Return a setting so that two spellings of one value are equal."""
    if name == "eps" and value is not None:
        return number(value)
    if name == "step_size" and value is not None:
        return round(step_size(value, number(trained["eps"])), 9)
    if name == "lr_drops" and value is None:  # the default: half and three quarters
        return [trained["epochs"] // 2, trained["epochs"] * 3 // 4]
    return value


def _evaluation(published: Published, here: Sequence[Ours]) -> list[str]:
    """Return what differs in the implementation of AutoAttack, and in which checkpoint is best."""
    told = []
    infos = [each.info for line in here for each in _files(line)]
    settings = {
        implementation(info)
        for info in infos
        if info["config"]["attack"] == "autoattack" and "implementation" in info
    }
    attacks = {line.attack for line in published.lines}
    if settings and "autoattack" in attacks:
        told.append(f"AutoAttack: {_words(settings)} here; {published.paper['autoattack']} there")
    if any(info["role"].startswith("best") for info in infos):
        there = published.paper["selection"]
        told.append(f"best checkpoint: chosen on a validation split here; on {there} there")
    return told


def _training(published: Published, here: Sequence[Ours]) -> list[str]:
    """Return the habits of the original code that ours does not share."""
    trained = [each for each in map(trained_as, here) if each]
    told = []
    for name, word in (("attack_bn", "BN mode of the inner attack"), ("awp_form", "form of AWP")):
        there = published.paper[name]
        used = [each for each in trained if name != "awp_form" or each.get("awp")]
        values = {str(each.get(name)) for each in used if each.get(name)}
        if values - {there.split()[0].rstrip(",")}:
            told.append(f"{word}: {_words(values)} here; {there} there")
    return told


def _files(ours: Ours) -> list[Logits]:
    return [each for of_seed in ours.files.values() for each in of_seed.values()]


def _words(values: set[Any]) -> str:
    return " or ".join(sorted(map(str, values - {None})))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def _hits(logits: Logits, what: str) -> tuple[int, int]:
    verdicts = right(logits, what)
    return (0 if verdicts is None else int(verdicts.sum())), len(logits.labels)


def _interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the difference of means; None where no run differs."""
    from scipy.stats import ttest_1samp, ttest_ind  # a second to import

    if statistics.pstdev(ours) == 0:
        return None
    if len(theirs) > 1:
        ends = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
        return float(ends.low), float(ends.high)
    ends = ttest_1samp(ours, theirs[0]).confidence_interval()  # of the mean, not the difference
    return float(ends.low) - theirs[0], float(ends.high) - theirs[0]

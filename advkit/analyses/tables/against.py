"""Published figures beside ours: which lines match, by how much they differ, and what else does."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast

from advkit.analyses.gathering.entries import POINTS, WHATS, implementation
from advkit.analyses.gathering.groups import Column, Group, Labels
from advkit.analyses.tables.published import Line, Published
from advkit.artifacts import descriptions
from advkit.artifacts.identity import PLAIN
from advkit.config import methods
from advkit.config.settings import UNTOLD
from advkit.formulas.threat import number, parse_eps, step_size

Interval = tuple[float, float]
UNNAMED = ("min_loss", "grad_align", "train_attack", "augment")
"""Options that make another recipe and that the name of a method does not say."""


@dataclass(frozen=True)
class Pair:
    """A published line and one of ours that is the same recipe on the same data; None: none is."""

    line: Line
    ours: Group | None

    @property
    def point(self) -> str:
        """Which of our checkpoints is compared; the best one where the source does not say."""
        return self.line.point or POINTS[0]

    def column(self, what: str) -> Column:
        """Return our accuracies of that point."""
        return self.ours.column(what, self.point) if self.ours else Column(())

    @property
    def same_attack(self) -> bool:
        """Whether attack, loss, steps, norm (all published ones are linf) and ε are the same."""
        name, _, steps = self.line.attack.partition("-")
        labels = self.ours.labels if self.ours else None
        if labels is None or labels.eps is None:
            return False
        if (labels.attack, labels.norm) != (name, "linf"):
            return False
        if labels.attack_settings.get("loss", PLAIN) != PLAIN:
            return False
        if steps and labels.steps != int(steps):
            return False
        return parse_eps(labels.eps) == parse_eps(self.line.eps)

    def difference(self, what: str) -> tuple[float, Interval | None] | None:
        """Return ours − published and its 95 % interval; None where they cannot be compared.

        One run has the Wilson interval of its accuracy, moved by the published figure; several
        have Student's t-interval of their mean; against published reruns Welch's. The published
        figure of one run is taken as it stands: its own noise is not in the interval.
        """
        theirs, ours = self.line.column(what), self.column(what)
        if theirs.mean is None or ours.mean is None or (what == "robust" and not self.same_attack):
            return None
        gap = ours.mean - theirs.mean
        # A single run has no spread between seeds: its examples give the interval.
        if ours.ci95 is not None:
            return gap, (ours.ci95[0] - theirs.mean, ours.ci95[1] - theirs.mean)
        return gap, _interval(ours.shares, theirs.shares)

    def plain(self) -> dict[str, object]:
        """Return the pair as a plain object: shares in [0, 1], null where nothing is known."""
        line = self.line
        names = ("data", "arch", "label", "point", "method", "attack", "eps", "note")
        row: dict[str, object] = {name: getattr(line, name) for name in names}
        row |= {"method": line.method or None, "group": self.ours.number if self.ours else None}
        for what in WHATS:
            row[f"{what}_published"] = line.column(what).mean
            row[f"{what}_ours"] = self.column(what).mean
            difference, ends = self.difference(what) or (None, None)
            row[f"{what}_difference"] = difference
            row[f"{what}_difference_ci95"] = list(ends) if ends else None
        return row


def pairs(published: Published, groups: Sequence[Group]) -> list[Pair]:
    """Return every published line with each of ours that matches it, or with none.

    Where some of ours were attacked as the published line was, others are left out.
    """
    pairings = []
    for line in published.lines:
        fit = [Pair(line, group) for group in groups if matches(line, group)]
        alike = [pair for pair in fit if pair.same_attack]
        pairings += alike or fit or [Pair(line, None)]
    return pairings


def near(line: Line, groups: Sequence[Group]) -> bool:
    """Whether one of ours has a line's data and architecture, and its norm and ε if attacked."""
    return any(
        (group.labels.data, group.labels.arch) == (line.data, line.arch)
        and (
            group.labels.eps is None
            or (group.labels.norm == "linf" and parse_eps(group.labels.eps) == parse_eps(line.eps))
        )
        for group in groups
    )


def matches(line: Line, ours: Group) -> bool:
    """Whether ours is that recipe: data, architecture, method and weights, its own settings."""
    labels, trained = ours.labels, trained_as(ours)
    recipe = (labels.data, labels.arch, own_method(labels))
    return (
        recipe == (line.data, line.arch, line.method)
        and (trained.get("extra_digest") is not None) == line.extra
        and all(trained.get(name) == value for name, value in line.settings.items())
        # A name of a method does not say these, and a description only where they are used.
        and all(
            trained.get(name, UNTOLD[name]) == line.settings.get(name, UNTOLD[name])
            for name in UNNAMED
        )
        and any(ours.column(what, line.point or POINTS[0]).shares for what in WHATS)
    )


def own_method(labels: Labels) -> str:
    """Return the method that a line's weights are those of: ADR's EMA is the weight average."""
    return labels.method.removesuffix("-wa") + ("-wa" if labels.weights == "average" else "")


def trained_as(ours: Group) -> descriptions.Recipe:
    """Return the training configuration of the first file; empty if it was not recorded."""
    return ours.entries[0].logits.info.get("trained") or {}


def why_none(published: Published, groups: Sequence[Group]) -> list[str]:
    """Say why nothing matches: what ours are, and what the published lines are."""
    labels, lines = [group.labels for group in groups], published.lines
    sides = {
        "data": ({own.data for own in labels}, {line.data for line in lines}),
        "architecture": ({own.arch for own in labels}, {line.arch for line in lines}),
        "method": (set(map(own_method, labels)), {line.method for line in lines if line.method}),
    }
    foreign = [name for name, (here, there) in sides.items() if here.isdisjoint(there)]
    # Where each is among the published ones, they are not so together: the methods tell most.
    reasons = [
        f"{name}: {', '.join(sorted(here))} here; {', '.join(sorted(there))} there"
        for name, (here, there) in sides.items()
        if name in (foreign or ["method"])
    ]
    return reasons + _in_general(published, groups)


def _in_general(published: Published, groups: Sequence[Group]) -> list[str]:
    """Compare what any evaluation and training have: ball, examples, runs, epochs."""
    lines = published.lines
    data = {line.data for line in lines}
    epochs = {
        rule.values.get("epochs")
        for rule in _rules(published)
        if data & set(rule.when.get("data", ()))
    }
    compared: dict[str, tuple[set[object], set[object]]] = {
        "ε": ({group.labels.eps for group in groups}, {line.eps for line in lines}),
        "test examples": ({group.n for group in groups}, set(published.paper["examples"].values())),
        "runs": (
            {group.seeds for group in groups},
            {len(line.clean) for line in lines if line.clean},
        ),
        "epochs": ({trained_as(group).get("epochs") for group in groups}, epochs),
    }
    return [
        f"{name}: {_words(here)} here; {_words(there)} there"
        for name, (here, there) in compared.items()
        if here - {None} and there - {None} and not here - {None} <= there
    ]


def _rules(published: Published) -> list[methods.Rule]:
    """Return the rules of its preset that come from the table's papers, later ones win."""
    sources = tuple(published.paper["training"])
    rules = methods.rules(published.paper["preset"])
    return [rule for rule in rules if rule.source.startswith(sources)]


def protocol(published: Published, pairs: Sequence[Pair], groups: Sequence[Group]) -> list[str]:
    """List how our protocol differs from the published one, as far as files and sources tell.

    Of the lines that match; of all of ours where none does.
    """
    matched = [(pair, pair.ours) for pair in pairs if pair.ours is not None]
    texts = [text for pair, ours in matched for text in _of_pair(published, pair, ours)]
    here = [ours for _, ours in matched] or groups
    texts += _evaluation(published, here) + _training(published, here)
    return list(dict.fromkeys(texts))


def _of_pair(published: Published, pair: Pair, ours: Group) -> list[str]:
    """Return what differs for a published line and ours: ball, attack, examples, settings."""
    labels, line, texts = ours.labels, pair.line, []
    who = f"{line.data}, {line.arch}, {labels.method}"
    if line.robust and not pair.same_attack:
        loss = labels.attack_settings.get("loss")
        attack = (labels.attack, loss, labels.steps, labels.norm, labels.eps)
        texts.append(
            f"attack ({who}): {' '.join(str(x) for x in attack if x)} here; {line.attack} linf "
            f"{line.eps} there: robust accuracies are not compared"
        )
    there = published.paper["examples"].get(line.data)
    if there and ours.n != there:
        texts.append(f"test examples ({line.data}): {ours.n} here; {there} there")
    runs = max(len(line.robust), len(line.clean))
    if ours.seeds != runs:
        texts.append(f"runs ({who}): {ours.seeds} here; {runs} there")
    return texts + [f"{text} ({who})" for text in _settings(published, ours)]


def _settings(published: Published, ours: Group) -> list[str]:
    """Return the training settings that the paper gives otherwise, by its preset's rules."""
    recorded = trained_as(ours)
    if not recorded:
        return ["how ours was trained is not recorded"]
    # What a description leaves untold has a value all the same.
    trained = cast(descriptions.Recipe, {**UNTOLD, **recorded})
    facts = methods.facts({"awp": 0.0, **trained, "extra_data": trained.get("extra_digest")})
    wanted: dict[str, tuple[object, str]] = {}
    for rule in _rules(published):
        if rule.fits(facts):  # a later rule of the preset overrides an earlier one
            wanted |= {name: (value, rule.source) for name, value in rule.values.items()}
    return [
        f"{name}: {_shown(trained.get(name))} here; {_shown(value)} there, {source}"
        for name, (value, source) in wanted.items()
        if _value(name, trained.get(name), trained) != _value(name, value, trained)
    ]


def _value(name: str, value: object, trained: descriptions.Recipe) -> object:
    """Return a setting so that two spellings of one value are equal."""
    if name == "lr_drops" and value is None:  # the default: half and three quarters
        return [trained["epochs"] // 2, trained["epochs"] * 3 // 4]
    if name == "eps" and value is not None:
        return number(str(value))
    if name == "step_size" and value is not None:  # eps/4 and 2/255 differ in the last bits
        return round(step_size(str(value), number(trained["eps"])), 9)
    return value


def _evaluation(published: Published, groups: Sequence[Group]) -> list[str]:
    """Return what differs in the implementation of AutoAttack, and in which checkpoint is best."""
    texts = []
    infos = [entry.logits.info for group in groups for entry in group.entries]
    suites = {
        implementation(info)
        for info in infos
        if info["config"]["attack"] == "autoattack" and "implementation" in info
    }
    if suites and "autoattack" in {line.attack for line in published.lines}:
        texts.append(f"AutoAttack: {_words(suites)} here; {published.paper['autoattack']} there")
    if any(info["role"].startswith("best") for info in infos):
        there = published.paper["selection"]
        texts.append(f"best checkpoint: chosen on a validation split here; on {there} there")
    return texts


def _training(published: Published, groups: Sequence[Group]) -> list[str]:
    """Return the habits of the original code that ours does not share."""
    recipes = [trained_as(group) for group in groups]
    modes = {recipe.get("attack_bn") for recipe in recipes} - {None}
    # The form says something of runs with AWP alone.
    forms = {recipe.get("awp_form") for recipe in recipes if recipe.get("awp")} - {None}
    paper = published.paper
    habits = [
        ("BN mode of the inner attack", modes, paper["attack_bn"]),
        ("form of AWP", forms, paper["awp_form"]),
    ]
    return [
        f"{name}: {_words(here)} here; {there} there"
        for name, here, there in habits
        if there and here - {there.split()[0].rstrip(",")}
    ]


def _words(values: AbstractSet[object]) -> str:
    return " or ".join(sorted(map(str, values - {None})))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


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

"""Runs by recipe: those that differ in nothing but the seed, and what their epochs measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from advkit.analyses.gathering import protocol
from advkit.analyses.gathering.entries import differing, shown, told_apart
from advkit.analyses.gathering.protocol import Protocol, Setting
from advkit.analyses.gathering.rows import run_name
from advkit.analyses.gathering.taught import TAUGHT_BY, parting, taught_by, teachers
from advkit.analyses.gathering.trained import Trained
from advkit.artifacts import provenance
from advkit.artifacts.descriptions import ALARMS
from advkit.artifacts.provenance import canonical
from advkit.config.idle import idle
from advkit.errors import InputError

SERIES = {
    "train_clean": "train_clean_accuracy",
    "train_robust": "train_robust_accuracy",
    "val_clean": "val_clean_accuracy",
    "val_robust": "val_robust_accuracy",
    "val_clean_ema": "val_clean_accuracy-ema",
    "val_robust_ema": "val_robust_accuracy-ema",
}
"""Name of a learning curve → what an epoch's metrics call it; the last two are the average's."""
JUDGED = ("margin", "apgd")
"""Attacks of `--select` whose accuracy chose the best epoch, where the log has it."""
ASIDE = (
    *("seed", "noise", "workers", "compile", "compile_mode"),
    *("soft_labels", "teacher", "natural_teacher"),
    *TAUGHT_BY,
)
"""Settings that make no other recipe: the seed, where noise is drawn, what changes no result,
paths, and what `taught.parting` judges."""


class Best(NamedTuple):
    """The epoch whose net was kept: its place, counted from 0, and the curve that chose it."""

    place: int
    series: str
    accuracy: float


@dataclass(frozen=True)
class Run:
    """One run: what trained it, and a row an epoch, epoch 1 first."""

    name: str
    path: str
    trained: Trained
    seed: int
    rows: tuple[Mapping[str, float], ...]

    def curve(self, series: str) -> list[float | None]:
        """Return an accuracy of each epoch, None where it was not measured."""
        return [row.get(SERIES[series]) for row in self.rows]

    def alarms(self) -> dict[str, int]:
        """Return the alarms that rang while it trained, and the epoch of each's first, from 1."""
        return {
            name: rung[0]
            for name in ALARMS
            if (rung := [k for k, row in enumerate(self.rows, start=1) if row.get(name)])
        }

    def best(self, average: bool) -> Best | None:
        """Return the epoch whose net, or its average, was kept as the best; None without one.

        By what `--select` named, else by PGD's accuracy in validation, by clean accuracy where
        there was no attack; of equals the first. The accuracy is PGD's in any case.
        """
        suffix = "_ema" if average else ""
        for chosen in JUDGED:
            key = f"val_{chosen}_accuracy{suffix.replace('_', '-')}"
            judged = [(row[key], -k) for k, row in enumerate(self.rows) if key in row]
            if judged:
                place, series = -max(judged)[1], f"val_robust{suffix}"
                return Best(place, series, self.rows[place][SERIES[series]])
        for series in (f"val_robust{suffix}", f"val_clean{suffix}"):
            known = [(x, -k) for k, x in enumerate(self.curve(series)) if x is not None]
            if known:
                accuracy, place = max(known)
                return Best(-place, series, accuracy)
        return None


@dataclass(frozen=True)
class Recipe:
    """Runs of one recipe, by seed."""

    name: str
    runs: tuple[Run, ...]

    @property
    def epochs(self) -> int:
        """Epochs of the longest run."""
        return max(len(run.rows) for run in self.runs)

    def over_seeds(self, series: str) -> list[tuple[float, float | None, int] | None]:
        """Return mean, sample standard deviation and count of runs, for each epoch.

        Runs that have not come so far are left out; one run has no deviation, and an epoch of
        which nothing is known is None.
        """
        curves = [run.curve(series) for run in self.runs]
        points: list[tuple[float, float | None, int] | None] = []
        for epoch in range(self.epochs):
            values = [x for curve in curves for x in curve[epoch : epoch + 1] if x is not None]
            points.append(_spread(values))
        return points

    @property
    def series(self) -> list[str]:
        """Curves of which something is known."""
        return [name for name in SERIES if any(point for point in self.over_seeds(name))]


def _spread(values: Sequence[float]) -> tuple[float, float | None, int] | None:
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation, len(values)


def recipes(inputs: Sequence[Trained]) -> list[Recipe]:
    """Return the recipes of runs, in the order in which they come; checkpoints of one run are one.

    Raises:
        InputError: a run without metrics, or two of one seed and recipe.
    """
    folders: dict[Path, Trained] = {}
    for trained in inputs:
        folders.setdefault(Path(trained.path).resolve().parent, trained)
    runs = [_run(trained) for trained in folders.values()]
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(_key(run), []).append(run)
    parted = [part for group in alike.values() for part in _parted(group)]
    names = _names([(part[0], own) for own, part in parted])
    return [_recipe(name, part) for name, (_, part) in zip(names, parted, strict=True)]


def _parted(runs: Sequence[Run]) -> list[tuple[Mapping[str, object], list[Run]]]:
    """Return runs that are alike in all else by what taught them, and the digests that part them.

    By the rule of tables: see `taught.parting`.
    """
    taught = [taught_by(run.trained.info["config"]) for run in runs]
    roles = parting([(run.seed, own) for run, own in zip(runs, taught, strict=True)])
    parts: dict[str, tuple[Mapping[str, object], list[Run]]] = {}
    for run, own in zip(runs, taught, strict=True):
        told = {role: own[role] for role in roles}
        parts.setdefault(canonical(told), (told, []))[1].append(run)
    return list(parts.values())


def _recipe(name: str, runs: Sequence[Run]) -> Recipe:
    ordered = sorted(runs, key=lambda run: run.seed)
    for first, second in pairwise(ordered):
        if first.seed == second.seed:
            raise InputError(
                f"{first.path} and {second.path}: both are seed {first.seed} of the same recipe: "
                "give one of them"
            )
    return Recipe(name, tuple(ordered))


def _run(trained: Trained) -> Run:
    """Return a run with the metrics beside it, which reading checks."""
    seed = trained.info["seed"] or 0  # null for an imported net, which has no metrics
    return Run(run_name(trained.path), trained.path, trained, seed, tuple(trained.rows()))


def _settings(run: Run) -> dict[str, object]:
    """Return what a run was trained with, and the kind of its teachers, as tables know it."""
    config: Mapping[str, object] = run.trained.info["config"]
    aside = {*ASIDE, *idle(config)}
    parents = run.trained.info.get("parents", [])
    taught = teachers([parent for parent in parents if parent.get("use") != "init"])
    settings = {name: value for name, value in config.items() if name not in aside}
    return {**settings, "teacher": taught}


def _key(run: Run) -> str:
    info = run.trained.info
    named = [info["data"]["name"], _data_digest(run), info["arch"], info["method"]]
    return canonical([named, _settings(run)])


def _data_digest(run: Run) -> str | None:
    return provenance.data_digest(run.trained.info.get("parents", []))


def _names(firsts: Sequence[tuple[Run, Mapping[str, object]]]) -> list[str]:
    """Return the method and what tells recipes apart: data, net, settings; else the run's name.

    Args:
        firsts: a run of each recipe, and the digests of its teachers that tell it from others.
    """
    runs = [run for run, _ in firsts]
    infos = [run.trained.info for run in runs]
    data = told_apart(
        [(x["data"]["name"], _data_digest(r)) for x, r in zip(infos, runs, strict=True)]
    )
    words = [[str(info["method"])] for info in infos]
    for values in (data, [info["arch"] for info in infos]):
        if len(set(values)) > 1:
            for own, value in zip(words, values, strict=True):
                own.append(str(value))
    # What a method's name implies says nothing more: settings are compared within a method.
    for own, (run, digests) in zip(words, firsts, strict=True):
        method = run.trained.info["method"]
        family = [other for other in runs if other.trained.info["method"] == method]
        wanted = differing([_settings(other) for other in family])
        settings = _settings(run)
        told = {key: settings.get(key) for key in wanted if key != "data"}
        own.append(shown({**told, **digests}))
    names = [" ".join(filter(None, own)) for own in words]
    return [
        name if names.count(name) == 1 else f"{name} ({run.name})"
        for name, run in zip(names, runs, strict=True)
    ]


def protocols(recipes: Sequence[Recipe]) -> list[Protocol]:
    """Return what the runs of each recipe hold fixed: data, net, training and images."""
    firsts = [recipe.runs[0] for recipe in recipes]
    data = told_apart([(run.trained.info["data"]["name"], _data_digest(run)) for run in firsts])
    found: list[Protocol] = []
    for run, source in zip(firsts, data, strict=True):
        plain = {"data": source, "arch": run.trained.info["arch"]}
        own = {name: Setting(value, canonical(value)) for name, value in plain.items()}
        found.append({**own, **protocol.training(run.trained.info["config"])})
    return found

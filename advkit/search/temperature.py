"""LTD's two-step search for the teacher's temperature, one labels file throughout.

Source: LTD, section 4.2. The paper minimises its training loss (eq. 9) over T. Its target moves
with T, so that is nearly degenerate: read as cross-entropy the loss cannot fall below the
target's own entropy and prefers low T, read as KL it vanishes as targets flatten and prefers
high T. Both are reported; the default criterion is robust accuracy where no masking alarm rang.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from advkit import data, registry
from advkit.artifacts import provenance
from advkit.artifacts.descriptions import Trial, TrialKind
from advkit.config import resolve
from advkit.config.resolve import Layer
from advkit.config.settings import ATTACKED
from advkit.errors import InputError, UsageError
from advkit.search.evaluator import Evaluator
from advkit.search.ledger import Ledger
from advkit.search.machine import Machine, identity
from advkit.search.options import CRITERIA
from advkit.softlabels import source as soft_source
from advkit.training import parts
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.sources import split_of

GOLDEN = (math.sqrt(5) - 1) / 2
Choice = dict[str, float | int | str | None]
"""The temperature that was chosen, by what, and the others' figures: numbers of the result."""
TOLERANCE = 0.05
"""Clean accuracy below the teacher's that still passes the first step, where none is given."""


@dataclass(frozen=True)
class Plan:
    """What is searched: a grid of temperatures, a criterion, a threshold, steps of refinement."""

    grid: Sequence[float]
    criterion: str
    threshold: float | None
    refine: int

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise UsageError(f"--criterion {self.criterion}: one of {', '.join(CRITERIA)}")
        if self.refine < 0:
            raise UsageError("--refine must be at least 0")


class TemperatureSearch:
    """Which temperatures are tried, in two steps, and which one is chosen."""

    def __init__(self, layers: Sequence[Layer], plan: Plan, out: Path, machine: Machine) -> None:
        self.layers, self.plan, self.out, self.machine = layers, plan, out, machine
        base = resolve.resolve(*layers).settings
        if base.soft_labels is None:
            raise UsageError("the search needs one labels file: --soft-labels FILE or a pipe")
        self.base = base
        images = data.load(base.data, "train", root=machine.data_root, **base.options_of("data"))
        source, self.labels_info = soft_source.load(
            base.soft_labels, None, images, machine.device, machine.reporter
        )
        held_out = split_of(base, images)[1]
        self.evaluator = Evaluator(images, held_out, source, machine.device, machine.reporter)
        self.ledger: Ledger[Trial] = Ledger(out)

    def run(self) -> tuple[Choice, list[Trial]]:
        """Search, or go on searching; return the choice and all trials.

        Raises:
            MismatchError: the folder holds a search with other options.
        """
        self.open()
        threshold = self._threshold()
        tau_max = self._first_step(threshold)
        # From τ_max on the teacher's labels cost too much clean accuracy: not tried on students.
        feasible = [t for t in self.plan.grid if tau_max is None or t < tau_max]
        if not feasible:
            raise InputError(
                f"no temperature keeps clean accuracy at {threshold:.3f}: lower --threshold, or "
                "train the substitutes longer"
            )
        tried = [self._trial("ltd", t) for t in feasible]
        self._refine(tried, tau_max)
        return self._choice(tried, threshold, tau_max), self.ledger.trials

    def open(self) -> None:
        """Take over the folder's finished trials.

        Raises:
            InputError: its ledger is corrupt.
            MismatchError: it holds a search with other options, or its ledger was edited.
        """
        again = self.ledger.open(self._identity(), parts.digests(self.base))
        if again:
            self.machine.reporter.note(
                f"{self.ledger.path}: {again} trials of an earlier version, which cannot be told "
                "from edited ones: their runs are measured again"
            )

    def _identity(self) -> str:
        resolved = resolve.resolve(*self.layers)
        grid = ",".join(f"{t:g}" for t in self.plan.grid)
        plan = (
            f"# grid {grid}, criterion {self.plan.criterion}, threshold {self.plan.threshold}, "
            f"refine {self.plan.refine}\n"
        )
        return plan + identity(resolved)

    def _threshold(self) -> float:
        if self.plan.threshold is not None:
            return self.plan.threshold
        return self.evaluator.teacher_accuracy() - TOLERANCE

    def _first_step(self, threshold: float) -> float | None:
        """Return τ_max: the lowest temperature whose substitute falls below the threshold."""
        for t in self.plan.grid:
            trial = self._trial("substitute", t)
            if trial["clean_accuracy"] < threshold:
                self.machine.reporter.note(
                    f"tau_max {t:g}: its substitute has clean accuracy "
                    f"{trial['clean_accuracy']:.3f}, under {threshold:.3f}"
                )
                return t
        return None

    def _refine(self, tried: list[Trial], tau_max: float | None) -> None:
        """Golden section in log T between the neighbours of the best temperature so far."""
        if len(tried) < 2 or not self.plan.refine:
            return
        order = sorted(trial["temperature"] for trial in tried)
        best = self._best(tried)["temperature"]
        place = order.index(best)
        # In log T: the effect of a temperature goes by its ratio, and the grid is spaced so.
        low = math.log(order[max(place - 1, 0)])
        above = order[place + 1 :] or ([tau_max] if tau_max else order[-1:])
        high = math.log(above[0])
        # The golden ratio lets each step keep one of its two inner points: one run a step.
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        values: dict[float, Trial] = {}

        def at(x: float) -> Trial:
            if x not in values:
                values[x] = self._trial("ltd", round(math.exp(x), 4))
                tried.append(values[x])
            return values[x]

        for _ in range(self.plan.refine):
            if self._score(at(left)) >= self._score(at(right)):
                high, right = right, left
                left = high - GOLDEN * (high - low)
            else:
                low, left = left, right
                right = low + GOLDEN * (high - low)

    def _trial(self, kind: TrialKind, temperature: float) -> Trial:
        finished = self.ledger.find(kind=kind, temperature=temperature)
        if finished is not None:
            return finished
        chosen: dict[str, object] = {"temperature": temperature}
        if kind == "substitute":
            chosen |= {"objective": "natural", "attack_steps": 0}
        layers = [_without_objective(layer) for layer in self.layers] if kind != "ltd" else None
        resolved = resolve.resolve(*(layers or self.layers), (chosen, "trial"))
        folder = RunFolder(self.out / f"{kind}-T{temperature:g}")
        self.machine.reporter.note(f"{kind} at T = {temperature:g}")
        train(
            resolved,
            folder,
            device=self.machine.device,
            threads=self.machine.threads,
            data_root=self.machine.data_root,
            resume=True,
            reporter=self.machine.reporter,
        )
        trial = self.evaluator.measured(kind, temperature, folder, resolved.settings)
        self.ledger.add(trial)
        return trial

    def _score(self, trial: Trial) -> float:
        if self.plan.criterion == "loss":
            return -trial["loss_ce"]
        return -math.inf if trial["masking_alarm"] else trial["robust_accuracy"]

    def _best(self, tried: Sequence[Trial]) -> Trial:
        # Of equals the lower temperature: less of the true class is given away.
        return max(tried, key=lambda trial: (self._score(trial), -trial["temperature"]))

    def _choice(self, tried: list[Trial], threshold: float, tau_max: float | None) -> Choice:
        def least(key: Literal["loss_ce", "loss_kl"]) -> float:
            return min(tried, key=lambda trial: trial[key])["temperature"]

        quiet = [trial for trial in tried if not trial["masking_alarm"]]
        by_robust = max(
            quiet, key=lambda t: (t["robust_accuracy"], -t["temperature"]), default=None
        )
        chosen = self._best(tried)
        return {
            "criterion": self.plan.criterion,
            "temperature": chosen["temperature"],
            "clean_accuracy": chosen["clean_accuracy"],
            "robust_accuracy": chosen["robust_accuracy"],
            "masking_alarm": chosen["masking_alarm"],
            "by_robust": by_robust["temperature"] if by_robust else None,
            "by_loss_ce": least("loss_ce"),
            "by_loss_kl": least("loss_kl"),
            "tau_max": tau_max,
            "threshold": threshold,
            "trials": len(self.ledger.trials),
            "n": len(self.evaluator.held_out),
        }

    def describe(self) -> dict[str, object]:
        """Return the description of the search's result."""
        described = {**self.base.described(), "grid": list(self.plan.grid)}
        return provenance.describe(
            "analysis",
            config={"analysis": "search temperature", **described, "refine": self.plan.refine},
            seed=self.base.seed,
            parents=[provenance.parent(self.labels_info)],
            environment={"device": self.machine.device.type, "threads": self.machine.threads},
        )


def _without_objective(layer: Layer) -> Layer:
    """Drop options that a natural substitute has no use for."""
    # ARD has a temperature too; the labels' is the one that is searched.
    own = {option.name for option in registry.shared_options("objectives")} - {"temperature"}
    gone = {*own, *ATTACKED, "objective", "method", "awp"}
    values = {key: value for key, value in layer[0].items() if key not in gone}
    return {**values, "labels": "soft"}, layer[1]

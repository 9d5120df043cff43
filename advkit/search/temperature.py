"""LTD's two-step search for the teacher's temperature, one labels file throughout.

Source: LTD, section 4.2. The paper minimises its training loss (eq. 9) over T. Its target moves
with T, so that is nearly degenerate: read as cross-entropy the loss cannot fall below the
target's own entropy and prefers low T, read as KL it vanishes as targets flatten and prefers
high T. Both are reported; the default criterion is robust accuracy where no masking alarm rang.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advkit import data, models
from advkit.artifacts import files, provenance
from advkit.attacks import pgd
from advkit.attacks.upstream import autoattack
from advkit.config import resolve
from advkit.config.resolve import Layer
from advkit.config.settings import OUTSIDE, Settings
from advkit.errors import InputError, MismatchError, NumericalError, UsageError
from advkit.formulas.losses import cross_entropy, kl_divergence
from advkit.formulas.threat import Threat, parse_eps
from advkit.images.batches import Batch
from advkit.images.image_set import ImageSet, pixels
from advkit.labels.soft import soften
from advkit.runtime import modes, seeding
from advkit.runtime.reporting import Reporter
from advkit.search.options import CRITERIA
from advkit.softlabels import source as soft_source
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.trainer import split_of

ATTACKS = ("apgd-ce", "apgd-t")
GOLDEN = (math.sqrt(5) - 1) / 2
TOLERANCE = 0.05
"""Clean accuracy below the teacher's that still passes the first step, where none is given."""

Trial = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """Where and how trials run."""

    device: torch.device
    threads: int
    data_root: Path | None
    reporter: Reporter


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
    """Trials in a folder, a line each in `trials.jsonl`; finished ones are never run again."""

    def __init__(self, layers: Sequence[Layer], plan: Plan, out: Path, machine: Machine) -> None:
        self.layers, self.plan, self.out, self.machine = layers, plan, out, machine
        base = resolve.resolve(*layers).settings
        if base.soft_labels is None:
            raise UsageError("the search needs one labels file: --soft-labels FILE or a pipe")
        self.base = base
        self.images = data.load(
            base.data, "train", root=machine.data_root, **base.options_of("data")
        )
        source, info = soft_source.load(
            base.soft_labels, None, self.images, machine.device, machine.reporter
        )
        self.source, self.labels_info = source, info
        self.held = split_of(base, self.images)[1]
        self.ledger = out / "trials.jsonl"
        self.trials: list[Trial] = []

    def run(self) -> tuple[dict[str, Any], list[Trial]]:
        """Search, or go on searching; return the choice and all trials.

        Raises:
            MismatchError: the folder holds a search with other options.
        """
        self._open()
        threshold = self._threshold()
        tau_max = self._first_step(threshold)
        feasible = [t for t in self.plan.grid if tau_max is None or t < tau_max]
        if not feasible:
            raise InputError(
                f"no temperature keeps clean accuracy at {threshold:.3f}: lower --threshold, or "
                "train the substitutes longer"
            )
        tried = [self._trial("ltd", t) for t in feasible]
        self._refine(tried, tau_max)
        return self._choice(tried, threshold, tau_max), self.trials

    def _open(self) -> None:
        """Read the ledger, having checked that it belongs to this search."""
        files.folder(self.out)
        mark = self.out / "search.toml"
        text = self._identity()
        if mark.exists() and mark.read_text(encoding="utf-8") != text:
            raise MismatchError(f"{self.out} holds a search with other options: choose another -o")
        files.write_text(mark, text)
        if self.ledger.exists():
            self.trials = self._read_ledger()

    def _read_ledger(self) -> list[Trial]:
        """Return the finished trials; a last line that was cut off is dropped and run again."""
        try:
            whole, _, torn = self.ledger.read_text(encoding="utf-8").rpartition("\n")
            trials = [json.loads(line) for line in whole.splitlines()]
        except (ValueError, RecursionError):
            raise InputError(f"{self.ledger}: corrupt: not JSON lines") from None
        if torn:
            files.write_text(self.ledger, f"{whole}\n" if whole else "")
        return trials

    def _identity(self) -> str:
        resolved = resolve.resolve(*self.layers)
        grid = ",".join(f"{t:g}" for t in self.plan.grid)
        plan = (
            f"# grid {grid}, criterion {self.plan.criterion}, threshold {self.plan.threshold}, "
            f"refine {self.plan.refine}\n"
        )
        outside = tuple(start for key in OUTSIDE for start in (f"{key} = ", f"# {key} is "))
        lines = [line for line in resolved.toml().splitlines() if not line.startswith(outside)]
        return plan + "\n".join(line.split("  #")[0] for line in lines) + "\n"

    def _threshold(self) -> float:
        if self.plan.threshold is not None:
            return self.plan.threshold
        return self._teacher_accuracy() - TOLERANCE

    def _teacher_accuracy(self) -> float:
        """Top-1 of the teacher on the held-out examples, on which substitutes are measured."""
        hits = 0
        for rows in torch.split(self.held, 256):
            batch = _plain(self.images, rows, self.source, self.machine.device)
            hits += int((self.source(batch).argmax(1) == batch.y).sum())
        return hits / len(self.held)

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
        low = math.log(order[max(place - 1, 0)])
        above = order[place + 1 :] or ([tau_max] if tau_max else order[-1:])
        high = math.log(above[0])
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

    def _trial(self, kind: str, temperature: float) -> Trial:
        for trial in self.trials:
            if (trial["kind"], trial["temperature"]) == (kind, temperature):
                return trial
        chosen: dict[str, Any] = {"temperature": temperature}
        if kind == "substitute":
            chosen |= {"objective": "natural", "attack_steps": 0}
        layers = [_without_objective(layer) for layer in self.layers] if kind != "ltd" else None
        resolved = resolve.resolve(*(layers or self.layers), (chosen, "trial"))
        folder = RunFolder(self.out / f"{kind}-T{temperature:g}")
        self.machine.reporter.note(f"{kind} at T = {temperature:g}")
        train(
            resolved, folder, device=self.machine.device, threads=self.machine.threads,
            data_root=self.machine.data_root, resume=True, reporter=self.machine.reporter,
        )  # fmt: skip
        trial = {"kind": kind, "temperature": temperature, **self._measured(folder, resolved)}
        _require_finite(trial)
        files.append_line(self.ledger, json.dumps(trial))
        self.trials.append(trial)
        return trial

    def _measured(self, folder: RunFolder, resolved: resolve.Resolved) -> Trial:
        model, info = models.load(folder.checkpoint("best"), self.machine.device)
        figures = {"clean_accuracy": info["metrics"]["clean_accuracy"], "digest": info["digest"]}
        if resolved.settings.attack_steps == 0:
            return figures
        alarm = any("masking_alarm" in row for row in folder.rows())
        judged = judge(model, self.images, self.held, self.source, resolved.settings)
        return {**figures, "masking_alarm": alarm, **judged}

    def _score(self, trial: Trial) -> float:
        if self.plan.criterion == "loss":
            return -float(trial["loss_ce"])
        return -math.inf if trial["masking_alarm"] else float(trial["robust_accuracy"])

    def _best(self, tried: Sequence[Trial]) -> Trial:
        # Of equals the lower temperature: less of the true class is given away.
        return max(tried, key=lambda trial: (self._score(trial), -trial["temperature"]))

    def _choice(
        self, tried: list[Trial], threshold: float, tau_max: float | None
    ) -> dict[str, Any]:
        def least(key: str) -> float:
            return float(min(tried, key=lambda trial: float(trial[key]))["temperature"])

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
            "trials": len(self.trials),
            "n": len(self.held),
        }

    def describe(self) -> dict[str, Any]:
        """Return the description of the search's result."""
        described = {**self.base.described(), "grid": list(self.plan.grid)}
        return provenance.describe(
            "analysis",
            config={"analysis": "search temperature", **described, "refine": self.plan.refine},
            seed=self.base.seed,
            parents=[provenance.parent(self.labels_info)],
            environment={"device": self.machine.device.type, "threads": self.machine.threads},
        )


def _require_finite(trial: Trial) -> None:
    """Refuse figures that nothing can be chosen by.

    Raises:
        NumericalError: one is NaN or infinite.
    """
    for name, value in trial.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NumericalError(
                f"{trial['kind']} at T = {trial['temperature']:g}: {name} is {value}: lower --lr"
            )


def judge(
    model: nn.Module,
    images: ImageSet,
    held: Tensor,
    source: Callable[[Batch], Tensor],
    settings: Settings,
) -> dict[str, float]:
    """Measure a student on held-out examples.

    Returns `robust_accuracy` under APGD-CE and APGD-T (three classes or fewer: APGD-CE alone),
    `pgd_accuracy` under PGD-10, and eq. 9 in both readings, `loss_ce` and `loss_kl`, with PGD-10
    for x′ and the plain images' soft labels.
    """
    threat = Threat(settings.norm, parse_eps(settings.eps, settings.norm))
    temperature = settings.options_of("labels")["temperature"]
    beta = settings.options_of("objectives").get("beta", 6.0)
    device = next(model.parameters()).device
    suite = autoattack.Judge(model, threat, "standard", len(images.classes), settings.seed)
    names = [n for n in autoattack.attacks("standard", len(images.classes)) if n in ATTACKS]
    sums = dict.fromkeys(("robust_accuracy", "pgd_accuracy", "loss_ce", "loss_kl"), 0.0)
    for start in range(0, len(held), 256):
        batch = _plain(images, held[start : start + 256], source, device)
        x, y = batch.x, batch.y
        generator = seeding.generator(settings.seed, "judge", start)
        with modes.evaluating(model), modes.frozen(model), torch.no_grad():
            x_adv = pgd.attack(model, x, y, threat, generator=generator, steps=10)
            clean, adversarial = model(x), model(x_adv)
            target = soften(source(batch), temperature).to(clean.dtype)
            shift = beta * kl_divergence(clean, adversarial).sum()
            ce = cross_entropy(clean, target).sum()
            entropy = -torch.special.xlogy(target, target).sum()
            standing = clean.argmax(1) == y
            sums["pgd_accuracy"] += int((adversarial.argmax(1) == y).sum())
            sums["loss_ce"] += float(ce + shift)
            sums["loss_kl"] += float(ce - entropy + shift)
            for name in names:
                rows = standing.nonzero().flatten()
                if len(rows):
                    found = suite.attack(name, x[rows], y[rows])
                    standing[rows] = model(found).argmax(1) == y[rows]
            sums["robust_accuracy"] += int(standing.sum())
    return {name: value / len(held) for name, value in sums.items()}


def _plain(
    images: ImageSet, index: Tensor, source: Callable[[Batch], Tensor], device: torch.device
) -> Batch:
    """Return examples without crop or flip, with their place in the source's table of views."""
    x = pixels(images.batch(index), device)
    views = torch.tensor([images.pad, images.pad, 0], dtype=torch.uint8).expand(len(index), 3)
    table = getattr(source, "views", None)
    view = torch.zeros(len(index), dtype=torch.int64)
    if table is not None:
        # The plain view where the table has it; else the example's first view stands for it.
        view = (table[index] == views[:, None]).all(2).int().argmax(1)
    return Batch(index, x, images.labels[index].to(device), views, view)


def _without_objective(layer: Layer) -> Layer:
    """Drop options that a natural substitute has no use for."""
    gone = ("inner", "beta", "joint_batch", "attack_steps", "objective", "method", "awp")
    values: Mapping[str, Any] = {k: v for k, v in layer[0].items() if k not in gone}
    return {**values, "labels": "soft"}, layer[1]

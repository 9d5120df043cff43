"""The search for ADR's numbers, τ, λ and γ: which trials are run, and which one is chosen.

Hard labels are trained first, by the same objective and on the same split and seed. Then trials are
run one after another, each to the rung where it falls out (`halving`), at the points that
`sampling` draws. All are judged by APGD-CE and APGD-T on the validation split: PGD on cross-entropy
flatters soft targets. The best of those that went to the end is chosen, of equals the earlier.

What was judged is in the ledger before anything is decided by it, and no run goes beyond a rung
before it was judged there. So whatever was cut off is done again from the same state, and the
search goes on to the same choice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from advkit import data, models
from advkit.artifacts import provenance
from advkit.config import resolve
from advkit.config.resolve import Layer, Resolved
from advkit.errors import MismatchError, UsageError
from advkit.formulas import stats
from advkit.search import evaluator, halving, sampling, trials
from advkit.search.ledger import Ledger
from advkit.search.machine import Machine, identity
from advkit.search.sampling import Journal, Told
from advkit.search.space import Point
from advkit.search.trials import Figures, Rung
from advkit.training import parts
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.sources import split_of

MOST = 10_000
"""Trials, however large the budget."""
LABELS = ("tau", "lambda", "anneal", "teacher_noise", "method", "labels")
"""Settings that hard labels have no use for."""
CHOSEN = "the search"
"""What the layer of a trial's own numbers is called."""
Choice = dict[str, float | int | str | list[float] | None]


@dataclass(frozen=True)
class Plan:
    """How long is searched: so many trials, or so many seconds."""

    trials: int | None
    seconds: float | None


class AdrSearch:
    """Which trials are run, and which one is chosen."""

    def __init__(self, layers: Sequence[Layer], plan: Plan, out: Path, machine: Machine) -> None:
        self.layers, self.plan, self.out, self.machine = layers, plan, out, machine
        self.base = resolve.resolve(*layers).settings
        if self.base.attack_steps == 0:
            raise UsageError(f"search adr: objective {self.base.objective} attacks nothing")
        root, options = machine.data_root, self.base.options_of("data")
        self.images = data.load(self.base.data, "train", root=root, **options)
        self.held_out = split_of(self.base, self.images)[1]
        self.rungs = halving.rungs(self.base.epochs)
        self.ledger: Ledger[Rung] = Ledger(out, trials.rung_fault, "choose another -o")

    def run(self) -> Iterator[Rung]:
        """Search, or go on searching: yield hard labels' line and the last one of each trial.

        Raises:
            InputError: the ledger or the journal is corrupt.
            MismatchError: the folder holds a search with other options, or one that was edited.
        """
        resolved = resolve.resolve(*self.layers)
        plan = f"# ADR's numbers, trials {self.plan.trials}, seconds {self.plan.seconds}\n"
        meant = {**parts.digests(self._hard().settings), **parts.digests(self.base)}
        self.ledger.open(plan + identity(resolved), meant)
        journal = Journal(self.out / "journal.log")
        plain = self._plain()
        yield plain
        journal.require_no_more(plain["trials"])
        past: list[Told] = []
        for number in range(plain["trials"]):
            told, rung = self._trial(journal, number, past)
            past.append(told)
            yield rung

    def _plain(self) -> Rung:
        """Train with hard labels and settle how many trials there are to be, once for all."""
        finished = self.ledger.find(kind="plain")
        if finished is not None:
            return finished
        self.machine.reporter.note("hard labels, which trials are compared with")
        folder = RunFolder(self.folder(None))
        figures, seconds = self._judged(self._hard(), folder, self.base.epochs)
        trained = sum(row["seconds"] for row in folder.rows())
        number = self._fitting(trained, seconds)
        rung = cast(Rung, {"kind": "plain", **figures, "trials": number})
        self.ledger.add(rung)
        return rung

    def _hard(self) -> Resolved:
        """Return the configuration with hard labels; everything else stays."""
        layers = [
            ({key: value for key, value in layer.items() if key not in LABELS}, name)
            for layer, name in self.layers
        ]
        return resolve.resolve(
            ({"objective": self.base.objective, "awp": self.base.awp}, CHOSEN),
            *layers,
            ({"labels": "onehot"}, CHOSEN),
        )

    def _fitting(self, trained: float, judged: float) -> int:
        """Return how many trials there are to be.

        A time becomes a number here and nowhere else: a search that is stopped and goes on has
        the trials that it would have had.

        Args:
            trained: seconds that the run of hard labels took.
            judged: seconds that it took to judge it.
        """
        if self.plan.seconds is None:
            return self.plan.trials or 1
        whole = trained + judged * len(self.rungs)
        left = self.plan.seconds - trained - judged - whole  # the first trial goes to the end
        if left < 0:
            self.machine.reporter.warn(
                f"a whole trial takes about {whole:.0f} s and the budget has "
                f"{max(0, left + whole):.0f} s left: one is run all the same"
            )
        epochs, times = halving.expected(self.rungs)
        each = trained * epochs + judged * times
        number = 1 + max(0, min(int(left / each), MOST - 1))
        self.machine.reporter.note(f"the budget is reckoned to take {number} trials")
        return number

    def _trial(self, journal: Journal, number: int, past: Sequence[Told]) -> tuple[Told, Rung]:
        """Run a trial to where it falls out, or to its end."""
        known = [rung for rung in self.ledger.trials if rung.get("number") == number]
        point = trials.point_of(known[0]) if known else journal.begun(number)
        if point is None:
            point = sampling.draw(self.base.seed, number, past)
        scores: dict[int, float] = {}
        journal.tell(Told(number, point))
        for epochs in self.rungs:
            rung = self._rung(number, point, epochs)
            earlier = [told.scores[epochs] for told in past if epochs in told.scores]
            scores[epochs] = trials.score(rung)
            journal.tell(Told(number, point, scores))
            if not halving.goes_on(scores[epochs], earlier):
                break
        told = Told(number, point, scores, whole=epochs == self.base.epochs)
        journal.tell(told)
        return told, rung

    def _rung(self, number: int, point: Point, epochs: int) -> Rung:
        finished = self.ledger.find(kind="adr", number=number, epochs=epochs)
        if finished is not None:
            return finished
        self.machine.reporter.note(
            f"trial {number}, τ {point.tau}, λ {point.lambda_}, γ {point.ema_decay:g}: to epoch "
            f"{epochs} of {self.base.epochs}"
        )
        folder = RunFolder(self.folder(number))
        figures, _ = self._judged(self.resolved(point), folder, epochs)
        own = {"kind": "adr", "number": number, **point.options}
        rung = cast(Rung, {**own, **figures})
        self.ledger.add(rung)
        return rung

    def folder(self, number: int | None) -> Path:
        """Return where a trial's run lies; None is that of hard labels."""
        return self.out / ("plain" if number is None else f"trial-{number:04}")

    def resolved(self, point: Point) -> Resolved:
        """Return the configuration of a trial's run."""
        return resolve.resolve(*self.layers, (point.options, CHOSEN))

    def _judged(self, resolved: Resolved, folder: RunFolder, epochs: int) -> tuple[Figures, float]:
        """Train a run to an epoch and judge its best checkpoint; return that and the seconds."""
        machine = self.machine
        train(
            resolved,
            folder,
            device=machine.device,
            threads=machine.threads,
            data_root=machine.data_root,
            resume=True,
            reporter=machine.reporter,
            until=epochs,
        )
        rows = folder.rows()
        if len(rows) != epochs:
            raise MismatchError(
                f"{folder.path}: trained to epoch {len(rows)}, the search stands at {epochs}: "
                "remove it, and it is trained again"
            )
        began = time.monotonic()
        model, info = models.load(folder.checkpoint("best"), machine.device)
        standing = evaluator.standing(
            model, self.images, self.held_out, resolved.settings, machine.reporter
        )
        figures: Figures = {
            "epochs": epochs,
            "clean_accuracy": info["metrics"]["clean_accuracy"],
            "robust_accuracy": int(standing.sum()) / len(standing),
            "pgd_accuracy": info["metrics"]["robust_accuracy"],
            "masking_alarm": any("masking_alarm" in row for row in rows),
            "digest": info["digest"],
            "standing": trials.packed(standing),
        }
        return figures, time.monotonic() - began

    def chosen(self, lines: Sequence[Rung]) -> Rung:
        """Return the line of the best trial that went to the end, of equals the earlier."""
        ended = [line for line in lines[1:] if line["epochs"] == self.base.epochs]
        return max(ended, key=lambda line: (trials.score(line), -line["number"]))

    def choice(self, lines: Sequence[Rung]) -> Choice:
        """Return the chosen numbers, and how they compare with hard labels on the same images.

        The interval (95 %) is of the difference of robust accuracies, paired over images. It knows
        nothing of the choice: the best of many is better on the images it was chosen on.

        Args:
            lines: as `run` yields them.
        """
        plain, best, n = lines[0], self.chosen(lines), len(self.held_out)
        before, after = (trials.unpacked(line["standing"], n) for line in (plain, best))
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        low, high = stats.paired_interval(lost, gained, n)
        return {
            "tau": best["tau"],
            "lambda": best["lambda"],
            "ema_decay": best["ema_decay"],
            "trial": best["number"],
            "clean_accuracy": best["clean_accuracy"],
            "robust_accuracy": best["robust_accuracy"],
            "pgd_accuracy": best["pgd_accuracy"],
            "masking_alarm": best["masking_alarm"],
            "plain": self.plain_method,
            "plain_clean_accuracy": plain["clean_accuracy"],
            "plain_robust_accuracy": plain["robust_accuracy"],
            "plain_pgd_accuracy": plain["pgd_accuracy"],
            "difference": (gained - lost) / n,
            "difference_low": low,
            "difference_high": high,
            "verdict": "better" if low > 0 else "worse" if high < 0 else "no difference seen",
            "trials": plain["trials"],
            "ended": sum(line["epochs"] == self.base.epochs for line in lines[1:]),
            "n": n,
        }

    @property
    def plain_method(self) -> str:
        """What training with hard labels is called: `at` for ADR's own objective."""
        return self._hard().settings.method

    def describe(self) -> dict[str, object]:
        """Return the description of the search's result."""
        searched = ("tau", "lambda", "ema_decay")
        described = {k: v for k, v in self.base.described().items() if k not in searched}
        plan = {"trials": self.plan.trials, "budget": self.plan.seconds, "rungs": list(self.rungs)}
        source = provenance.data_parent(self.base.data_name, "train", self.images.fingerprint)
        return provenance.describe(
            "analysis",
            config={"analysis": "search adr", **described, **plan},
            seed=self.base.seed,
            parents=[source],
            environment={"device": self.machine.device.type, "threads": self.machine.threads},
        )

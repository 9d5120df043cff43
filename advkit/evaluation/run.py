"""Evaluation: what a model says of each example, clean and under attack, and who broke it.

A verdict never comes from an attack itself: every adversarial image is audited (ball, box,
finite) and judged by a forward pass of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from advkit import registry
from advkit.artifacts import descriptions, provenance
from advkit.artifacts.hdf5 import ROBUST, WRONG, Logits
from advkit.errors import InputError, MismatchError, NumericalError, UsageError
from advkit.evaluation import partial, passes, remarks
from advkit.evaluation.audit import audited
from advkit.evaluation.partial import Partial
from advkit.evaluation.passes import ROUNDING, Pass, Surrogate
from advkit.evaluation.settings import SUITES, AttackSettings
from advkit.formulas.losses import cross_entropy
from advkit.images.image_set import ImageSet, fitted, pixels
from advkit.images.split import first
from advkit.runtime import modes
from advkit.runtime.reporting import Reporter

FEW = 32
"""Images on which a copy of the model must answer as it does."""
NEVER = -1
"""In the place of the pass that an example fell in."""


class Evaluation:
    """The books of one evaluation, kept per example and per finished batch."""

    def __init__(
        self,
        model: nn.Module,
        info: Mapping[str, Any],
        images: ImageSet,
        settings: AttackSettings,
        *,
        environment: Mapping[str, Any],
        reporter: Reporter | None = None,
        surrogate: Surrogate | None = None,
    ) -> None:
        passes.require_surrogate(settings, info, surrogate)
        self.model, self.info, self.settings = model, info, settings
        self.surrogate = surrogate
        self.images = images
        self.environment = environment
        self.reporter = reporter or Reporter()
        self.device = next(model.parameters()).device
        self.known = self._in_distribution()
        if not self.known and settings.attack != "none":
            raise MismatchError(
                f"{images.name} has other classes than the model: attacks need its labels; "
                "--attack none gives the logits of out-of-distribution data"
            )
        self.positions = self._examples()
        labels = images.labels[self.positions]
        self.labels = labels if self.known else torch.full_like(labels, -1)
        self.classes = len(info["data"]["classes"])
        self.attacks = passes.attack_names(settings, self.classes)
        self.clean = torch.zeros(len(labels), self.classes)
        self.adversarial = torch.zeros(len(labels), self.classes)
        self.norm = torch.zeros(len(labels))
        self.broken_by = torch.full((len(labels),), ROBUST, dtype=torch.int8)
        self.fell_in = torch.full((len(labels),), NEVER, dtype=torch.int16)
        self.saved = self._x(torch.arange(len(labels))) if settings.save_images else None
        self.done = (0, 0)
        self.flat = 0

    def _in_distribution(self) -> bool:
        """Whether the labels of these images are the model's.

        Another data set is out of distribution, unless it is attacked and its classes are called
        the same: then the user means it, and is told what that rests on.
        """
        trained, images = self.info["data"], self.images
        same = list(images.classes) == list(trained["classes"])
        if images.name == trained["name"] or not same:
            return same
        if self.settings.attack == "none":
            return False
        self.reporter.warn(
            f"{images.name} is not {trained['name']}; its classes are taken for the model's "
            "because they have the same names"
        )
        return True

    def _examples(self) -> Tensor:
        """Return the positions to visit: of a shard every N-th, from the I-th on.

        Raises:
            UsageError: more shards than examples.
        """
        every, shard = first(self.images.labels, self.settings.limit), self.settings.shard
        if shard is None:
            return every
        shard.require(len(every), "examples")
        return every[shard.number - 1 :: shard.count]

    def run(self, path: Path | None = None) -> Logits:
        """Do what is not done yet and return the whole.

        Args:
            path: where finished batches are kept until the end, to go on from.

        Raises:
            NumericalError: the model or an attack gives NaN or infinity.
            UsageError: a random model needs another version of AutoAttack.
            AdvkitError: an attack left the ball or the box.
        """
        with modes.evaluating(self.model), modes.frozen(self.model):
            self._clean_pass()
            if self.settings.attack != "none":
                self._count_flat()
            plan = self._plan()
            kept = None if path is None else self._restored(path)
            for number, each in enumerate(plan):
                if number >= self.done[0]:
                    self._attack_pass(number, each, kept)
        found = self._logits()
        remarks.verdicts(found, self.reporter)
        return found

    def _plan(self) -> list[Pass]:
        few = self._x(torch.arange(min(FEW, len(self.labels))))
        net = passes.searched(self.model, self.settings, few, self.reporter)
        return passes.passes(net, self.settings, self.classes, self.surrogate)

    def _x(self, rows: Tensor) -> Tensor:
        raw = self.images.batch(self.positions[rows])
        return fitted(pixels(raw, self.device), tuple(self.info["model"]["input_shape"]))

    def _chunks(self, rows: Tensor) -> Sequence[Tensor]:
        return torch.split(rows, self.settings.batch_size) if len(rows) else ()

    @torch.no_grad()
    def _clean_pass(self) -> None:
        for rows in self._chunks(torch.arange(len(self.labels))):
            x = self._x(rows)
            logits = self.model(x)
            self.clean[rows] = self._finite(logits, rows)
            if int(rows[0]) == 0:
                self._require_deterministic(x, logits)
        self.adversarial = self.clean.clone()
        wrong = self.clean.argmax(1) != self.labels
        self.broken_by[wrong & (self.labels >= 0)] = WRONG

    def _count_flat(self) -> None:
        """Count examples whose cross-entropy has an exactly zero gradient at the clean image.

        There sign(0) = 0 and a gradient attack stands still: such an example survives untested.
        """
        for rows in self._chunks(torch.arange(len(self.labels))):
            x = self._x(rows).requires_grad_(True)
            y = self.labels[rows].to(self.device)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(cross_entropy(self.model(x), y).sum(), x)
            self.flat += int((gradient.flatten(1) == 0).all(1).sum())
        remarks.flat(self.flat, len(self.labels), self.reporter)

    def _require_deterministic(self, x: Tensor, logits: Tensor) -> None:
        """Ask twice: of a random model one pass says little, and AutoAttack has a version for it.

        Raises:
            UsageError: AutoAttack's standard or plus version, or --fast, on a random model.
        """
        if self.settings.version == "rand" or torch.equal(again := self.model(x), logits):
            return
        much = (again - logits).abs().max() > ROUNDING * logits.abs().max()
        if self.settings.attack in SUITES and bool(much):
            raise UsageError(
                "the model answers differently to the same images: use --autoattack "
                "--version rand, which averages over its answers"
            )
        self.reporter.warn(
            "the model answers differently to the same images: verdicts of one forward pass "
            "overstate an attack; AutoAttack has --version rand for this"
        )

    def _finite(self, logits: Tensor, rows: Tensor) -> Tensor:
        bad = ~torch.isfinite(logits).all(1)
        if bool(bad.any()):
            example = int(self.positions[rows[int(bad.nonzero()[0])]])
            raise NumericalError(
                f"the model's logits of example {example} are not finite: nothing can be judged"
            )
        return logits.float().cpu()

    def _attack_pass(self, number: int, each: Pass, kept: Partial | None) -> None:
        chunks = self._chunks(self._visited(number, each))
        batch = self.done[1] if number == self.done[0] else 0
        total = sum(len(rows) for rows in chunks)
        behind = sum(len(rows) for rows in chunks[:batch])
        self.reporter.begin(each.name, total, behind)
        for place in range(batch, len(chunks)):
            rows = chunks[place]
            changed = self._attack_batch(number, each, rows, place)
            self.done = (number, place + 1)
            if kept is not None:
                kept.save(self._books(), self.done, self._patch(changed))
            robust = int((self.broken_by == ROBUST).sum())
            self.reporter.advance(len(rows), robust=f"{robust}/{len(self.labels)}")
        self.reporter.end()
        self.done = (number + 1, 0)

    def _visited(self, number: int, each: Pass) -> Tensor:
        """Rows that a pass visits, as they were when it began."""
        if not each.everyone:
            standing = (self.broken_by == ROBUST) | (self.fell_in == number)
        elif each.judges:
            standing = torch.ones_like(self.broken_by, dtype=torch.bool)
        else:
            standing = self.broken_by < 0
        return standing.nonzero().flatten()

    def _attack_batch(self, number: int, each: Pass, rows: Tensor, place: int) -> Tensor:
        """Attack one batch, judge it, and return the rows that have new logits."""
        x, y = self._x(rows), self.labels[rows].to(self.device)
        x_adv = each.run(x, y, place)
        norm = audited(x_adv, x, self.settings.threat, each.name)
        with torch.no_grad():
            logits = self._finite(self.model(x_adv), rows)
        broken = (logits.argmax(1) != self.labels[rows]) & (self.broken_by[rows] == ROBUST)
        if each.judges:
            self.broken_by[rows[broken]] = each.attack
            self.fell_in[rows[broken]] = number
        kept = torch.ones_like(broken) if each.everyone else broken
        self.adversarial[rows[kept]] = logits[kept]
        self.norm[rows[kept]] = norm.float().cpu()[kept]
        if self.saved is not None:
            self.saved[rows[kept]] = x_adv.to(self.saved.device)[kept]
        return rows[kept]

    def _logits(self) -> Logits:
        settings = self.settings
        attacked = settings.attack != "none"
        source = provenance.data_parent(
            registry.split_path(settings.data)[0], self.images.split, self.images.fingerprint
        )
        others = [] if self.surrogate is None else [provenance.parent(self.surrogate.info)]
        info = provenance.describe(
            "logits",
            config=settings.described(),
            seed=settings.seed,
            parents=[provenance.parent(self.info), *others, source],
            environment=self.environment,
            attacks=self.attacks,
            method=self.info["method"],
            arch=self.info["arch"],
            role=self.info["role"],
            zero_gradient=self.flat / len(self.labels) if attacked else None,
            trained=dict(self.info.get("config", {})),
            data={"name": source["name"], "classes": list(self.info["data"]["classes"])},
            **passes.implementation(settings, self.classes),
        )
        return Logits(
            index=self.positions,
            labels=self.labels,
            clean=self.clean,
            adversarial=self.adversarial if attacked else None,
            norm=self.norm if attacked else None,
            broken_by=self.broken_by if attacked else None,
            images=self.saved.cpu() if attacked and self.saved is not None else None,
            info=cast(descriptions.Logits, info),  # checked as one when it was made
        )

    def _books(self) -> dict[str, Tensor]:
        return {
            "adversarial": self.adversarial,
            "norm": self.norm,
            "broken_by": self.broken_by,
            "fell_in": self.fell_in,
        }

    def _patch(self, rows: Tensor) -> partial.Patch | None:
        return None if self.saved is None else (rows, self.saved[rows])

    def _identity(self) -> dict[str, Any]:
        return {
            "config": self.settings.described(),
            "checkpoint": self.info["digest"],
            "data": self.images.fingerprint,
            "environment": dict(self.environment),
            **passes.implementation(self.settings, self.classes),
        }

    def _restored(self, path: Path) -> Partial:
        """Take over the batches that an earlier run of the same evaluation finished."""
        kept = Partial(path, self._identity())
        try:
            found = kept.load()
        except (InputError, MismatchError) as error:
            self.reporter.note(f"{error}: started anew")
            partial.remove(path)
            return kept
        if found is not None:
            books, self.done, patches = found
            self.adversarial, self.norm = books["adversarial"], books["norm"]
            self.broken_by, self.fell_in = books["broken_by"], books["fell_in"]
            for rows, images in patches:
                if self.saved is not None:
                    self.saved[rows] = images.to(self.device)
            self.reporter.note("going on from the batches that an earlier run finished")
        return kept

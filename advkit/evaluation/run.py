"""Evaluation: what a model says of each example, clean and under attack, and who broke it.

A verdict never comes from an attack itself: every adversarial image is audited (ball, box,
finite) and judged by a forward pass of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from advkit import models, registry
from advkit.artifacts import descriptions, provenance
from advkit.artifacts.descriptions import Checkpoint
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError, NumericalError, UsageError
from advkit.evaluation import classes, partial, passes, remarks
from advkit.evaluation.audit import audited
from advkit.evaluation.outcomes import Outcomes
from advkit.evaluation.partial import Partial
from advkit.evaluation.passes import Pass, Surrogate
from advkit.evaluation.searched import ROUNDING, searched
from advkit.evaluation.settings import SUITES, AttackSettings
from advkit.formulas.losses import cross_entropy
from advkit.images.image_set import ImageSet, fitted, pixels
from advkit.images.split import first
from advkit.runtime import counting, modes
from advkit.runtime.reporting import Reporter

FEW = 32
"""Images on which a copy of the model must answer as it does."""
GRADIENT_FREE = "transfer"
"""The attack that asks the model for no gradient; of Square's, a pass for the rest does."""


class Evaluation:
    """One evaluation: the examples, the passes over them, and what comes out for each."""

    def __init__(
        self,
        model: nn.Module,
        info: Checkpoint,
        images: ImageSet,
        settings: AttackSettings,
        *,
        environment: Mapping[str, object],
        reporter: Reporter | None = None,
        surrogate: Surrogate | None = None,
        other: bool | None = None,
    ) -> None:
        """Match the labels with the model's classes, and see that the attacks can be run.

        Args:
            model: what is attacked, in [0, 1] space.
            info: its description.
            images: what it is attacked on.
            settings: the attacks.
            environment: what rounding depends on, for the description.
            reporter: hears what is not as it seems.
            surrogate: the model whose adversarial images are shown to this one.
            other: whether the images are of another set than the model's; by its name if None.
        """
        passes.require_surrogate(settings, info, surrogate)
        self.model, self.info, self.settings = model, info, settings
        self.surrogate = surrogate
        self.images = images
        self.environment = environment
        self.reporter = reporter or Reporter()
        self.device = next(model.parameters()).device
        # Labels of other classes mean nothing to the model: such examples get -1.
        own = classes.known(
            info,
            images,
            attacked=settings.attack != "none",
            other=images.name != info["data"]["name"] if other is None else other,
            reporter=self.reporter,
        )
        self.positions = self._examples()
        self.labels = own[images.labels[self.positions]]
        self.classes = len(info["data"]["classes"])
        self.attacks = passes.attack_names(settings, self.classes)
        _, height, width = info["model"]["input_shape"]
        passes.require_size(settings, self.classes, (height, width))
        # Clean images stand for adversarial ones until a pass gives others.
        images_kept = self._x(torch.arange(len(self.labels))) if settings.save_images else None
        self.outcomes = Outcomes.unknown(self.labels, self.classes, images_kept)
        self.done = (0, 0)  # passes that are behind us, and batches of the next one
        self.flat = 0
        self.asked = [model] if surrogate is None else [model, surrogate.model]

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
            # Clean logits are not stored: asking again costs one pass.
            self._clean_pass()
            if self.settings.attack != "none":
                self._count_flat()
            attacks = self._passes()
            store = None if path is None else self._restored(path)
            for number, attack in enumerate(attacks):
                if number >= self.done[0]:
                    self._attack_pass(number, attack, store)
        logits = self._logits()
        remarks.verdicts(logits, self.reporter)
        return logits

    def _passes(self) -> list[Pass]:
        # Attacks search on a faster copy, where one answers as the model does.
        sample = self._x(torch.arange(min(FEW, len(self.labels))))
        net = searched(self.model, self.settings, sample, self.reporter)
        self.asked[0] = net
        return passes.passes(net, self.settings, self.classes, self.surrogate)

    def _x(self, rows: Tensor) -> Tensor:
        raw = self.images.batch(self.positions[rows])
        channels, height, width = self.info["model"]["input_shape"]
        return fitted(pixels(raw, self.device), (channels, height, width))

    def _chunks(self, rows: Tensor) -> Sequence[Tensor]:
        return torch.split(rows, self.settings.batch_size) if len(rows) else ()

    @torch.no_grad()
    def _clean_pass(self) -> None:
        for rows in self._chunks(torch.arange(len(self.labels))):
            x = self._x(rows)
            logits = self.model(x)
            self.outcomes.clean[rows] = self._finite(logits, rows)
            if int(rows[0]) == 0:
                self._require_deterministic(x, logits)
        self.outcomes.close_clean_pass()

    def _count_flat(self) -> None:
        """Count examples whose cross-entropy has an exactly zero gradient at the clean image.

        There sign(0) = 0 and a gradient attack stands still: such an example survives untested.
        """
        for rows in self._chunks(torch.arange(len(self.labels))):
            x = self._x(rows).requires_grad_(True)
            y = self.labels[rows].to(self.device)
            # The sum leaves each example its own gradient.
            with torch.enable_grad():
                loss = cross_entropy(self.model(x), y).sum()
                if not loss.requires_grad:
                    self._require_gradient_free()
                    return
                (gradient,) = torch.autograd.grad(loss, x)
            self.flat += int((gradient.flatten(1) == 0).all(1).sum())
        remarks.flat(self.flat, len(self.labels), self.reporter)

    def _require_gradient_free(self) -> None:
        """Check that the attack asks for no gradient.

        Raises:
            UsageError: it does, and the net gives none.
        """
        if self.settings.attack != GRADIENT_FREE:
            raise UsageError(
                "the model gives no gradient to its images (is its forward pass under no_grad?): "
                f"all attacks but {GRADIENT_FREE} need it"
            )

    def _require_deterministic(self, x: Tensor, logits: Tensor) -> None:
        """Ask twice: of a random model one pass says little, and AutoAttack has a version for it.

        Raises:
            UsageError: AutoAttack's standard or plus version, or --fast, on a random model.
        """
        if self.settings.version == "rand" or torch.equal(again := self.model(x), logits):
            return
        # Smaller differences are rounding: some kernels add up in another order each time.
        random = bool((again - logits).abs().max() > ROUNDING * logits.abs().max())
        if self.settings.attack in SUITES and random:
            raise UsageError(
                "the model answers differently to the same images: use --autoattack "
                "--version rand, which averages over its answers"
            )
        self.reporter.warn(
            "the model answers differently to the same images: verdicts of one forward pass "
            "overstate an attack; AutoAttack has --version rand for this"
        )

    def _finite(self, logits: Tensor, rows: Tensor) -> Tensor:
        models.require_logits(logits, len(rows), self.classes, self.info["arch"])
        bad = ~torch.isfinite(logits).all(1)
        if bool(bad.any()):
            example = int(self.positions[rows[int(bad.nonzero()[0])]])
            raise NumericalError(
                f"the model's logits of example {example} are not finite: nothing can be judged"
            )
        return logits.float().cpu()

    def _attack_pass(self, number: int, attack: Pass, store: Partial | None) -> None:
        # The same rows in the same batches as before an interruption: an attack's noise is the
        # batch's.
        chunks = self._chunks(self.outcomes.visited(number, attack))
        if not chunks:  # nor is there anything to tell
            self.done = (number + 1, 0)
            return
        batch = self.done[1] if number == self.done[0] else 0
        total = sum(len(rows) for rows in chunks)
        behind = sum(len(rows) for rows in chunks[:batch])
        self.reporter.begin(attack.name, total, behind)
        for place in range(batch, len(chunks)):
            rows = chunks[place]
            changed = self._attack_batch(number, attack, rows, place)
            self.done = (number, place + 1)
            if store is not None:
                store.save(self.outcomes.stored(), self.done, self.outcomes.patch(changed))
            robust = int(self.outcomes.robust.sum())
            self.reporter.advance(len(rows), robust=f"{robust}/{len(self.labels)}")
        self.reporter.end()
        self.done = (number + 1, 0)

    def _attack_batch(self, number: int, attack: Pass, rows: Tensor, place: int) -> Tensor:
        """Attack one batch, judge it, and return the rows that have new logits."""
        x, y = self._x(rows), self.labels[rows].to(self.device)
        with counting.counted(self.asked, attack.name, self.reporter):
            x_adv = attack.run(x, y, place)
        # The verdict is ours: the images are audited, and the model itself is asked.
        norm = audited(x_adv, x, self.settings.threat, attack.name)
        with torch.no_grad():
            logits = self._finite(self.model(x_adv), rows)
        return self.outcomes.judge(number, attack, rows, logits, norm, x_adv)

    def _logits(self) -> Logits:
        settings, outcomes = self.settings, self.outcomes
        attacked = settings.attack != "none"
        named = registry.split_path(settings.data)[0]
        # A set that is one of several says which: cifar10c-fog-3 is of cifar10c.
        if self.images.name.startswith(f"{named}-"):
            named = self.images.name
        source = provenance.data_parent(
            named, self.images.split, self.images.fingerprint, self.images.how
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
            **_rung(self.info),
            # Of an imported net's training nothing is known.
            trained={} if self.info.get("imported") else dict(self.info.get("config", {})),
            data={"name": source["name"], "classes": list(self.info["data"]["classes"])},
            parts=self._parts,
            **passes.implementation(settings, self.classes),
        )
        return Logits(
            index=self.positions,
            labels=self.labels,
            clean=outcomes.clean,
            adversarial=outcomes.adversarial if attacked else None,
            norm=outcomes.norm if attacked else None,
            broken_by=outcomes.broken_by if attacked else None,
            images=outcomes.images.cpu() if attacked and outcomes.images is not None else None,
            info=cast(descriptions.Logits, info),  # checked as one when it was made
        )

    @cached_property
    def _parts(self) -> dict[str, str]:
        return passes.parts(self.settings, self.classes, self.info)

    def _identity(self) -> dict[str, object]:
        return {
            "config": self.settings.described(),
            "checkpoint": self.info["digest"],
            "data": self.images.fingerprint,
            "environment": dict(self.environment),
            "parts": self._parts,
            **passes.implementation(self.settings, self.classes),
        }

    def _restored(self, path: Path) -> Partial:
        """Take over the batches that an earlier run of the same evaluation finished."""
        store = Partial(path, self._identity())
        try:
            saved = store.load()
            if saved is not None:
                tensors, done, patches = saved
                self.outcomes.restore(tensors, patches)
                self.done = done
        except (InputError, MismatchError) as error:
            # Batches of another evaluation are of no use to this one.
            self.reporter.note(f"{error}: started anew")
            partial.remove(path)
            return Partial(path, self._identity())
        if saved is not None:
            self.reporter.note("going on from the batches that an earlier run finished")
        return store


def _rung(info: descriptions.Checkpoint) -> dict[str, object]:
    """Return the alarms that rang while a net was trained, under the key that holds them."""
    metrics = info.get("metrics", {})
    rung = [name for name in descriptions.ALARMS if metrics.get(name)]
    return {"alarms": rung} if rung else {}

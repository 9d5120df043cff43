"""Choosing a checkpoint: PGD-10, or what will judge, on examples held out of the training split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import torch
from torch import Generator, Tensor, nn

from advkit.attacks import pgd
from advkit.config.settings import Settings
from advkit.formulas.accuracy import correct
from advkit.formulas.losses import margin
from advkit.formulas.threat import Threat
from advkit.images.image_set import ImageSet, pixels
from advkit.parallel.world import World
from advkit.runtime import modes, seeding

STEPS = 10
CHUNK = 256
"""Steps of PGD, and examples of a batch, whose start names its noise."""
ACCURACIES: tuple[Literal["clean_accuracy", "robust_accuracy"], ...] = (
    "clean_accuracy",
    "robust_accuracy",
)

JUDGED: tuple[Literal["margin_accuracy", "apgd_accuracy"], ...] = (
    "margin_accuracy",
    "apgd_accuracy",
)
"""What `--select margin` and `--select apgd` choose by, beside PGD-10."""
MEASURED: tuple[
    Literal[
        "clean_accuracy",
        "robust_accuracy",
        "margin_accuracy",
        "apgd_accuracy",
        "one_step_accuracy",
    ],
    ...,
] = (*ACCURACIES, *JUDGED, "one_step_accuracy")
"""What a row of the log says of a net, where it was measured."""
APGD_STEPS, APGD_TARGETS = 20, 3
"""Of `--select apgd`: a fifth of AutoAttack's steps, and the most likely of its target classes."""


class Accuracies(TypedDict, total=False):
    """What a net is chosen by on the validation split, each in [0, 1]."""

    clean_accuracy: float
    robust_accuracy: float
    margin_accuracy: float
    apgd_accuracy: float


class Measured(Accuracies, total=False):
    """What is measured of a net on the validation split, each in [0, 1]."""

    one_step_accuracy: float


@dataclass(frozen=True)
class Validation:
    """The validation split and how a model is measured on it.

    `threat` is None for natural training, which is selected on clean accuracy. `one_step` adds
    accuracy under FGSM, which catastrophic overfitting raises, for runs that attack with one step.
    `select` adds accuracy under the attack that it names, by which nets are chosen then.
    """

    images: ImageSet
    positions: Tensor
    threat: Threat | None
    seed: int
    world: World = World()
    one_step: bool = False
    select: str = "pgd"

    @property
    def starts(self) -> range:
        """Where the batches begin that this process measures."""
        # Ranks take whole batches in turn: noise is named by a batch's start, whoever draws it.
        return range(0, len(self.positions), CHUNK)[self.world.rank :: self.world.size]

    @property
    def what(self) -> str:
        """The measurement in words, for a person who waits for it."""
        if self.threat is None:
            return "validation"
        others = {"margin": " and margin", "apgd": " and APGD"}
        return f"validation PGD-{STEPS}{others.get(self.select, '')}"

    @property
    def closing(self) -> Validation:
        """How the last epoch is measured: on the margin too, whatever chooses."""
        plain = self.threat is not None and self.select == "pgd"
        return replace(self, select="margin") if plain else self

    def measure(self, model: nn.Module, between: Callable[[], None]) -> Measured:
        """Return `clean_accuracy` and, as asked for, those under attack, each in [0, 1].

        The noise is the same in every epoch, so that a better figure means a better model.

        Args:
            model: in any mode; measured in eval mode.
            between: called after each batch; may raise to stop. With several processes, which
                share the batches, it is called once at the end.
        """
        hits = [0, 0, 0, 0]
        for start in self.starts:
            generator = seeding.generator(self.seed, "validation", start)
            positions = self.positions[start : start + CHUNK]
            counts = accuracies(
                model, self.images, positions, self.threat, steps=STEPS, generator=generator
            )
            more = self._further(model, positions, start)
            hits = [sum(pair) for pair in zip(hits, (*counts, *more), strict=True)]
            if self.world.alone:
                between()
        if not self.world.alone:
            device = next(model.parameters()).device
            hits = self.world.sum(torch.tensor(hits, device=device)).tolist()
            between()
        shares = [count / len(self.positions) for count in hits]
        figures: Measured = {"clean_accuracy": shares[0]}
        if self.threat is not None:
            figures["robust_accuracy"] = shares[1]
            if self.one_step:
                figures["one_step_accuracy"] = shares[2]
            if self.select == "margin":
                figures["margin_accuracy"] = shares[3]
            elif self.select == "apgd":
                figures["apgd_accuracy"] = shares[3]
        return figures

    def _further(self, model: nn.Module, positions: Tensor, start: int) -> tuple[int, int]:
        """Count right answers of one batch under one step, and under what else chooses; or 0."""
        if self.threat is None:
            return 0, 0
        single = judged = 0
        generator = seeding.generator(self.seed, f"validation {self.select}", start)
        if self.one_step:
            single = one_step_hits(model, self.images, positions, self.threat)
        if self.select == "margin":
            judged = margin_hits(model, self.images, positions, self.threat, generator)
        elif self.select == "apgd":
            judged = apgd_hits(model, self.images, positions, self.threat, generator)
        return single, judged


def validation_of(
    settings: Settings,
    images: ImageSet,
    positions: Tensor,
    threat: Threat,
    world: World | None = None,
) -> Validation:
    """Return how a run measures its nets.

    Args:
        settings: of the run.
        images: the split that training and validation examples come from.
        positions: (N,) int64, the held-out examples.
        threat: the ball of its attack.
        world: the processes of the run.
    """
    return Validation(
        images,
        positions,
        # Natural training is selected on clean accuracy: under attack it has none.
        threat if settings.attack_steps > 0 else None,
        settings.seed,
        world or World(),
        one_step=settings.attack_steps == 1,
        select=settings.select,
    )


def better(figures: Accuracies, best: Accuracies | None) -> bool:
    """Whether a model beats the best so far; of equals the earlier stays.

    By the attack of `--select`, PGD-10 if that is not measured, clean accuracy without any attack.
    """
    key = next(name for name in (*JUDGED, *reversed(ACCURACIES)) if name in figures)
    return best is None or figures[key] > best[key]


def accuracies(
    model: nn.Module,
    images: ImageSet,
    positions: Tensor,
    threat: Threat | None,
    *,
    steps: int,
    generator: Generator,
) -> tuple[int, int]:
    """Count correct answers of one batch, clean and under PGD's worst iterate.

    Args:
        model: in any mode; evaluated in eval mode.
        images: the data set.
        positions: (B,) which of its examples.
        threat: None leaves the attack out.
        steps: PGD steps of size ε/4.
        generator: of the random start.
    """
    device = next(model.parameters()).device
    x = pixels(images.batch(positions), device)
    y = images.labels[positions].to(device)
    with modes.evaluating(model), torch.no_grad():
        right = correct(model(x), y)
        # Robust means right on both: an attack that undoes an error does not count.
        if threat is None:
            return int(right.sum()), 0
        # The papers select by plain cross-entropy.
        x_adv = pgd.attack(model, x, y, threat, generator=generator, steps=steps, loss="ce")
        return int(right.sum()), int((right & correct(model(x_adv), y)).sum())


def _taken(model: nn.Module, images: ImageSet, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels (B, C, H, W) and classes (B,) of some examples on the model's device."""
    device = next(model.parameters()).device
    return pixels(images.batch(positions), device), images.labels[positions].to(device)


def one_step_hits(model: nn.Module, images: ImageSet, positions: Tensor, threat: Threat) -> int:
    """Count answers of one batch that are right both clean and under FGSM, a step of ε from x.

    Args:
        model: in any mode; evaluated in eval mode.
        images: the data set.
        positions: (B,) which of its examples.
        threat: the ball.
    """
    x, y = _taken(model, images, positions)
    with modes.evaluating(model), torch.no_grad():
        x_adv = pgd.pgd(model, x, y, threat, steps=1, step_size=threat.eps, random_start=False)
        return int((correct(model(x), y) & correct(model(x_adv), y)).sum())


def margin_hits(
    model: nn.Module, images: ImageSet, positions: Tensor, threat: Threat, generator: Generator
) -> int:
    """Count answers right both clean and at the last of ten steps of ε/4 up the logits' margin.

    The margin, max_{c≠y} z_c − z_y, sees past outputs that are soft without being robust, which
    cross-entropy takes for robust. Arguments as of `one_step_hits`; `generator` draws the start.
    """
    x, y = _taken(model, images, positions)
    with modes.evaluating(model), torch.no_grad():
        x_adv = pgd.pgd(model, x, y, threat, steps=STEPS, loss=margin, generator=generator)
        return int((correct(model(x), y) & correct(model(x_adv), y)).sum())


def apgd_hits(
    model: nn.Module, images: ImageSet, positions: Tensor, threat: Threat, generator: Generator
) -> int:
    """Count answers right clean, under APGD-CE and then APGD-T: AutoAttack's first two, shorter.

    With three classes APGD-DLR stands for APGD-T, with two APGD-CE is alone: their losses need
    more. Arguments as of `margin_hits`.
    """
    from advkit.attacks.upstream import autoattack  # only who asks for it loads the package

    x, y = _taken(model, images, positions)
    classes = len(images.classes)
    with modes.evaluating(model), torch.no_grad():
        standing = correct(model(x), y)
        for attack in ("ce", "targeted" if classes > 3 else "dlr")[: classes - 1]:
            rows = standing.nonzero().flatten()
            if not len(rows):
                break
            a, b, steps = x[rows], y[rows], APGD_STEPS
            if attack == "targeted":
                x_adv = autoattack.apgd_targeted(
                    model, a, b, threat, generator, steps=steps, restarts=1, targets=APGD_TARGETS
                )
            else:
                x_adv = autoattack.apgd(
                    model, a, b, threat, generator, loss=attack, steps=steps, restarts=1
                )
            standing[rows] = correct(model(x_adv), y[rows])
        return int(standing.sum())

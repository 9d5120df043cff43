"""Choosing a checkpoint: PGD-10 on examples held out of the training split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Generator, Tensor, nn

from advkit.attacks import pgd
from advkit.formulas.accuracy import correct
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

MEASURED: tuple[Literal["clean_accuracy", "robust_accuracy", "one_step_accuracy"], ...] = (
    *ACCURACIES,
    "one_step_accuracy",
)
"""What a row of the log says of a net, where it was measured."""


class Accuracies(TypedDict, total=False):
    """What a net is chosen by on the validation split, each in [0, 1]."""

    clean_accuracy: float
    robust_accuracy: float


class Measured(Accuracies, total=False):
    """What is measured of a net on the validation split, each in [0, 1]."""

    one_step_accuracy: float


@dataclass(frozen=True)
class Validation:
    """The validation split and how a model is measured on it.

    `threat` is None for natural training, which is selected on clean accuracy. `one_step` adds
    accuracy under FGSM, which catastrophic overfitting raises, for runs that attack with one step.
    """

    images: ImageSet
    positions: Tensor
    threat: Threat | None
    seed: int
    world: World = World()
    one_step: bool = False

    def measure(self, model: nn.Module, between: Callable[[], None]) -> Measured:
        """Return `clean_accuracy` and, as asked for, those under attack, each in [0, 1].

        The noise is the same in every epoch, so that a better figure means a better model.

        Args:
            model: in any mode; measured in eval mode.
            between: called after each batch; may raise to stop. With several processes, which
                share the batches, it is called once at the end.
        """
        hits = [0, 0, 0]
        # Ranks take whole batches in turn: noise is named by a batch's start, whoever draws it.
        for start in range(0, len(self.positions), CHUNK)[self.world.rank :: self.world.size]:
            generator = seeding.generator(self.seed, "validation", start)
            positions = self.positions[start : start + CHUNK]
            counts = accuracies(
                model, self.images, positions, self.threat, steps=STEPS, generator=generator
            )
            single = 0
            if self.threat is not None and self.one_step:
                single = one_step_hits(model, self.images, positions, self.threat)
            hits = [sum(pair) for pair in zip(hits, (*counts, single), strict=True)]
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
        return figures


def better(figures: Accuracies, best: Accuracies | None) -> bool:
    """Whether a model beats the best so far; of equals the earlier stays."""
    key = ACCURACIES["robust_accuracy" in figures]
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


def one_step_hits(model: nn.Module, images: ImageSet, positions: Tensor, threat: Threat) -> int:
    """Count answers of one batch that are right both clean and under FGSM, a step of ε from x.

    Args:
        model: in any mode; evaluated in eval mode.
        images: the data set.
        positions: (B,) which of its examples.
        threat: the ball.
    """
    device = next(model.parameters()).device
    x = pixels(images.batch(positions), device)
    y = images.labels[positions].to(device)
    with modes.evaluating(model), torch.no_grad():
        x_adv = pgd.pgd(model, x, y, threat, steps=1, step_size=threat.eps, random_start=False)
        return int((correct(model(x), y) & correct(model(x_adv), y)).sum())

"""From seconds per step to hours, AutoAttack's time, and what fits a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advkit.formulas import stats

PASSES = {"apgd-ce": (103, 101), "apgd-t": (920, 909), "fab-t": (1829, 900), "square": (5003, 0)}
"""Forward and backward passes that AutoAttack standard (linf) spends on an image that none of its
attacks breaks; counted in the upstream code, ten classes or more."""
COUNTS = (100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)
"""Numbers of test images that a projection looks at, as many as there are."""
SHARES = (1.0, 0.5, 0.25)
"""Shares of the epochs asked for that a budget is tried on."""


@dataclass(frozen=True)
class EvaluationCost:
    """What AutoAttack's passes cost, and on what kind of net.

    `forward` and `gradient` are seconds per image of a forward pass, and of one with the gradient
    for the image. `clean` and `robust` are the accuracies that are assumed, in [0, 1].
    """

    forward: float
    gradient: float
    clean: float
    robust: float

    def seconds(self, n: int) -> float:
        """Return the seconds for n images, passes alone: a lower bound.

        A robust image costs every pass, one that is right when clean but not robust those of
        APGD-CE (which breaks nearly all of them), any other one forward pass.
        """
        # AutoAttack shows an image to each attack in turn until one breaks it.
        every = sum(self._cost(*passes) for passes in PASSES.values())
        first = self._cost(*PASSES["apgd-ce"])
        broken = max(self.clean - self.robust, 0)
        return n * (self.forward + self.robust * every + broken * first)

    def _cost(self, forwards: int, backwards: int) -> float:
        return (forwards - backwards) * self.forward + backwards * self.gradient

    def interval(self, n: int) -> tuple[float, float]:
        """Return the 95 % Wilson interval of the robust accuracy on n images."""
        return stats.wilson(round(self.robust * n), n)


@dataclass(frozen=True)
class Training:
    """Seconds of an epoch with its validation, and the epochs asked for."""

    method: str
    epoch_seconds: float
    epochs: int

    def hours(self, epochs: int | None = None) -> float:
        """Return the hours of so many epochs, all if None."""
        return self.epoch_seconds * (self.epochs if epochs is None else epochs) / 3600


def counts(test: int) -> tuple[int, ...]:
    """Return the numbers of images to project for, up to all of a test set.

    >>> counts(355)
    (100, 200, 355)
    """
    return (*(n for n in COUNTS if n < test), test)


def fitting(
    trainings: Sequence[Training], evaluation: EvaluationCost, sizes: Sequence[int], budget: float
) -> list[dict[str, object]]:
    """Return for each method and share of its epochs the most images whose AutoAttack still fits.

    `n` is None where training and the smallest evaluation together exceed the budget (seconds).
    """
    rows: list[dict[str, object]] = []
    for training in trainings:
        for share in SHARES:
            epochs = max(1, round(training.epochs * share))
            left = budget - training.hours(epochs) * 3600
            affordable = [n for n in sizes if evaluation.seconds(n) <= left]
            rows.append(
                {
                    "method": training.method,
                    "epochs": epochs,
                    "hours": training.hours(epochs),
                    "n": max(affordable, default=None),
                }
            )
    return rows

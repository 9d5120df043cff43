"""Choosing a checkpoint: PGD-10 on examples held out of the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from advkit import seeding
from advkit.data._images import ImageSet
from advkit.evaluate import accuracies
from advkit.threat import Threat

STEPS = 10
CHUNK = 256


@dataclass(frozen=True)
class HeldOut:
    """The validation split and how a model is measured on it.

    `threat` is None for natural training, which is selected on clean accuracy.
    """

    images: ImageSet
    positions: Tensor
    threat: Threat | None
    seed: int

    def measure(self, model: nn.Module, between: Callable[[], None]) -> dict[str, Any]:
        """Return `clean_accuracy` and, with a threat, `robust_accuracy`, each in [0, 1].

        The noise is the same in every epoch, so that a better figure means a better model.

        Args:
            model: in any mode; measured in eval mode.
            between: called after each batch; may raise to stop.
        """
        clean = robust = 0
        for start in range(0, len(self.positions), CHUNK):
            generator = seeding.generator(self.seed, "validation", start)
            positions = self.positions[start : start + CHUNK]
            hits = accuracies(
                model, self.images, positions, self.threat, steps=STEPS, generator=generator
            )
            clean, robust = clean + hits[0], robust + hits[1]
            between()
        figures = {"clean_accuracy": clean / len(self.positions)}
        if self.threat is not None:
            figures["robust_accuracy"] = robust / len(self.positions)
        return figures


def better(figures: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    """Whether a model beats the best so far; of equals the earlier stays."""
    key = "robust_accuracy" if "robust_accuracy" in figures else "clean_accuracy"
    return best is None or figures[key] > best[key]

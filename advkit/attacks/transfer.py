"""PGD on another checkpoint's gradients (--surrogate), judged on the model."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor, nn

from advkit.attacks import pgd
from advkit.formulas.threat import Threat
from advkit.runtime import modes

NEEDS = ("surrogate",)
LIMITS = {"steps": "[1, 1e5]", "restarts": "[1, 1e4]"}


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    surrogate: nn.Module,
    steps: int = 20,
    step_size: str = "eps/4",
    restarts: int = 1,
    loss: Literal["scaled-ce", "ce"] = "scaled-ce",
) -> Tensor:
    """Return the image that hurts the surrogate most, for each example, (B, C, H, W).

    The model is never asked: of the iterates, misclassification by the surrogate comes first,
    then the loss.

    Args:
        steps: gradient steps.
        step_size: in pixel space, or a share of ε such as eps/4.
        restarts: random starts; the worst is kept for each example.
        loss: scaled-ce is cross-entropy of logits brought to one spread, ce the plain one.

    Source: Papernot et al., "Practical black-box attacks", ASIA CCS 2017.
    """
    with modes.evaluating(surrogate):
        return pgd.attack(
            surrogate,
            x,
            y,
            threat,
            generator=generator,
            steps=steps,
            step_size=step_size,
            restarts=restarts,
            loss=loss,
        )

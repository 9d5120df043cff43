"""Auto-PGD on cross-entropy: no step size to choose (AutoAttack's first)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from advkit.attacks.upstream import autoattack
from advkit.formulas.threat import Threat

LIKE_AUTOATTACK = True
LIMITS = {"steps": "[1, 1e5]", "restarts": "[1, 1e4]"}


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    steps: int = 100,
    restarts: int = 1,
) -> Tensor:
    """Return misclassified images where it succeeds, clean ones elsewhere, (B, C, H, W).

    The noise follows from the generator's initial seed alone, as upstream's from its seed.
    In l1 a restart goes through 3ε and 2ε before ε.

    Args:
        steps: gradient steps of each restart.
        restarts: random starts.

    Raises:
        UsageError: fewer than three steps in l1.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness", ICML 2020.
    """
    return autoattack.apgd(
        model, x, y, threat, generator, loss="ce", steps=steps, restarts=restarts
    )


def highest(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    steps: int = 100,
    restarts: int = 1,
) -> Tensor:
    """Return each example's iterate of highest loss, also of examples wrong when clean."""
    return autoattack.apgd(
        model, x, y, threat, generator, loss="ce", steps=steps, restarts=restarts, highest=True
    )

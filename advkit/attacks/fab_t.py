"""Targeted FAB: the nearest point over the decision boundary, a class at a time."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from advkit.attacks.upstream import autoattack
from advkit.formulas.threat import Threat

LIKE_AUTOATTACK = True
LIMITS = {"steps": "[1, 1e5]", "restarts": "[1, 1e4]", "targets": "[1, 1e5]"}


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
) -> Tensor:
    """Return misclassified images where it succeeds, clean ones elsewhere, (B, C, H, W).

    The noise follows from the generator's initial seed alone, as upstream's from its seed.
    The first restart begins at the clean image, without noise.

    Args:
        steps: gradient steps of each restart on each target.
        restarts: random starts.
        targets: most likely other classes aimed at in turn; at most C − 1.

    Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
    attack", ICML 2020.
    """
    return autoattack.fab_targeted(
        model, x, y, threat, generator, steps=steps, restarts=restarts, targets=targets
    )

"""Auto-PGD on the targeted DLR loss, one target class after another."""

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
    In l1 a restart goes through 3ε and 2ε before ε.

    Args:
        steps: gradient steps of each restart on each target.
        restarts: random starts.
        targets: most likely other classes aimed at in turn; at most C − 1.

    Raises:
        UsageError: fewer than four classes, or fewer than three steps in l1.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness", ICML 2020.
    """
    return autoattack.apgd_targeted(
        model, x, y, threat, generator, steps=steps, restarts=restarts, targets=targets
    )

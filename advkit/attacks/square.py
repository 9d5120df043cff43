"""Square: random search over square patches, without gradients."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from advkit.attacks.upstream import autoattack
from advkit.formulas.threat import Threat

LIKE_AUTOATTACK = True
LIMITS = {"queries": "[1, 1e7]", "restarts": "[1, 1e4]"}


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generator: Generator,
    queries: int = 5000,
    restarts: int = 1,
) -> Tensor:
    """Return misclassified images where it succeeds, clean ones elsewhere, (B, C, H, W).

    The noise follows from the generator's initial seed alone, as upstream's from its seed.
    The size of the patches falls as AutoAttack has it, whatever the number of queries.

    Args:
        queries: forward passes of each restart.
        restarts: random starts.

    Source: Andriushchenko et al., "Square Attack", ECCV 2020.
    """
    return autoattack.square(model, x, y, threat, generator, queries=queries, restarts=restarts)

"""Noise in ADR's teacher, to see whether the method rests on one that can be trusted.

Nothing here imports torch before there is something to corrupt, so that a mistyped option is
refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from advkit.errors import UsageError
from advkit.runtime.memory import moved

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

KINDS = ("weights", "logits")
LARGEST = 1e6
"""σ at most: what was told is drowned long before."""


def parse(text: str) -> tuple[str, float]:
    """Read `KIND:SIGMA`.

    >>> parse("weights:0.1")
    ('weights', 0.1)

    Raises:
        UsageError: another kind, or σ not a number from 0 on.
    """
    kind, _, number = text.partition(":")
    try:
        sigma = float(number)
    except ValueError:
        sigma = math.nan
    if kind not in KINDS or not 0 <= sigma <= LARGEST:
        raise UsageError(
            f"--teacher-noise {text}: weights:SIGMA or logits:SIGMA with SIGMA from 0 to "
            f"{LARGEST:g}, for example weights:0.1"
        )
    return kind, sigma


def answer(
    teacher: nn.Module,
    x: Tensor,
    text: str,
    generator: Generator | None,
    rows: Tensor | None = None,
    total: int = 0,
) -> Tensor:
    """Return the logits (B, C) of a corrupted teacher; the teacher itself stays as it is.

    `weights:σ` adds σ·rms(w)·N(0, 1) to each parameter tensor w, so σ = 1 drowns the weights;
    `logits:σ` adds σ·N(0, 1) to each logit.

    Args:
        teacher: the EMA teacher, in eval mode.
        x: images (B, C, H, W) in [0, 1].
        text: `KIND:SIGMA`.
        generator: of the noise, drawn anew for each call on the generator's device; None is the
            global one of the device of x.
        rows: places (B,) of x in a batch of `total` that processes share.
        total: size of that batch.

    Source: none of the papers; the reliability check that a reader of ADR would ask for.
    """
    import torch

    device = generator.device if generator is not None else x.device

    def noise(shape: Sequence[int], like: Tensor) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device=device)
        return moved(drawn.to(like.dtype), like.device)

    kind, sigma = parse(text)
    # Drawn for the whole batch, so that the noise does not depend on who shares it.
    if kind == "logits":
        logits: Tensor = teacher(x)
        if rows is None:
            return logits + sigma * noise(logits.shape, logits)
        return logits + sigma * noise((total, logits.shape[1]), logits)[moved(rows, x.device)]
    weights = {
        name: w + sigma * w.square().mean().sqrt() * noise(w.shape, w)
        for name, w in teacher.named_parameters()
    }
    outputs: Tensor = torch.func.functional_call(teacher, weights, (x,))
    return outputs

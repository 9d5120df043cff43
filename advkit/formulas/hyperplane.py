"""The nearest point of a hyperplane within the pixel box, in l∞."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 100
"""At most; a handful is usual."""
ROUNDING = 1e-6
"""A step of Newton's method that is less of what is behind it is none."""


def step_linf(points: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Return the step δ of least ‖δ‖∞ with w·(t + δ) = b and t + δ in [0, 1], (N, D).

    Every pixel moves by the same λ against the sign of its weight, or by the room that it has if
    that is less. λ is where Σ |w| min(λ, room) is the gap w·t − b: that sum is concave and
    piecewise linear in λ, so that Newton's method from 0 climbs to the root without
    passing it. Where the box ends before the hyperplane, or where weights or offset are not
    finite (as in the package), every pixel moves by all its room.

    Args:
        points: (N, D) in [0, 1].
        weights: (N, D).
        offsets: (N,).

    >>> step_linf(torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, 1.0]]), torch.tensor([1.8]))
    tensor([[0.3000, 0.1000]])
    """
    gap = (weights * points).sum(1) - offsets
    # Above the hyperplane pixels move against their weights, below it along them.
    signed = torch.where(gap >= 0, weights.T, -weights.T).T
    gap, size = gap.abs(), signed.abs()
    room = torch.where(signed < 0, 1 - points, points)
    # Of a gap that is no number nothing can be solved: all the room, and finite images.
    far = torch.zeros_like(gap).masked_fill(gap.isnan(), torch.inf)
    for _ in range(STEPS):
        here = (size * room.minimum(far[:, None])).sum(1)
        slope = (size * (room > far[:, None])).sum(1)
        # No pixel has room left: the box ends here.
        further = torch.where(slope > 0, far + (gap - here) / slope, far)
        if not bool((further > far * (1 + ROUNDING)).any()):
            break
        far = further.maximum(far)
    moved = room.minimum(far[:, None])
    return torch.where(signed < 0, moved, -moved) * (signed != 0)

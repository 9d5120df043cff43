"""Whether neighbours in an embedding are true ones; piece by piece, in N·PIECE memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 256
"""Rows of a distance matrix that are looked at together."""


def trustworthiness(points: Tensor, embedded: Tensor, k: int) -> float:
    """Return 1 − 2/(N·k·(2N − 3k − 1)) Σ_i Σ_{j near i} max(0, r(i, j) − k), in [0, 1].

    j runs over the k nearest of i in the embedding; r(i, j) is j's rank among the neighbours of i
    by the original distance, 1 + how many are strictly nearer, so that equals do not count
    against it (scikit-learn ranks equals in the order of its sort).

    Args:
        points: (N, C).
        embedded: (N, 2).
        k: neighbours, below N/2.

    Source: Venna and Kaski, "Neighborhood preservation in nonlinear projection methods", 2001.
    """
    n, missed = len(points), 0
    for rows, near in _nearest(embedded, k):
        original = _distances(points, rows)
        # One neighbour of all rows at a time: (B, N) comparisons instead of (B, k, N).
        for column in near.T:
            reached = original.gather(1, column[:, None])
            rank = 1 + (original < reached).sum(1)
            missed += int((rank - k).clamp_min(0).sum())
    return 1 - 2 * missed / (n * k * (2 * n - 3 * k - 1))


def agreement(embedded: Tensor, y: Tensor, k: int) -> float:
    """Return the mean share of the k nearest in the embedding that are of one's own class.

    Args:
        embedded: (N, 2).
        y: (N,) int64.
        k: neighbours, below N.
    """
    same = [(y[near] == y[rows, None]).double().mean(1) for rows, near in _nearest(embedded, k)]
    return float(torch.cat(same).mean())


def _nearest(points: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (rows (B,), their k nearest others (B, k))."""
    for rows in torch.split(torch.arange(len(points)), ROWS):
        yield rows, _distances(points, rows).topk(k, largest=False).indices


def _distances(points: Tensor, rows: Tensor) -> Tensor:
    """Return Euclidean distances of some rows to all, (B, N); to themselves infinity."""
    # Through matrix products, near-equal points would lose the digits that rank them.
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(points[rows], points, compute_mode=exact)
    distances[torch.arange(len(rows)), rows] = torch.inf
    return distances

"""Which examples are for training, for selection, and for trials."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.errors import UsageError
from advkit.runtime import seeding

DEFAULT_SIZE = 1024
"""Examples for validation, unless they are more than a fifth."""


def quotas(counts: Tensor, total: int) -> Tensor:
    """Share `total` out over classes in proportion to `counts`, by largest remainder.

    >>> quotas(torch.tensor([50, 30, 20]), 7).tolist()
    [4, 2, 1]
    """
    exact = counts.double() * total / counts.sum()
    share = exact.floor().long()
    order = (exact - share).sort(descending=True, stable=True).indices
    share[order[: total - int(share.sum())]] += 1
    return share


def validation_size(wanted: int | None, n: int) -> int:
    """Return how many of n training examples are set aside: what was asked for, or a default.

    >>> validation_size(None, 50_000), validation_size(None, 500), validation_size(40, 500)
    (1024, 100, 40)
    """
    return min(DEFAULT_SIZE, n // 5) if wanted is None else wanted


def validation(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Set a class-balanced part aside: (training positions, validation positions), each sorted.

    It depends on the labels, the size and `seed` (`--split-seed`) alone, so that teacher,
    labels and student share it.

    Raises:
        UsageError: the part would be empty or leave nothing to train on.
    """
    if size == 0 < len(labels):  # a share of them that rounds to none
        raise UsageError(f"{len(labels)} training examples are too few to set some aside")
    if not 0 < size < len(labels):
        raise UsageError(f"--val-size {size}: the training split has {len(labels)} examples")
    generator = seeding.generator(seed, "validation split")
    counts = torch.bincount(labels)
    share = quotas(counts, size)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(counts)):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        held_out[members[order[: int(share[label])]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


def first(labels: Tensor, n: int | None) -> Tensor:
    """Return the positions of the first n examples, class balanced, in their order (`--limit`).

    >>> first(torch.tensor([0, 0, 0, 1, 1, 1]), 4).tolist()
    [0, 1, 3, 4]

    Raises:
        UsageError: n is not positive.
    """
    if n is None or n >= len(labels):
        return torch.arange(len(labels))
    if n <= 0:
        raise UsageError(f"--limit {n}: at least one example is needed")
    share = quotas(torch.bincount(labels), n)
    chosen = [
        (labels == label).nonzero().flatten()[: int(count)] for label, count in enumerate(share)
    ]
    return torch.cat(chosen).sort().values

"""Training batches: which examples, in which order, under which view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit import seeding
from advkit.data._augment import apply_views, draw_views
from advkit.data._images import Images, pixels
from advkit.errors import UsageError


@dataclass(frozen=True)
class Batch:
    """One training batch: `index` (B,) positions in the split, `x` (B, C, H, W) float32 in
    [0, 1], `y` (B,) int64, `views` (B, 3).
    """  # noqa: D205

    index: Tensor
    x: Tensor
    y: Tensor
    views: Tensor


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch, each a function of (seed, epoch, step).

    The last, smaller batch of an epoch is dropped: batch normalisation never sees a batch of
    one, and every epoch has the same number of steps.
    """

    images: Images
    positions: Tensor
    size: int
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        if not 0 < self.size <= len(self.positions):
            raise UsageError(
                f"--batch-size {self.size}: there are {len(self.positions)} training examples"
            )

    def __len__(self) -> int:
        return len(self.positions) // self.size

    def order(self, epoch: int) -> Tensor:
        """Return the positions of one epoch in their order, (steps · B,)."""
        generator = seeding.generator(self.seed, "order", epoch)
        shuffled = self.positions[torch.randperm(len(self.positions), generator=generator)]
        return shuffled[: len(self) * self.size]

    def at(self, order: Tensor, epoch: int, step: int) -> Batch:
        """Return one batch of an epoch's order."""
        index = order[step * self.size : (step + 1) * self.size]
        generator = seeding.generator(self.seed, "augment", epoch, step)
        views = draw_views(len(index), self.images.pad, self.images.flip, generator)
        raw = self.images.batch(index).to(self.device)
        x = pixels(apply_views(raw, views, self.images.pad), self.device)
        return Batch(index, x, self.images.labels[index].to(self.device), views)

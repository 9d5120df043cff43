"""Training batches: which examples, in which order, under which view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from advkit import seeding
from advkit.data._augment import apply_views, draw_views, every_view, place_of
from advkit.data._images import Images, pixels
from advkit.errors import UsageError


@dataclass(frozen=True)
class Batch:
    """One training batch: `index` (B,) positions in the split, `x` (B, C, H, W) float32 in
    [0, 1], `y` (B,) int64, `views` (B, 3), `view` (B,) their places in the table of views.
    """  # noqa: D205

    index: Tensor
    x: Tensor
    y: Tensor
    views: Tensor
    view: Tensor


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch, each a function of (seed, epoch, step).

    The last, smaller batch of an epoch is dropped: batch normalisation never sees a batch of
    one, and every epoch has the same number of steps. With a `table` of views (N, V, 3), those
    and no others are drawn; otherwise every crop and flip that the data set declares.
    """

    images: Images
    positions: Tensor
    size: int
    seed: int
    device: torch.device
    table: Tensor | None = None

    @cached_property
    def full(self) -> bool:
        """Whether the table holds every view of every example, in `every_view`'s order."""
        if self.table is None:
            return False
        every = every_view(self.images.pad, self.images.flip)
        return self.table.shape[1:] == every.shape and bool((self.table == every).all())

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
        view = torch.zeros(len(index), dtype=torch.int64)
        pad, flip = self.images.pad, self.images.flip
        if self.table is None or self.full:
            # The same draw with and without a table of all views: the same crops at one seed.
            views = draw_views(len(index), pad, flip, generator)
            if self.table is not None:
                view = place_of(views, pad, flip)
        else:
            view = torch.randint(0, self.table.shape[1], (len(index),), generator=generator)
            views = self.table[index, view]
        raw = self.images.batch(index).to(self.device)
        x = pixels(apply_views(raw, views, self.images.pad), self.device)
        return Batch(index, x, self.images.labels[index].to(self.device), views, view)

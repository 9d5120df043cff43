"""Training batches: which examples, in which order, under which view."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from advkit.errors import AdvkitError, UsageError
from advkit.images.augment import apply_views, draw_views, every_view, place_of
from advkit.images.extra import Extra
from advkit.images.files import Files
from advkit.images.image_set import Images, ImageSet, pixels
from advkit.runtime import seeding, signals
from advkit.runtime.memory import moved

NO_INDEX = -1
RESIDENT = 2**31
"""Bytes of images that may stay on a GPU: TinyImageNet has 1.2 GB, CIFAR 0.15."""


@dataclass(frozen=True)
class Batch:
    """One training batch: `index` (B,) positions in the split (-1 for extra images), `x`
    (B, C, H, W) float32 in [0, 1], `y` (B,) int64, `views` (B, K), `view` (B,) their places in
    the table of views. Where processes share a batch of `total`, `rows` (B,) are this one's places.
    """  # noqa: D205

    index: Tensor
    x: Tensor
    y: Tensor
    views: Tensor
    view: Tensor
    rows: Tensor | None = None
    total: int = 0


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch, each a function of (seed, epoch, step).

    The last, smaller batch of an epoch is dropped, or with `keep` trained on. With a `table` of
    views (N, V, 3), those and no others are drawn; otherwise every view that the data set
    declares. With `extra` images, they are the last `extra.count` of each batch, and an epoch is a
    pass over the others. Of `world` processes each takes its share of both, in the order of `rank`.

    Raises:
        UsageError: there are fewer examples than a batch holds, processes cannot share a batch
            evenly, or the last batch that is kept has one image, which BN cannot normalise.
    """

    images: ImageSet
    positions: Tensor
    size: int
    seed: int
    device: torch.device
    table: Tensor | None = None
    extra: Extra | None = None
    workers: int = 0
    rank: int = 0
    world: int = 1
    keep: bool = False

    @cached_property
    def full(self) -> bool:
        """Whether the table holds every view of every example, in `every_view`'s order."""
        if self.table is None:
            return False
        every = every_view(self.images.pad, self.images.flip)
        return self.table.shape[1:] == every.shape and bool((self.table == every).all())

    def __post_init__(self) -> None:
        if self.own <= 0 or len(self) == 0:
            share = f", {self.own} of a batch theirs" if self.extra else ""
            # With extra data a share decides, which no single number of a batch mends.
            hint = "" if self.extra else f": give --batch-size {len(self.positions)} or less"
            raise UsageError(
                f"--batch-size {self.size}: there are {len(self.positions)} training "
                f"examples{share}{hint}"
            )

        last = self.rest if self.keep else 0
        if last == 1:
            raise UsageError(
                f"--last-batch keep: --batch-size {self.size} leaves one of "
                f"{len(self.positions)} images for it, which batch normalisation cannot train "
                "on: give another --batch-size, or --last-batch drop"
            )
        for count in (self.own, self.size - self.own, last):
            if count % self.world:
                raise UsageError(
                    f"--batch-size {self.size}: {count} images cannot be shared evenly by "
                    f"{self.world} processes"
                )

    @property
    def own(self) -> int:
        """Examples of the data set itself in a batch."""
        return self.size - (self.extra.count if self.extra else 0)

    @property
    def rest(self) -> int:
        """Examples that fill no batch: each epoch leaves out others, or keeps them as its last."""
        return len(self.positions) % self.own

    @property
    def fewest(self) -> int:
        """Images of the smallest batch that this process trains on."""
        least = self.rest if self.keep and self.rest else self.size
        return least // self.world

    def __len__(self) -> int:
        return len(self.positions) // self.own + int(self.keep and self.rest > 0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on; files are decoded ahead by workers.

        Raises:
            InputError: a file cannot be decoded.
        """
        order = self.order(epoch)
        if not isinstance(self.images, Files) or self.workers == 0:
            for step in range(start, len(self)):
                yield self.at(order, epoch, step)
            return
        loader = DataLoader(
            _Decoded(self, order, epoch),
            sampler=range(start, len(self)),
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=_undisturbed,
            generator=torch.Generator(),  # or it draws from the global one
        )
        for step, raw in enumerate(loader, start):
            if isinstance(raw, AdvkitError):
                raise raw
            yield self.at(order, epoch, step, raw)

    def order(self, epoch: int) -> Tensor:
        """Return the positions of one epoch in their order, (steps · own,) or all of them."""
        generator = seeding.generator(self.seed, "order", epoch)
        shuffled = self.positions[torch.randperm(len(self.positions), generator=generator)]
        return shuffled[: len(self) * self.own]

    def at(self, order: Tensor, epoch: int, step: int, raw: Tensor | None = None) -> Batch:
        """Return one batch of an epoch's order; `raw` are its images if decoded already."""
        index, views, view = self.chosen(order, epoch, step)
        if raw is None and isinstance(self.images, Files):
            raw = self.images.seen(index, views)
        if raw is not None:
            raw = moved(raw, self.device)
        else:
            raw = apply_views(self._plain(index), views, self.images.pad)
        y = self.images.labels[index]
        # Places in the global batch: the attack's noise is drawn for all of it.
        own = min(self.own, len(order) - step * self.own)
        rows = self._share(torch.arange(own))
        if self.extra:
            more, labels = self._more(epoch, step)
            raw, y = torch.cat([raw, more]), torch.cat([y, labels])
            index = torch.cat([index, torch.full((len(labels),), NO_INDEX)])
            rows = torch.cat([rows, self._share(torch.arange(own, self.size))])
        x = pixels(raw, self.device)
        if self.world == 1:
            return Batch(index, x, moved(y, self.device), views, view)
        total = own + self.size - self.own
        return Batch(index, x, moved(y, self.device), views, view, rows, total)

    @cached_property
    def resident(self) -> Tensor | None:
        """All images (N, C, H, W) uint8 on a GPU, where they are few enough to stay there."""
        if self.device.type == "cpu" or not isinstance(self.images, Images):
            return None
        images = self.images.images
        return images.to(self.device) if images.nbytes <= RESIDENT else None

    def _plain(self, index: Tensor) -> Tensor:
        """Return the plain images (B, C, H, W) uint8 on the device."""
        if self.resident is None:
            return moved(self.images.batch(index), self.device)
        return self.resident[moved(index, self.device)]

    def _share(self, rows: Tensor) -> Tensor:
        """Return this process's share of rows of the global batch."""
        return rows.chunk(self.world)[self.rank]

    def chosen(self, order: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return this process's index (B,), views (B, K) and their places in the table (B,).

        They are drawn for the global batch, so that they do not depend on who shares it.
        """
        index, views, view = self._drawn(order, epoch, step)
        return self._share(index), self._share(views), self._share(view)

    def _drawn(self, order: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        index = order[step * self.own : (step + 1) * self.own]
        generator = seeding.generator(self.seed, "augment", epoch, step)
        view = torch.zeros(len(index), dtype=torch.int64)
        if self.table is not None and not self.full:
            view = torch.randint(0, self.table.shape[1], (len(index),), generator=generator)
            return index, self.table[index, view], view
        # The same draw with and without a table of all views: the same crops at one seed.
        views = self.images.draw(len(index), generator)
        if self.table is not None:
            view = place_of(views, self.images.pad, self.images.flip)
        return index, views, view

    def _more(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        assert self.extra is not None
        images = self.extra.images
        index = self.extra.positions(epoch * len(self) + step)
        generator = seeding.generator(self.seed, "extra augment", epoch, step)
        views = self._share(draw_views(len(index), images.pad, images.flip, generator))
        index = self._share(index)
        raw = apply_views(moved(images.batch(index), self.device), views, images.pad)
        return raw, images.labels[index]


class _Decoded(Dataset[Tensor | AdvkitError]):
    """The decoded images of each step of an epoch; an error travels as a value, in one line."""

    def __init__(self, batches: Batches, order: Tensor, epoch: int) -> None:
        self.batches, self.order, self.epoch = batches, order, epoch

    def __getitem__(self, step: int) -> Tensor | AdvkitError:
        index, views, _ = self.batches.chosen(self.order, self.epoch, step)
        try:
            return self.batches.images.seen(index, views)
        except AdvkitError as error:
            return error


def _undisturbed(_: int) -> None:
    """Leave signals to the parent, which saves its state and then ends its workers."""
    for signum in signals.HANDLED:
        signal.signal(signum, signal.SIG_IGN)

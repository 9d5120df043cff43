"""Training batches: which examples, in which order, under which view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from advkit.errors import UsageError
from advkit.images.ahead import Ahead
from advkit.images.augment import CROP_FLIP, Augmentation, apply_views, every_view, place_of
from advkit.images.extra import Extra, Joined
from advkit.images.files import Files
from advkit.images.image_set import Images, ImageSet, pixels
from advkit.runtime import seeding
from advkit.runtime.memory import moved

CPU = torch.device("cpu")
NO_INDEX = -1
RESIDENT = 2**31
"""Bytes of images that may stay on a GPU: TinyImageNet has 1.2 GB, CIFAR 0.15."""


@dataclass(frozen=True)
class Batch:
    """One training batch: `index` (B,) positions in the split (-1 for extra images), `x`
    (B, C, H, W) float32 in [0, 1], `y` (B,) int64, `views` (B, K), `view` (B,) their places in
    the table of views. Where processes share a batch of `total`, `rows` (B,) are this one's places.
    Of mixed images `mix` says of which, and `y` is the class of the larger share.
    """  # noqa: D205

    index: Tensor
    x: Tensor
    y: Tensor
    views: Tensor
    view: Tensor
    rows: Tensor | None = None
    total: int = 0
    mix: Mix | None = None

    def at(self, places: Tensor) -> Batch:
        """Return the batch of examples at given places (B,)."""
        there = moved(places, self.x.device)
        # Extra images have no view, and no label that is stored.
        viewed = len(self.views) == len(self.y)
        views, view = (self.views[places], self.view[places]) if viewed else (self.views, self.view)
        return Batch(
            self.index[places], self.x[there], self.y[there], views, view, places, len(self.y)
        )


@dataclass(frozen=True)
class Mix:
    """What mixed images are made of: pairs from two batches, and the `weight` (B,) of the first.

    Both have the images as they were before they were mixed: a label source is asked for both.
    """

    first: Batch
    second: Batch
    weight: Tensor

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        """Return rows (B, C), mixed as the images are."""
        weight = moved(self.weight.to(first.dtype), first.device)[:, None]
        return weight * first + (1 - weight) * second


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch, each a function of (seed, epoch, step).

    The last, smaller batch of an epoch is dropped, or with `keep` trained on. With a `table` of
    views (N, V, 3), those and no others are drawn; otherwise what the `augmentation` draws: every
    view that the data set declares, where none is given. With `extra` images, they are the last
    `extra.count` of each batch, and an epoch is a pass over the others. Of `world` processes each
    takes its share of both, in the order of `rank`.

    Files are decoded, and images changed one by one, on the CPU: by `workers` processes ahead of
    the steps, which end with `close`, or with none of them by this one. Nothing is made beyond the
    `epochs` of the run, where they are known.

    Raises:
        UsageError: there are fewer examples than a batch holds, processes cannot share a batch
            evenly, the last batch that is kept has one image, which BN cannot normalise, or the
            table has no labels for what the augmentation draws.
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
    augmentation: Augmentation = CROP_FLIP
    epochs: int | None = None

    @cached_property
    def full(self) -> bool:
        """Whether the table holds every view of every example, in `every_view`'s order."""
        if self.table is None:
            return False
        every = every_view(self.images.pad, self.images.flip)
        return self.table.shape[1:] == every.shape and bool((self.table == every).all())

    def __post_init__(self) -> None:
        self._require_drawable()
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

    def _require_drawable(self) -> None:
        """Refuse images of a shape that the augmentation refuses, and views without a label."""
        images = self.images
        self.augmentation.draw(
            0, images.shape, seeding.generator(self.seed, "none"), images.pad, images.flip
        )
        name = self.augmentation.name
        if self.table is None or name == CROP_FLIP.name:
            return
        ways = "give labels of the plain image (--views 1), which serve whatever is drawn, or"
        if not self.augmentation.views:
            raise UsageError(
                f"--augment {name}: the labels file holds labels of crops and flips, not of what "
                f"{name} makes of an image: {ways} --teacher"
            )
        if not self.full:
            raise UsageError(
                f"--augment {name}: the labels file has {self.table.shape[1]} of "
                f"{len(every_view(self.images.pad, self.images.flip))} views, perhaps not the one "
                f"that is drawn: {ways} --views all"
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
        """Yield the batches of an epoch from a step on; workers make their images ahead.

        Raises:
            InputError: a file cannot be decoded.
        """
        order = self.order(epoch)
        for step in range(start, len(self)):
            made = self.ahead.take(epoch, step) if self.beforehand and self.workers else None
            yield self.at(order, epoch, step, made)

    @property
    def beforehand(self) -> bool:
        """Whether images are made on the CPU, by workers if there are any, and sent when whole.

        Then they are the same on every device and for any number of workers.
        """
        return isinstance(self.images, Files) or self.augmentation.by_image

    @cached_property
    def ahead(self) -> Ahead:
        """What makes images ahead of the steps; its workers start with the first one."""
        # A copy without workers: it may be pickled on the way to them.
        return Ahead(_Made(replace(self, workers=0)), len(self), self.workers, self.epochs)

    def close(self) -> None:
        """End the workers, if there are any; asked for more batches, others would start."""
        if "ahead" in self.__dict__:
            self.ahead.close()
            del self.__dict__["ahead"]

    def order(self, epoch: int) -> Tensor:
        """Return the positions of one epoch in their order, (steps · own,) or all of them."""
        generator = seeding.generator(self.seed, "order", epoch)
        shuffled = self.positions[torch.randperm(len(self.positions), generator=generator)]
        return shuffled[: len(self) * self.own]

    def at(self, order: Tensor, epoch: int, step: int, made: Tensor | None = None) -> Batch:
        """Return one batch of an epoch's order; `made` are its images if workers made them."""
        index, views, view = self.chosen(order, epoch, step)
        raw = moved(self.raw(order, epoch, step) if made is None else made, self.device)
        y = self.images.labels[index]
        # Places in the global batch: the attack's noise is drawn for all of it.
        own = min(self.own, len(order) - step * self.own)
        rows = self._share(torch.arange(own))
        if self.extra:
            labels = self.extra.images.labels[self._needed(self._extra(epoch, step))]
            y = torch.cat([y, labels])
            index = torch.cat([index, torch.full((len(labels),), NO_INDEX)])
            rows = torch.cat([rows, self._share(torch.arange(own, self.size))])
        if self.augmentation.mixed is not None:
            whole = Batch(index, pixels(raw, self.device), moved(y, self.device), views, view)
            return self._mixed(whole, raw, rows, epoch, step)
        x = pixels(raw, self.device)
        if self.world == 1:
            return Batch(index, x, moved(y, self.device), views, view)
        total = own + self.size - self.own
        return Batch(index, x, moved(y, self.device), views, view, rows, total)

    def raw(self, order: Tensor, epoch: int, step: int) -> Tensor:
        """Return a step's images (B, C, H, W) uint8, augmented but not yet mixed."""
        index, views, _ = self.chosen(order, epoch, step)
        if isinstance(self.images, Files):
            raw = self.decoded(index, views)
        else:
            raw = self._viewed(self._plain(index), views, self.images.pad)
        raw = self._augmented(raw, self.images, ("augmentation", epoch, step))
        return torch.cat([raw, self._more(epoch, step)]) if self.extra else raw

    def _mixed(self, whole: Batch, raw: Tensor, rows: Tensor, epoch: int, step: int) -> Batch:
        """Return this process's rows of the global batch, mixed with partners from all of it."""
        augmentation, images = self.augmentation, self.images
        assert augmentation.mixed is not None
        generator = seeding.generator(self.seed, "augmentation", epoch, step)
        drawn = augmentation.draw(len(raw), images.shape, generator, images.pad, images.flip)
        partner, weight = (one[rows] for one in augmentation.mixed(drawn, images.shape))
        x = pixels(augmentation.apply(raw, drawn, images.pad), self.device)
        first, second = whole.at(rows), whole.at(partner)
        major = torch.where(moved(weight < 0.5, self.device), second.y, first.y)
        mix = Mix(first, second, weight)
        mixed = replace(first, x=x[moved(rows, self.device)], y=major, mix=mix)
        return replace(mixed, rows=None, total=0) if self.world == 1 else mixed

    @cached_property
    def resident(self) -> Tensor | None:
        """All images (N, C, H, W) uint8 on a GPU, where they are few enough to stay there."""
        if self._place.type == "cpu" or not isinstance(self.images, Images):
            return None
        images = self.images.images
        return images.to(self.device) if images.nbytes <= RESIDENT else None

    def _plain(self, index: Tensor) -> Tensor:
        """Return the plain images (B, C, H, W) uint8 on the device."""
        if self.resident is None:
            return moved(self.images.batch(index), self._place)
        return self.resident[moved(index, self._place)]

    @property
    def _place(self) -> torch.device:
        """Where images are changed."""
        return CPU if self.beforehand else self.device

    def decoded(self, index: Tensor, views: Tensor) -> Tensor:
        """Return images of files (B, C, H, W) uint8: their random crops, or the plain ones."""
        cropped = self.augmentation.cropped
        return self.images.seen(index, views) if cropped else self.images.batch(index)

    def _views(self, n: int, images: ImageSet | Joined, generator: Generator) -> Tensor:
        """Draw the n views (n, K) that come before all else."""
        if self.augmentation.views and not isinstance(images, Files):
            return self.augmentation.draw(n, images.shape, generator, images.pad, images.flip)
        if self.augmentation.cropped:
            return images.draw(n, generator)
        return torch.zeros(n, 0, dtype=torch.uint8)

    def _viewed(self, raw: Tensor, views: Tensor, pad: int) -> Tensor:
        """Return images in memory under their views."""
        if self.augmentation.views:
            return self.augmentation.apply(raw, views, pad)
        return apply_views(raw, views, pad) if self.augmentation.cropped else raw

    def _augmented(
        self, raw: Tensor, images: ImageSet | Joined, stream: tuple[str, int, int]
    ) -> Tensor:
        """Return this process's images changed by what is drawn after the views, if anything is.

        It is drawn for the global batch, from a stream of its own: crops stay what they are.
        """
        if self.augmentation.views or self.augmentation.mixed is not None:
            return raw
        generator = seeding.generator(self.seed, *stream)
        n = len(raw) * self.world
        drawn = self.augmentation.draw(n, images.shape, generator, images.pad, images.flip)
        return self.augmentation.apply(raw, self._share(drawn), images.pad)

    def _share(self, rows: Tensor) -> Tensor:
        """Return this process's share of rows of the global batch."""
        return rows.chunk(self.world)[self.rank]

    def chosen(self, order: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return this process's index (B,), views (B, K) and their places in the table (B,).

        They are drawn for the global batch, so that they do not depend on who shares it. Where
        images are mixed they are the global batch's, in which partners are.
        """
        index, views, view = self._drawn(order, epoch, step)
        return self._needed(index), self._needed(views), self._needed(view)

    def _needed(self, rows: Tensor) -> Tensor:
        """Return the rows of the global batch that this process reads: its share, or all to mix."""
        return self._share(rows) if self.augmentation.mixed is None else rows

    def _drawn(self, order: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        index = order[step * self.own : (step + 1) * self.own]
        generator = seeding.generator(self.seed, "augment", epoch, step)
        view = torch.zeros(len(index), dtype=torch.int64)
        if self.table is not None and not self.full:
            view = torch.randint(0, self.table.shape[1], (len(index),), generator=generator)
            return index, self.table[index, view], view
        # The same draw with and without a table of all views: the same crops at one seed.
        views = self._views(len(index), self.images, generator)
        if self.table is not None:
            view = place_of(views, self.images.pad, self.images.flip)
        return index, views, view

    def _extra(self, epoch: int, step: int) -> Tensor:
        """Return the positions of the global batch's extra images."""
        assert self.extra is not None
        return self.extra.positions(epoch * len(self) + step)

    def _more(self, epoch: int, step: int) -> Tensor:
        """Return the extra images (B, C, H, W) uint8, augmented."""
        assert self.extra is not None
        images = self.extra.images
        index = self._extra(epoch, step)
        generator = seeding.generator(self.seed, "extra augment", epoch, step)
        views = self._needed(self._views(len(index), images, generator))
        raw = moved(images.batch(self._needed(index)), self._place)
        raw = self._viewed(raw, views, images.pad)
        return self._augmented(raw, images, ("extra augmentation", epoch, step))


class _Made:
    """The images of a step, as a worker makes them; it keeps the order of their epoch."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, epoch: int, step: int) -> Tensor:
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.batches.order(epoch)
        return self.batches.raw(self.order, epoch, step)

"""Images of batches made by worker processes, ahead of the steps that take them.

The workers live from the first batch that is asked for to the last, and go on across the end of an
epoch: while a net is validated, they make the first batches of the next epoch.
"""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from advkit.errors import AdvkitError
from advkit.images.augment import Augmentation
from advkit.images.files import Files
from advkit.images.image_set import ImageSet
from advkit.parallel import ranks
from advkit.runtime import signals

Place = tuple[int, int]
"""Epoch and step of a batch, both from 0 on."""
Made = Tensor | AdvkitError
"""Images (B, C, H, W) uint8, or why there are none: an error travels as a value, in one line."""


def workers(
    wanted: int | None, images: ImageSet, augmentation: Augmentation, device: torch.device
) -> int:
    """Return how many processes make images: those that are wanted, or one a core.

    Images in memory are left to the process that trains where that works on the CPU itself: others
    would take its cores.
    """
    if wanted is not None:
        return wanted
    many = isinstance(images, Files) or (augmentation.by_image and device.type != "cpu")
    return ranks.cores() if many else 0


class Ahead:
    """Makes the images of steps in `workers` processes, up to two batches a worker ahead."""

    def __init__(
        self, make: Callable[[int, int], Tensor], steps: int, workers: int, epochs: int | None
    ) -> None:
        """Start nothing yet.

        Args:
            make: gives the images of an epoch's step; it is sent to the workers.
            steps: steps of an epoch.
            workers: processes, at least 1.
            epochs: of the run; nothing is made beyond, where it is known.
        """
        self._course = _Course(steps, epochs)
        self._loader: DataLoader[Made] = DataLoader(
            _Making(make),
            sampler=self._course,
            batch_size=None,
            num_workers=workers,
            persistent_workers=True,
            worker_init_fn=_undisturbed,
            generator=torch.Generator(),  # or it draws from the global one
        )
        self._made: Iterator[Made] | None = None
        self._next: Place | None = None
        self._end: weakref.finalize[[Iterator[Made]], Ahead] | None = None

    def take(self, epoch: int, step: int) -> Tensor:
        """Return the images of a step; the steps after it are made meanwhile.

        Raises:
            AdvkitError: as `make` does.
        """
        made = None
        if self._made is not None and self._next == (epoch, step):
            made = next(self._made, None)  # None after what was thought to be the last epoch
        if made is None:
            made = next(self._begun(epoch, step))
        self._next = self._course.after(epoch, step)
        if isinstance(made, AdvkitError):
            raise made
        return made

    def _begun(self, epoch: int, step: int) -> Iterator[Made]:
        """Let the workers go on from another step; what they had made for others is dropped."""
        self._course.begin = epoch, step
        self._made = iter(self._loader)
        if self._end is None:
            # Not left to the garbage collector: the traceback of an error would keep them alive,
            # and the end of the process would wait for what leaves signals to it.
            self._end = weakref.finalize(self, _shut, self._made)
        return self._made

    def close(self) -> None:
        """End the workers, each when it is done with its batch; nothing can be taken any more."""
        if self._end is not None:
            self._end()
        self._made = self._next = self._end = None


def _shut(made: Iterator[Made]) -> None:
    end = getattr(made, "_shutdown_workers", None)  # torch has no public name for it
    if end is not None:
        end()


class _Course(Sampler[Place]):
    """The steps of all epochs in their order, from `begin` on."""

    def __init__(self, steps: int, epochs: int | None) -> None:
        self.steps, self.epochs = steps, epochs
        self.begin: Place = 0, 0

    def __iter__(self) -> Iterator[Place]:
        place = self.begin
        # An epoch that is asked for is made, whatever was thought to be the last.
        last = None if self.epochs is None else max(self.epochs, place[0] + 1)
        while last is None or place[0] < last:
            yield place
            place = self.after(*place)

    def after(self, epoch: int, step: int) -> Place:
        """Return the place that follows."""
        return (epoch, step + 1) if step + 1 < self.steps else (epoch + 1, 0)


class _Making(Dataset[Made]):
    def __init__(self, make: Callable[[int, int], Tensor]) -> None:
        self.make = make

    def __getitem__(self, place: Place) -> Made:
        try:
            return self.make(*place)
        except AdvkitError as error:
            return error


def _undisturbed(_: int) -> None:
    """Leave signals to the parent, which saves its state and then ends its workers."""
    for signum in signals.HANDLED:
        signal.signal(signum, signal.SIG_IGN)

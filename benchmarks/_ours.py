"""A training run of advkit on random images, set up as the command line does, to be timed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from advkit.config import resolve
from advkit.images.image_set import Images
from advkit.runtime import memory
from advkit.runtime.reporting import Reporter
from advkit.training.trainer import Trainer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def images(count: int, size: int = 32, classes: int = 10) -> Images:
    """Random images of CIFAR-10's form."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
    names = tuple(map(str, range(classes)))
    labels = torch.arange(count) % classes
    return Images("cifar10", "train", pixels, labels, names, 4, True, (MEAN, STD))


def trainer(
    flags: dict[str, object], count: int, threads: int, size: int = 32, device: str = "cpu"
) -> Trainer:
    """Return a trainer; all but `flags` are the method's defaults, on that kind of device."""
    torch.set_num_threads(threads)
    memory.keep()
    given = {"data": "cifar10", "arch": "resnet18", "lr": 0.01, **flags}
    place = torch.device(device)
    settings = resolve.resolve((given, "benchmark")).on(place.type).settings
    return Trainer(
        settings,
        images(count, size),
        device=place,
        threads=threads,
        reporter=Reporter(),
    )


def step(flags: dict[str, object], count: int, threads: int) -> Callable[[], None]:
    """Return one training step, its batch drawn, augmented and counted, as a function."""
    learning = trainer(flags, count, threads)
    order = learning.batches.order(0)

    def run() -> None:
        learning.step(learning.batches.at(order, 0, 0), 0, 0)

    return run

"""What `advkit bench` trains on: random images and labels of a data set's form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit import data, registry
from advkit.config.settings import Settings
from advkit.images.batches import Batch
from advkit.images.image_set import Images
from advkit.runtime import memory, seeding
from advkit.training.selection import CHUNK


@dataclass(frozen=True)
class Facts:
    """Sizes of a data set: examples of both splits, classes, and (channels, height, width).

    `held_out` of the training examples are a validation split of the set's own.
    """

    train: int
    test: int
    classes: int
    shape: tuple[int, int, int]
    held_out: int = 0


def facts(settings: Settings, root: str | None) -> Facts:
    """Return the published sizes of a data set, or those of its files.

    Raises:
        InputError, UsageError: neither is there.
    """
    published = registry.part("data", settings.data_name).constants.get("PUBLISHED")
    options = settings.options_of("data")
    if published:
        side = options.get("image_size") or published["size"]
        shape = (published["channels"], side, side)
        return Facts(published["train"], published["test"], published["classes"], shape)
    train, test = (data.load(settings.data, s, root=root, **options) for s in ("train", "test"))
    sizes = len(train.labels), len(test.labels), len(train.classes)
    return Facts(*sizes, train.shape, train.held_out)


def synthetic(settings: Settings, facts: Facts) -> Images:
    """Return random images of a data set's form, enough for a batch of training or validation."""
    count = max(settings.batch_size, CHUNK)
    draw = seeding.generator(settings.seed, "bench")
    pixels = torch.randint(0, 256, (count, *facts.shape), dtype=torch.uint8, generator=draw)
    names = tuple(map(str, range(facts.classes)))
    labels = torch.arange(count) % facts.classes
    return Images(settings.data_name, "train", pixels, labels, names, 4, True)


class Answers:
    """Stands for a labels file: logits (N, C) kept in memory."""

    def __init__(self, images: Images) -> None:
        draw = seeding.generator(0, "bench labels")
        self.logits = torch.randn(len(images.labels), len(images.classes), generator=draw)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the logits (B, C) of a batch."""
        return memory.moved(self.logits[batch.index], batch.x.device)

"""What a run learns from: its split, and the soft labels and extra images beside it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from advkit.artifacts import provenance
from advkit.artifacts.descriptions import Checkpoint
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.images import extra as extra_data
from advkit.images.extra import Extra
from advkit.images.image_set import ImageSet
from advkit.images.split import first, validation, validation_size
from advkit.runtime.reporting import Reporter
from advkit.softlabels import source as soft_source
from advkit.training.binding import require_digest
from advkit.training.teachers import Teacher

Parents = Sequence[Mapping[str, object]]
"""What a run is made from, as descriptions carry it."""


def split_of(settings: Settings, images: ImageSet) -> tuple[Tensor, Tensor]:
    """Return the positions of the training and of the held-out examples, each sorted."""
    if images.held_out:  # whatever size a teacher was trained with
        own = len(images.labels) - images.held_out
        return first(images.labels[:own], settings.limit), torch.arange(own, len(images.labels))
    limited = first(images.labels, settings.limit)
    size = validation_size(settings.val_size, len(limited))
    training, held_out = validation(images.labels[limited], size, settings.split_seed)
    return limited[training], limited[held_out]


def require_a_batch(settings: Settings, images: ImageSet, training: int, held_out: int) -> None:
    """Refuse a batch that is larger than what is left to train on, saying why and what to type.

    Raises:
        UsageError: it is.
    """
    size, n = settings.batch_size, len(images.labels)
    if training >= size or settings.extra_data is not None or settings.last_batch == "keep":
        return  # what extra images leave of a batch is the batches' own matter
    if images.held_out:
        few = "" if settings.limit is None else f" (--limit {settings.limit})"
        raise UsageError(
            f"--batch-size {size}: there are {training} training examples{few} beside the "
            f"validation split: give --batch-size {training} or less"
        )
    limited = f" (--limit {settings.limit})" if training + held_out < n else ""
    hints = [f"--batch-size {training} or less"]
    if limited:
        every = itertools.count(size)
        least = next(k for k in every if k - validation_size(settings.val_size, k) >= size)
        hints += [f"--limit {least} or more"] if least <= n else []
    raise UsageError(
        f"--batch-size {size}: there are {training} training examples: of "
        f"{training + held_out}{limited}, {held_out} are set aside for validation (--val-size): "
        f"give {', or '.join(hints)}"
    )


def soft_labels(
    settings: Settings, images: ImageSet, device: torch.device, reporter: Reporter
) -> tuple[soft_source.Stored | soft_source.Live | None, Parents, Mapping[str, Teacher]]:
    """Return the source of soft labels, if any, it as a parent, and its net where it has one."""
    if settings.labels != "soft":
        return None, [], {}
    labels, teacher = settings.soft_labels, settings.teacher
    source, info = soft_source.load(labels, teacher, images, device, reporter)
    # Again: the configuration may name a digest without the command line having bound it.
    require_digest(settings.labels_digest, "labels", info["digest"], str(labels or teacher))
    nets = {}
    if isinstance(source, soft_source.Live):
        nets["teacher"] = Teacher(source.teacher, cast(Checkpoint, info))
    return source, [provenance.parent(info)], nets


def extra_images(settings: Settings, images: ImageSet) -> tuple[Extra | None, Parents]:
    """Return the stream of extra images, if any, and it as a parent."""
    if settings.extra_data is None:
        return None, []
    digest = extra_data.digest(settings.extra_data)
    require_digest(settings.extra_digest, "extra data", digest, settings.extra_data)
    count = round(settings.batch_size * settings.extra_fraction)
    if count == 0:
        raise UsageError(
            f"--extra-fraction {settings.extra_fraction:g} of --batch-size {settings.batch_size} "
            "is no image"
        )
    stream = Extra(extra_data.read(settings.extra_data, images), count, settings.seed)
    return stream, [provenance.data_parent("extra", "train", digest)]

"""The net that learns, before its first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from advkit import models
from advkit.config.settings import Settings
from advkit.images.image_set import ImageSet, identity
from advkit.training.initial import Initial


def statistics_of(
    settings: Settings, images: ImageSet
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation that the net subtracts and divides by."""
    return images.normalisation if settings.normalise else identity(images.shape[0])


def built(
    settings: Settings, images: ImageSet, device: torch.device, initial: Initial | None
) -> nn.Module:
    """Return the student's net as initialised, or as it was read, on its device."""
    model = models.build(
        settings.arch,
        len(images.classes),
        channels=images.shape[0],
        statistics=initial.statistics if initial else statistics_of(settings, images),
        seed=settings.seed,
        size=images.shape[1],
        **settings.options_of("models"),
    ).to(device)
    if initial:
        model.load_state_dict(dict(initial.tensors))
    if settings.sync_bn:
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        model = convert(model)
    return model

"""AutoAugment: two of its policy's image operations, after crop and flip (Cubuk et al. 2019)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

BY_IMAGE = True
CROPPED = True
_PAIRS = 25
"""Pairs of operations in each of the three policies."""


def draw(n: int, shape: tuple[int, int, int], *, generator: Generator) -> Tensor:
    """Draw n rows (n, 5) float32: a pair of operations, two chances, two signs.

    A pair is uniform over the policy's, 0..24; its operations have a chance in [0, 1) and a sign,
    0 or 1, each.
    """
    pair = torch.randint(0, _PAIRS, (n, 1), generator=generator)
    chances = torch.rand(n, 2, generator=generator)
    signs = torch.randint(0, 2, (n, 2), generator=generator)
    return torch.cat([pair, chances, signs], dim=1)


def apply(
    images: Tensor, drawn: Tensor, *, policy: Literal["cifar10", "svhn", "imagenet"] = "cifar10"
) -> Tensor:
    """Return the images (B, C, H, W) uint8, each under torchvision's operations for its row.

    Args:
        policy: data set whose policy it is.

    Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019
    (arXiv 1805.09501), in torchvision's form: no cutout follows.
    """
    from torchvision import transforms

    class Given(transforms.AutoAugment):  # type: ignore[misc]  # torchvision has no types
        """AutoAugment of given choices: torchvision draws them from the global generator."""

        row: tuple[int, Tensor, Tensor]

        def get_params(self, transform_num: int) -> tuple[int, Tensor, Tensor]:
            """Return pair, chances and signs."""
            return self.row

    change = Given(transforms.AutoAugmentPolicy(policy))
    changed = []
    for image, (pair, *rest) in zip(images, drawn.cpu(), strict=True):
        change.row = int(pair), torch.stack(rest[:2]), torch.stack(rest[2:])
        changed.append(change(image))
    return torch.stack(changed)

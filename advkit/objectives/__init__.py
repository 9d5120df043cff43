"""Objectives: what the inner attack ascends and what the student descends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Given"]


@dataclass(frozen=True)
class Given:
    """What stays fixed while the attack moves the images.

    `y` (B,) int64 are the true classes, `targets` (B, C) the rows of the label source. `clean()`
    gives the student's logits (B, C) on the unperturbed images, without gradient and in the
    attack's mode; it is computed when first asked for, and once.
    """

    y: Tensor
    targets: Tensor
    clean: Callable[[], Tensor]

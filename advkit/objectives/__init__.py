"""Objectives: what the inner attack ascends and what the student descends."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Given:
    """What stays fixed while the attack moves the images.

    `y` (B,) int64 are the true classes, `targets` (B, C) the rows of the label source, `clean`
    (B, C) the student's logits on the unperturbed images, there for objectives that declare
    `NEEDS = ("clean",)`.
    """

    y: Tensor
    targets: Tensor
    clean: Tensor | None = None

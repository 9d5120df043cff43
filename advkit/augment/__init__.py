"""Augmentations: how training images are changed at random before anything else sees them."""

from __future__ import annotations

__all__: list[str] = []

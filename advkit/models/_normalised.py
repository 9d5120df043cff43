"""Normalisation inside nets that were written for normalised images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advkit.errors import UsageError
from advkit.models._blocks import Statistics


class _Normalised:
    """Put before a net's own class: pixels in [0, 1] are normalised first, by its buffers."""

    mean: Tensor
    std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        logits: Tensor = super().forward((x - self.mean) / self.std)  # type: ignore[misc]
        return logits


def normalised(net: nn.Module, statistics: Statistics, name: str) -> nn.Module:
    """Have a net that was written for normalised images take pixels in [0, 1].

    Args:
        net: it is changed in place; its weights keep their names.
        statistics: its buffers `mean` and `std` from now on.
        name: what messages call it.

    Raises:
        UsageError: it has a `mean` or `std` of its own.
    """
    if any(hasattr(net, word) for word in ("mean", "std")):
        raise UsageError(f"{name} has a mean or std of its own")
    for word, values in zip(("mean", "std"), statistics, strict=True):
        net.register_buffer(word, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))
    # Its class and not a wrapper, which would stand before every name.
    kind = type(net)
    net.__class__ = type(kind.__name__, (_Normalised, kind), {})
    return net

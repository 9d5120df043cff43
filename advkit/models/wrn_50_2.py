"""WRN-50-2 in ImageNet form, torchvision's (68.88 M parameters at 1,000 classes)."""

from __future__ import annotations

from torch import nn

from advkit.models._blocks import Statistics
from advkit.models._imagenet import bottlenecks

CHANNELS = (3,)


def build(classes: int, *, channels: int, statistics: Statistics) -> nn.Module:
    """Build the net.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.
    """
    return bottlenecks(classes, statistics, base_width=128)

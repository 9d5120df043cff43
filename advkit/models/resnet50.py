"""ResNet-50 in ImageNet form, torchvision's (25.56 M parameters at 1,000 classes)."""

from __future__ import annotations

from torch import nn

from advkit.models._blocks import Statistics
from advkit.models._imagenet import bottlenecks

CHANNELS = (3,)


def build(classes: int, *, channels: int, statistics: Statistics) -> nn.Module:
    """Build the net.

    Source: He et al., "Deep Residual Learning", CVPR 2016; the stride is on the 3×3 convolution.
    """
    return bottlenecks(classes, statistics, base_width=64)

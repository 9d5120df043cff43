"""ResNet-18 in CIFAR form (11.17 M parameters at width 64)."""

from __future__ import annotations

from torch import nn

from advkit.models._blocks import Statistics
from advkit.models._resnet import ResNet

LIMITS = {"width": "[1, 1024]"}


def build(
    classes: int,
    *,
    channels: int,
    statistics: Statistics,
    width: int = 64,
    activation: str = "relu",
) -> nn.Module:
    """Build four stages of two blocks.

    Args:
        width: channels of the first stage.
        activation: relu or silu.
    """
    return ResNet(classes, channels, statistics, (2, 2, 2, 2), width, activation)

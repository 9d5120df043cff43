"""ResNet-8: three stages of one block, for small images and trials (78 k parameters)."""

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
    width: int = 16,
    activation: str = "relu",
) -> nn.Module:
    """Build three stages of one block.

    Args:
        width: channels of the first stage.
        activation: relu or silu.
    """
    return ResNet(classes, channels, statistics, (1, 1, 1), width, activation)

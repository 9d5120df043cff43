"""A four-layer CNN for 8×8 images: three convolutions and a linear layer (58 k parameters)."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.folding import normed
from advkit.models._blocks import Net, Statistics, conv3x3, pooled
from advkit.models._blocks import activation as activation_of


class SmallCNN(Net):
    """Convolutions of width, 2·width and 2·width channels, each with batch normalisation."""

    def __init__(
        self,
        classes: int,
        channels: int,
        statistics: Statistics,
        width: int,
        act: str,
    ) -> None:
        super().__init__(statistics)
        self.act = activation_of(act)
        self.conv1, self.bn1 = conv3x3(channels, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, 2 * width, 2), nn.BatchNorm2d(2 * width)
        self.conv3, self.bn3 = conv3x3(2 * width, 2 * width), nn.BatchNorm2d(2 * width)
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        out = self.act(normed(self.conv1, self.bn1, self.normalise(x)))
        out = self.act(normed(self.conv2, self.bn2, out))
        out = self.act(normed(self.conv3, self.bn3, out))
        logits: Tensor = self.linear(pooled(out))
        return logits


LIMITS = {"width": "[1, 1024]"}


def build(
    classes: int,
    *,
    channels: int,
    statistics: Statistics,
    width: int = 32,
    activation: str = "relu",
) -> nn.Module:
    """Build the net.

    Args:
        width: channels of the first convolution.
        activation: relu or silu.
    """
    return SmallCNN(classes, channels, statistics, width, activation)

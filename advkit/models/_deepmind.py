"""DeepMind's form of wide and pre-activation residual nets, which ADR's code also uses.

It differs from the original form in three ways: strided convolutions are padded at the right and
lower edge only (TensorFlow's SAME), PreAct's shortcut is a 3×3 convolution on the block's raw
input, and weights start from PyTorch's defaults. Key names are RobustBench's.

Source: Gowal et al., "Uncovering the Limits of Adversarial Training against Norm-Bounded
Adversarial Examples", 2020, and the PyTorch models published with it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from advkit.formulas.folding import normed
from advkit.models._blocks import (
    Net,
    Statistics,
    activation,
    conv3x3,
    pooled,
    stages,
    wide_groups,
)


class SameConv(nn.Conv2d):
    """A 3×3 convolution without bias whose output has ⌈H/stride⌉ × ⌈W/stride⌉ positions.

    The padding of an even side at stride 2 is 0 before and 1 behind, of every other 1 and 1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 3, stride, bias=False)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        height, width = x.shape[-2:]
        top, left = (1, 1) if self.stride[0] == 1 else (height % 2, width % 2)
        padded = F.pad(x, (left, 1, top, 1))
        result: Tensor = super()._conv_forward(padded, weight, bias)
        return result


class WideBlock(nn.Module):
    """A pre-activation block; where the width changes, a 1×1 shortcut on the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_0 = SameConv(inputs, outputs, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_1 = conv3x3(outputs, outputs)
        self.changes = inputs != outputs
        if self.changes:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        out = self.act(self.batchnorm_0(x))
        skip = self.shortcut(out) if self.changes else x
        residual: Tensor = self.conv_1(self.act(normed(self.conv_0, self.batchnorm_1, out)))
        return residual + skip


class WideResNet(Net):
    """Three groups of (depth − 4)/6 blocks with 16·K, 32·K and 64·K channels."""

    def __init__(
        self,
        classes: int,
        channels: int,
        statistics: Statistics,
        depth: int,
        widen: int,
        act: str,
    ) -> None:
        super().__init__(statistics)
        self.act = activation(act)
        self.init_conv = conv3x3(channels, 16)
        self.layer = nn.Sequential(*wide_groups(WideBlock, "block", depth, widen, act))
        self.batchnorm = nn.BatchNorm2d(64 * widen)
        self.logits = nn.Linear(64 * widen, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        out = self.layer(self.init_conv(self.normalise(x)))
        logits: Tensor = self.logits(pooled(self.act(self.batchnorm(out))))
        return logits


class PreActBlock(nn.Module):
    """A pre-activation block; where shapes change, a 3×3 shortcut on the raw input."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_2d_1 = SameConv(inputs, outputs, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_2d_2 = conv3x3(outputs, outputs)
        self.changes = stride != 1 or inputs != outputs
        if self.changes:
            self.shortcut = SameConv(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        skip = self.shortcut(x) if self.changes else x
        out = normed(self.conv_2d_1, self.batchnorm_1, self.act(self.batchnorm_0(x)))
        residual: Tensor = self.conv_2d_2(self.act(out))
        return residual + skip


class PreActResNet18(Net):
    """Four stages of two pre-activation blocks, a last normalisation, and a linear layer."""

    def __init__(
        self,
        classes: int,
        channels: int,
        statistics: Statistics,
        width: int,
        act: str,
    ) -> None:
        super().__init__(statistics)
        self.act = activation(act)
        self.conv_2d = conv3x3(channels, width)
        widths = [width * 2**stage for stage in range(4)]
        layers = stages(PreActBlock, width, widths, [2] * 4, act)
        self.layer_0, self.layer_1, self.layer_2, self.layer_3 = layers
        self.batchnorm = nn.BatchNorm2d(widths[-1])
        self.logits = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        out = self.conv_2d(self.normalise(x))
        out = self.layer_3(self.layer_2(self.layer_1(self.layer_0(out))))
        logits: Tensor = self.logits(pooled(self.act(self.batchnorm(out))))
        return logits

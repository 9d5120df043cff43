"""Post-activation residual nets in CIFAR form: a 3×3 stem, no max-pool, basic blocks.

Source: He et al., "Deep Residual Learning", CVPR 2016; key names as in RobustBench's ResNet.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from advkit.formulas.folding import normed
from advkit.models._blocks import Net, Statistics, activation, conv1x1, conv3x3, pooled, stages


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside an identity or 1×1 shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        out = self.act(normed(self.conv1, self.bn1, x))
        out = normed(self.conv2, self.bn2, out)
        # In place: neither BN nor the sum needs its own output for a gradient.
        return self.act(out.add_(self._kept(x)))

    def _kept(self, x: Tensor) -> Tensor:
        if not len(self.shortcut):
            return x
        conv, norm = self.shortcut
        return normed(conv, norm, x)


class ResNet(Net):
    """Stages of basic blocks whose width doubles and whose resolution halves."""

    def __init__(
        self,
        classes: int,
        channels: int,
        statistics: Statistics,
        blocks: Sequence[int],
        width: int,
        act: str,
    ) -> None:
        super().__init__(statistics)
        self.act = activation(act)
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width * 2**stage for stage in range(len(blocks))]
        self.names = [f"layer{number}" for number in range(1, len(blocks) + 1)]
        for name, layer in zip(
            self.names, stages(BasicBlock, width, widths, blocks, act), strict=True
        ):
            self.add_module(name, layer)
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        out = self.act(normed(self.conv1, self.bn1, self.normalise(x)))
        for name in self.names:
            out = self.get_submodule(name)(out)
        logits: Tensor = self.linear(pooled(out))
        return logits

"""Post-activation residual nets in CIFAR form: a 3×3 stem, no max-pool, basic blocks.

Source: He et al., "Deep Residual Learning", CVPR 2016; key names as in RobustBench's ResNet.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from advkit.formulas.folding import normed
from advkit.models._blocks import Net, activation, conv1x1, conv3x3, pooled


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
        statistics: tuple[Sequence[float], Sequence[float]],
        blocks: Sequence[int],
        width: int,
        act: str,
    ) -> None:
        super().__init__(statistics)
        self.act = activation(act)
        self.stages = len(blocks)
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            layer = nn.Sequential()
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(BasicBlock(inputs, outputs, stride, act))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", layer)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        out = self.act(normed(self.conv1, self.bn1, self.normalise(x)))
        for stage in range(self.stages):
            out = self.get_submodule(f"layer{stage + 1}")(out)
        logits: Tensor = self.linear(pooled(out))
        return logits

"""Wide residual nets WRN-D-K, written `wrn-34-10` (46.16 M parameters)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from advkit.errors import UsageError, unknown
from advkit.formulas.folding import normed
from advkit.models import _deepmind
from advkit.models._blocks import Net, Statistics, conv3x3, pooled, wide_groups
from advkit.models._blocks import activation as activation_of


class WideBlock(nn.Module):
    """A pre-activation block; where the width changes, the shortcut starts after the first BN."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.act = activation_of(act)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.changes = inputs != outputs
        if self.changes:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        out = self.act(self.bn1(x))
        skip = self.convShortcut(out) if self.changes else x
        residual: Tensor = self.conv2(self.act(normed(self.conv1, self.bn2, out)))
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
        self.act = activation_of(act)
        self.conv1 = conv3x3(channels, 16)
        self.block1, self.block2, self.block3 = wide_groups(WideBlock, "layer", depth, widen, act)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, classes)
        # He's initialisation by fan-out, as in the TRADES code; PyTorch's own goes by fan-in.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        out = self.block3(self.block2(self.block1(self.conv1(self.normalise(x)))))
        logits: Tensor = self.fc(pooled(self.act(self.bn1(out))))
        return logits


LIMITS = {"depth": "[10, 1000]", "widen": "[1, 100]"}
_FORMS = {"original": WideResNet, "deepmind": _deepmind.WideResNet}


def build(
    classes: int,
    *,
    channels: int,
    statistics: Statistics,
    depth: int = 34,
    widen: int = 10,
    activation: str = "relu",
    form: Literal["original", "deepmind"] = "original",
) -> nn.Module:
    """Build the net of the TRADES and AWP code with its initialisation, or DeepMind's.

    Args:
        depth: layers, 6·n + 4.
        widen: factor on the width.
        activation: relu or silu.
        form: original, or deepmind as in Gowal et al. 2020.

    Raises:
        UsageError: the depth is not 6·n + 4, or no such form.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UsageError(f"wrn-{depth}-{widen}: the depth must be 6n + 4, for example 28 or 34")
    if form not in _FORMS:
        raise unknown("form", form, _FORMS)
    return _FORMS[form](classes, channels, statistics, depth, widen, activation)

"""PreActResNet-18 in CIFAR form (11.17 M parameters at width 64, DeepMind's form 12.55 M)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from advkit.errors import unknown
from advkit.formulas.folding import normed
from advkit.models import _deepmind
from advkit.models._blocks import Net, Statistics, conv1x1, conv3x3, pooled, stages
from advkit.models._blocks import activation as activation_of


class PreActBlock(nn.Module):
    """Normalise and activate before each 3×3 convolution; a 1×1 shortcut where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.act = activation_of(act)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.changes = stride != 1 or inputs != outputs
        if self.changes:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        out = self.act(self.bn1(x))
        skip = self.shortcut(out) if self.changes else x
        residual: Tensor = self.conv2(self.act(normed(self.conv1, self.bn2, out)))
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
        self.act = activation_of(act)
        self.conv1 = conv3x3(channels, width)
        widths = [width * 2**stage for stage in range(4)]
        layers = stages(PreActBlock, width, widths, [2] * 4, act)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        out = self.conv1(self.normalise(x))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(pooled(self.act(self.bn(out))))
        return logits


LIMITS = {"width": "[1, 1024]"}
_FORMS = {"original": PreActResNet18, "deepmind": _deepmind.PreActResNet18}


def build(
    classes: int,
    *,
    channels: int,
    statistics: Statistics,
    width: int = 64,
    activation: str = "relu",
    form: Literal["original", "deepmind"] = "original",
) -> nn.Module:
    """Build the net of "Overfitting in adversarially robust deep learning", or DeepMind's.

    Args:
        width: channels of the first stage.
        activation: relu or silu.
        form: original, or deepmind as in Gowal et al. 2020.

    Raises:
        UsageError: no such form.

    Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """
    if form not in _FORMS:
        raise unknown("form", form, _FORMS)
    return _FORMS[form](classes, channels, statistics, width, activation)

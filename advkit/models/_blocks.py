"""What the architectures share: normalisation inside the net, and the choice of activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advkit.errors import unknown

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {"relu": F.relu, "silu": F.silu}


class Net(nn.Module):
    """A net that takes pixels in [0, 1] and normalises them itself.

    `mean` and `std` are buffers of the net, so that a plain state dict holds all it needs and
    no wrapper changes the key names. Beside another base class, that one gets `options`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: tuple[Sequence[float], Sequence[float]], **options: Any) -> None:
        super().__init__(**options)
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x − mean) / std per channel."""
        return (x - self.mean) / self.std


def activation(name: str) -> Activation:
    """Return an activation function by name.

    Raises:
        UsageError: no such activation.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a padded 3×3 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class SubsampledConv(nn.Conv2d):
    """A strided 1×1 convolution that drops the pixels between strides first: the same values.

    oneDNN's own (3.13 on AVX2; its issue 6035) writes past its workspace in the backward pass
    of channels_last nets with fewer inputs than a vector holds: wrong gradients or a crash.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        down, right = self.stride
        return F.conv2d(x[..., ::down, ::right], self.weight, self.bias)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1×1 convolution without bias."""
    narrow = stride > 1 and inputs < 16  # 16 floats are AVX-512's vector
    kind = SubsampledConv if narrow else nn.Conv2d
    return kind(inputs, outputs, 1, stride, bias=False)


def pooled(x: Tensor) -> Tensor:
    """Average over all positions: (B, C, H, W) → (B, C)."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)

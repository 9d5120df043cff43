"""What the architectures share: normalisation inside the net, and the choice of activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advkit.errors import unknown

Activation = Callable[[Tensor], Tensor]
Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of pixels in [0, 1], per channel."""
ACTIVATIONS: dict[str, Activation] = {"relu": F.relu_, "silu": F.silu}
"""relu works in place: BN, convolutions and sums never need what they gave."""


class Net(nn.Module):
    """A net that takes pixels in [0, 1] and normalises them itself.

    `mean` and `std` are buffers of the net, so that a plain state dict holds all it needs and
    no wrapper changes the key names. Beside another base class, that one gets `options`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics, **options: object) -> None:
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

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        down, right = self.stride
        return F.conv2d(x[..., ::down, ::right], weight, bias)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1×1 convolution without bias."""
    narrow = stride > 1 and inputs < 16  # 16 floats are AVX-512's vector
    kind = SubsampledConv if narrow else nn.Conv2d
    return kind(inputs, outputs, 1, stride, bias=False)


def pooled(x: Tensor) -> Tensor:
    """Average over all positions: (B, C, H, W) → (B, C)."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def stages(
    block: Callable[[int, int, int, str], nn.Module],
    inputs: int,
    widths: Sequence[int],
    counts: Sequence[int],
    act: str,
) -> list[nn.Sequential]:
    """Return a stage of blocks for each width; from the second on, its first block has stride 2."""
    chain = []
    for number, (width, count) in enumerate(zip(widths, counts, strict=True)):
        stage = nn.Sequential()
        for place in range(count):
            stage.append(block(inputs, width, 2 if number and not place else 1, act))
            inputs = width
        chain.append(stage)
    return chain


def wide_groups(
    block: Callable[[int, int, int, str], nn.Module], name: str, depth: int, widen: int, act: str
) -> list[nn.Sequential]:
    """Return a wide net's three groups of (depth − 4)/6 blocks: 16·K, 32·K and 64·K channels.

    `name` is what published checkpoints call the blocks of a group.
    """
    widths = [16 * widen * 2**group for group in range(3)]
    groups = stages(block, 16, widths, [(depth - 4) // 6] * 3, act)
    return [nn.Sequential(OrderedDict({name: group})) for group in groups]

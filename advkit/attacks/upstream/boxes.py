"""Rectangles of pixels: where a change in one reaches, and how to put one in its place."""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advkit.models import SubsampledConv


class Box(NamedTuple):
    """Rows top ≤ i < bottom and columns left ≤ j < right of an image or of activations."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, x: Tensor) -> Tensor:
        """Return the part of (B, C, H, W) inside, a view."""
        return x[:, :, self.top : self.bottom, self.left : self.right]

    def within(self, other: Box) -> Box:
        """Return the box as counted from another one's corner."""
        return Box(
            self.top - other.top, self.bottom - other.top,
            self.left - other.left, self.right - other.left,
        )  # fmt: skip

    def joined(self, other: Box) -> Box:
        """Return the smallest box around both."""
        return Box(
            min(self.top, other.top), max(self.bottom, other.bottom),
            min(self.left, other.left), max(self.right, other.right),
        )  # fmt: skip

    def cut(self, other: Box) -> Box:
        """Return what both share."""
        return Box(
            max(self.top, other.top), min(self.bottom, other.bottom),
            max(self.left, other.left), min(self.right, other.right),
        )  # fmt: skip

    @property
    def area(self) -> int:
        """Positions inside; 0 where an end lies before its beginning."""
        return max(self.bottom - self.top, 0) * max(self.right - self.left, 0)


def whole(x: Tensor) -> Box:
    """Return the box of all positions of (B, C, H, W)."""
    return Box(0, x.shape[2], 0, x.shape[3])


def around(changed: Tensor) -> Box:
    """Return the smallest box around the true entries of (H, W), at least one position."""
    spans = []
    for axis in (1, 0):
        places = changed.any(axis).nonzero().flatten()
        spans += [int(places[0]), int(places[-1]) + 1] if len(places) else [0, 1]
    return Box(*spans)


def known(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution whose reach `reached` and `seen` describe."""
    return (
        isinstance(conv, nn.Conv2d)
        and type(conv).forward is nn.Conv2d.forward
        and type(conv)._conv_forward in PLAIN
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


PLAIN = {nn.Conv2d._conv_forward, SubsampledConv._conv_forward}
"""Those of other classes may pad in a way of their own."""


def reached(conv: nn.Conv2d, box: Box, full: Box) -> Box:
    """Return where the output may change if the input changes in a box.

    Output i reads the inputs s·i − p … s·i − p + k − 1 (stride s, padding p, kernel k).
    """
    spans = []
    for axis in (0, 1):
        begin, end = box[2 * axis], box[2 * axis + 1]
        kernel, stride, pad = conv.kernel_size[axis], conv.stride[axis], int(conv.padding[axis])
        count = (full[2 * axis + 1] + 2 * pad - kernel) // stride + 1
        spans.append(max(0, -((kernel - 1 - begin - pad) // stride)))
        spans.append(min(count, (end - 1 + pad) // stride + 1))
    return Box(*spans)


def seen(conv: nn.Conv2d, box: Box) -> Box:
    """Return which inputs a box of outputs reads; it may begin or end in the padding."""
    spans = []
    for axis in (0, 1):
        begin, end = box[2 * axis], box[2 * axis + 1]
        kernel, stride, pad = conv.kernel_size[axis], conv.stride[axis], int(conv.padding[axis])
        spans += [begin * stride - pad, (end - 1) * stride - pad + kernel]
    return Box(*spans)


def pasted(x: Tensor, frame: Box, part: Tensor, box: Box) -> Tensor:
    """Return a copy of x (B, C, H, W) inside a frame, with a box of it replaced by `part`."""
    found = torch.empty_like(frame.of(x), memory_format=torch.channels_last)
    found.copy_(frame.of(x))
    shared = frame.cut(box)
    if shared.area:
        shared.within(frame).of(found).copy_(shared.within(box).of(part))
    return found


def convolved(conv: nn.Conv2d, x: Tensor, out: Box, part: Tensor, box: Box) -> Tensor:
    """Return a box of a convolution's output where its input is x but for the part in a box."""
    wanted = seen(conv, out)
    frame = wanted.cut(whole(x))
    crop = pasted(x, frame, part, box)
    if frame != wanted:
        pads = (frame.left - wanted.left, wanted.right - frame.right,
                frame.top - wanted.top, wanted.bottom - frame.bottom)  # fmt: skip
        crop = F.pad(crop, pads)
    return F.conv2d(crop, conv.weight, conv.bias, conv.stride, 0, 1, conv.groups)

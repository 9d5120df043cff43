"""Logits of images that differ from known ones inside one window, the same for all of them.

The outputs of the first layers are held. A window changes a part of each that grows from layer to
layer; only that part is computed again, until it is most of a layer: from there on the net runs as
usual. Known as incremental inference: Nakandala et al., SIGMOD 2019, for occlusion maps.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from advkit.evaluation.fused import Convolution, rectifies

LEAST = 0.3
"""Share of a layer's positions to spare, or it is computed as a whole."""
WORTH = 1e7
"""Multiplications that each layer must save on average: what its slices and copies cost."""
SHARE = 0.3
"""Share of the net's multiplications that must be saved."""
PIXELWISE = (operator.sub, operator.truediv, operator.add, operator.mul)

Span = tuple[int, int]
"""The first of a row of positions, and the one behind the last."""
Box = tuple[Span, Span]
"""A part of a layer: down and along."""


class Held:
    """Images (B, C, H, W), the first layers' outputs for them, and the window that is tried."""

    def __init__(self, plan: Plan, images: Tensor) -> None:
        self.plan = plan
        self.outputs: dict[fx.Node, Tensor] = {}
        self.tried: dict[fx.Node, tuple[Box, Tensor]] = {}
        self._try(images.clone(memory_format=torch.channels_last), 0, 0)
        self.outputs = {
            layer.node: self.tried[layer.node][1] for layer in plan.layers if layer.reader is None
        }
        self.tried = {}

    def logits(self, window: Tensor, top: int, left: int) -> Tensor:
        """Return the logits (B, classes) of the images with this window (B, C, h, w) in them."""
        self._try(window, top, left)
        found: Tensor = self.plan.rest(*map(self._whole, self.plan.read))
        return found

    def keep(self, rows: Tensor) -> None:
        """Leave the window in the images that `rows` (B,) bool says, for those to come."""
        places = rows.nonzero().flatten()
        for node, output in self.outputs.items() if len(places) else ():
            box, made = self.tried[node]
            _part(output, box)[places] = made[places]

    def restrict(self, rows: Tensor) -> None:
        """Forget all images but those that `rows` (B,) bool says."""
        self.outputs = {node: output[rows] for node, output in self.outputs.items()}

    def _try(self, window: Tensor, top: int, left: int) -> None:
        """Compute what a window changes."""
        boxes = self.plan.boxes(((top, top + window.shape[2]), (left, left + window.shape[3])))
        self.tried = {}
        for layer in self.plan.layers:
            box = boxes[layer.node]
            parts = zip(layer.sources, layer.needed(box), strict=True)
            given = [self._value(*each) for each in parts] or [window]
            self.tried[layer.node] = box, layer.compute(*given)

    def _value(self, node: fx.Node, box: Box) -> Tensor:
        """Return a part of a layer with what the window changed; zeros where it sticks out."""
        at, made = self.tried[node]
        if at == box or node not in self.outputs:
            return _part(made, _seen_from(at, box))
        value = _part(self.outputs[node], box)
        if value._is_view():
            value = value.clone(memory_format=torch.channels_last)
        down, along = map(_common, at, box)
        both = down, along
        if all(begin < end for begin, end in both):  # a stride may step over what changed
            _part(value, _seen_from(box, both)).copy_(_part(made, _seen_from(at, both)))
        return value

    def _whole(self, node: fx.Node) -> Tensor:
        """Return a copy of a layer with what the window changed."""
        whole = self.outputs[node].clone()
        box, made = self.tried[node]
        _part(whole, box).copy_(made)
        return whole


def _part(layer: Tensor, box: Box) -> Tensor:
    """Return a view of a box, or a copy with zeros around where it sticks out."""
    (top, bottom), (left, right) = box
    height, width = layer.shape[2:]
    inside = layer[:, :, max(top, 0) : bottom, max(left, 0) : right]
    beyond = [max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0)]
    return F.pad(inside, beyond) if any(beyond) else inside


def _seen_from(at: Box, box: Box) -> Box:
    """Return a box as seen from another."""
    down, along = ((a - begin, b - begin) for (begin, _), (a, b) in zip(at, box, strict=True))
    return down, along


@dataclass(frozen=True)
class _Axis:
    """What a convolution does along one axis; a dilated `kernel` counts its gaps."""

    kernel: int
    stride: int
    padding: int

    def reached(self, span: Span, side: int) -> Span:
        """Return the outputs, of `side`, that inputs reach; one, though they may reach none."""
        begin = -(-(span[0] + self.padding - self.kernel + 1) // self.stride)
        begin = min(max(begin, 0), side - 1)
        end = min((span[1] - 1 + self.padding) // self.stride + 1, side)
        return begin, max(end, begin + 1)

    def read(self, span: Span) -> Span:
        """Return the inputs of outputs; some may be padding."""
        begin = span[0] * self.stride - self.padding
        return begin, (span[1] - 1) * self.stride - self.padding + self.kernel


@dataclass
class _Layer:
    """A node that is computed in part, from parts of `sources`; the first goes along `axes`.

    `shape`: (C, H, W) of an image. `cost`: multiplications for one position. `reader`: what alone
    reads it; it is computed as far as that needs, and not held.
    """

    node: fx.Node
    sources: list[fx.Node]
    shape: torch.Size
    compute: Callable[..., Tensor] = lambda x: x
    axes: tuple[_Axis, ...] = ()
    cost: int = 0
    reader: _Layer | None = None

    def changed(self, boxes: Sequence[Box]) -> Box:
        """Return the part of the output that parts of the sources reach."""
        down, along = map(self._reached, (0, 1), *boxes)
        return down, along

    def _reached(self, axis: int, first: Span, *others: Span) -> Span:
        if self.axes:
            first = self.axes[axis].reached(first, self.shape[1 + axis])
        return _hull(first, *others)

    def needed(self, box: Box) -> list[Box]:
        """Return the parts of the sources that a part of the output is made of."""
        if not self.axes:
            return [box] * len(self.sources)
        down, along = (axis.read(span) for axis, span in zip(self.axes, box, strict=True))
        return [(down, along), *[box] * (len(self.sources) - 1)]

    def inside(self, box: Box) -> Box:
        """Return what of a box is in the layer, and not in its padding."""
        down, along = (
            _common(span, (0, side)) for span, side in zip(box, self.shape[1:], strict=True)
        )
        return down, along


def _common(one: Span, other: Span) -> Span:
    return max(one[0], other[0]), min(one[1], other[1])


def _hull(*spans: Span) -> Span:
    begins, ends = zip(*spans, strict=True)
    return min(begins), max(ends)


class Plan:
    """What windows of one size leave to compute of a net.

    Args:
        form: the net in fused operators.
        shape: of an image, (C, H, W).
        side: of a window, in pixels.
    """

    def __init__(self, form: fx.GraphModule, shape: torch.Size, side: int) -> None:
        shapes = _Shapes(form)
        shapes.run(torch.zeros(2, *shape))
        # What a window in the middle changes; one elsewhere may change a position more or less.
        down, along = (((length - side) // 2, (length + side) // 2) for length in shape[1:])
        boxes: dict[fx.Node, Box] = {}
        local: dict[fx.Node, _Layer] = {}
        self.saved = self.all = 0
        for node in form.graph.nodes:
            layer = _local(form, node, shapes.found)
            if layer is None:
                continue
            positions = layer.shape[1:].numel()
            self.all += positions * layer.cost
            if not all(source in local for source in layer.sources):
                continue
            sources = [boxes[source] for source in layer.sources]
            boxes[node] = layer.changed(sources) if sources else (down, along)
            spared = positions - math.prod(end - begin for begin, end in boxes[node])
            if spared >= LEAST * positions or not sources:  # the images always are
                local[node] = layer
                self.saved += spared * layer.cost
        self.layers = [*local.values()]
        for layer in self.layers:
            layer.reader = _reader(layer, local)
        self.read, self.rest = _rest(form, set(local))
        self.boxes = lru_cache(maxsize=1024)(self._boxes)

    def _boxes(self, window: Box) -> dict[fx.Node, Box]:
        """Return the part of each layer that is computed for a window."""
        boxes: dict[fx.Node, Box] = {}
        for layer in self.layers:
            sources = [boxes[source] for source in layer.sources]
            boxes[layer.node] = layer.changed(sources) if sources else window
        for layer in reversed(self.layers):
            if layer.reader is not None:
                parts = layer.reader.needed(boxes[layer.reader.node])
                part = parts[layer.reader.sources.index(layer.node)]
                boxes[layer.node] = layer.inside(part)
        return boxes

    def worth(self, images: int) -> bool:
        """Whether so many images save more than the plan costs."""
        enough = self.saved > SHARE * self.all
        return enough and images * self.saved > WORTH * len(self.layers)


class _Shapes(fx.Interpreter):
    """Notes what each node gives for one image."""

    def __init__(self, form: fx.GraphModule) -> None:
        super().__init__(form)
        self.found: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run a node and note the shape of its tensor, without the batch."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = value.shape[1:]
        return value


def _local(
    form: fx.GraphModule, node: fx.Node, shapes: Mapping[fx.Node, torch.Size]
) -> _Layer | None:
    """Return a node as a layer, if each position of it is made of those around it."""
    sources = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op != "get_attr"]
    if any(len(shapes.get(each, ())) != 3 for each in (node, *sources)):
        return None
    shape = shapes[node]
    if node.op == "placeholder":
        return _Layer(node, [], shape)
    part = form.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(part, Convolution):
        axes = _axes(part.conv)
        layer = _Layer(node, sources, shape, part.part, axes, part.conv.weight.numel())
        # Where outputs see padding alone, no window reaches them.
        return layer if all(axis.padding < axis.kernel for axis in axes) else None
    if len(sources) != 1:
        return None
    if isinstance(part, nn.BatchNorm2d):
        own = part.training or part.running_mean is None  # statistics of what it is given
        return None if own else _Layer(node, sources, shape, part)
    if rectifies(node, part):  # as a copy: some are told to overwrite their input
        return _Layer(node, sources, shape, F.relu)
    if node.target not in PIXELWISE:
        return None
    left, right = (None if arg is sources[0] else _number(form, arg) for arg in node.args)
    compute = cast(Callable[..., Tensor], node.target)
    if right is not None:
        return _Layer(node, sources, shape, lambda x: compute(x, right))
    return None if left is None else _Layer(node, sources, shape, lambda x: compute(left, x))


def _number(form: fx.GraphModule, arg: fx.node.Argument) -> Tensor | float | None:
    """Return what is the same at all positions: a number, or one for each channel."""
    if isinstance(arg, fx.Node) and arg.op == "get_attr":
        value: Tensor = operator.attrgetter(str(arg.target))(form)
        return value if value.dim() == 0 or value.shape[-2:] == (1, 1) else None
    return arg if isinstance(arg, int | float) else None


def _axes(conv: nn.Conv2d) -> tuple[_Axis, ...]:
    assert not isinstance(conv.padding, str)
    sizes = zip(conv.kernel_size, conv.dilation, conv.stride, conv.padding, strict=True)
    return tuple(_Axis((size - 1) * gap + 1, stride, pad) for size, gap, stride, pad in sizes)


def _reader(layer: _Layer, local: Mapping[fx.Node, _Layer]) -> _Layer | None:
    """Return the layer for which all is computed that it reads, so that nothing is held.

    None where others read it too, for the images, and for a convolution behind another of this
    kind: in a row each would have the one before it computed further out.
    """
    users = [*layer.node.users]
    stretched = layer.axes and any(local[source].reader for source in layer.sources)
    return None if len(users) != 1 or stretched or not layer.sources else local.get(users[0])


def _rest(form: fx.GraphModule, local: set[fx.Node]) -> tuple[list[fx.Node], fx.GraphModule]:
    """Return the layers that the rest of a net reads, and the rest as a net of its own."""
    graph = fx.Graph()
    read = [node for node in form.graph.nodes if node in local and not local.issuperset(node.users)]
    copies = {node: graph.placeholder(node.name) for node in read}
    for node in form.graph.nodes:
        if node not in local and not (node.op == "get_attr" and local.issuperset(node.users)):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.lint()
    return read, fx.GraphModule(form, graph).eval()

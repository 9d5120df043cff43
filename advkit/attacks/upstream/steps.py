"""A traced net step by step, where its input changes in one box and the rest is known."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from advkit.attacks.upstream import boxes
from advkit.attacks.upstream.boxes import Box

POINTWISE = {F.relu, F.silu, operator.sub, operator.truediv}
ADDITIONS = {operator.add, torch.add}
SHARE = 0.6
"""A layer of which more than this would change is computed whole."""

Values = dict[fx.Node, Any]
Places = dict[fx.Node, Box | None]


class Step:
    """One node of the graph, as a function of the values before it."""

    def __init__(self, net: fx.GraphModule, node: fx.Node) -> None:
        self.node = node
        self.module = net.get_submodule(str(node.target)) if node.op == "call_module" else None
        self.constants = {
            each: operator.attrgetter(str(each.target))(net)
            for each in node.all_input_nodes
            if each.op == "get_attr"
        }
        self.inputs = [each for each in node.all_input_nodes if each not in self.constants]
        self.nested = not set(node.all_input_nodes) <= {
            each for each in node.args if isinstance(each, fx.Node)
        }
        self.function = self.module or node.target
        if node.op == "call_method":
            self.function = operator.attrgetter(str(node.target))(Tensor)
        pointwise = node.op == "call_function" and node.target in POINTWISE
        self.pointwise = (
            len(self.inputs) == 1
            and (pointwise or isinstance(self.module, nn.BatchNorm2d | nn.ReLU))
            and all(each.shape[-2:] == (1, 1) for each in self.constants.values())
        )
        self.sum = node.target in ADDITIONS and len(self.inputs) == 2
        self.conv = self.module if boxes.known(self.module) else None

    def __call__(self, values: Values) -> Any:
        """Return the node's value."""
        known = self.constants | values if self.nested else values
        args, options = self.node.args, self.node.kwargs
        if self.nested:
            args, options = fx.node.map_arg((args, options), lambda each: known[each])
        else:
            args = tuple(
                self.constants.get(each, values.get(each)) if isinstance(each, fx.Node) else each
                for each in args
            )
        return self.function(*args, **options)  # type: ignore[operator]


class Change:
    """One pass through the net: for every node its values, and where (None: everywhere).

    Args:
        steps: of the net, in their order.
        images: the node of its input.
        before: the values, everywhere, of each node that another than a pointwise one reads.
        x: (B, C, H, W), which differs in the box alone from those that `before` comes from.
        box: where.
    """

    def __init__(
        self, steps: Sequence[Step], images: fx.Node, before: Values, x: Tensor, box: Box
    ) -> None:
        self.before = before
        self.values: Values = {images: box.of(x)}
        self.places: Places = {images: box}
        for step in steps:
            if not (self._convolve(step) or self._add(step)):
                self._compute(step)

    def _compute(self, step: Step) -> None:
        if step.pointwise:
            self.places[step.node] = self.places[step.inputs[0]]
        else:
            for each in step.inputs:
                self._complete(each)
            self.places[step.node] = None
        self.values[step.node] = step(self.values)

    def _convolve(self, step: Step) -> bool:
        conv, source = step.conv, step.inputs[0]
        box = self.places[source]
        if conv is None or box is None:
            return False
        before = self.before[source]
        full = boxes.whole(before)
        out = boxes.reached(conv, box, full)
        if not 0 < out.area <= SHARE * boxes.reached(conv, full, full).area:
            return False
        self.values[step.node] = boxes.convolved(conv, before, out, self.values[source], box)
        self.places[step.node] = out
        return True

    def _add(self, step: Step) -> bool:
        boxes = [self.places[each] for each in step.inputs]
        if not step.sum or boxes[0] is None or boxes[1] is None:
            return False
        frame = boxes[0].joined(boxes[1])
        one, other = (self._framed(each, frame) for each in step.inputs)
        self.values[step.node], self.places[step.node] = one + other, frame
        return True

    def _framed(self, node: fx.Node, frame: Box) -> Tensor:
        box: Box | None = self.places[node]
        value: Tensor = self.values[node]
        return value if box in (frame, None) else boxes.pasted(self.before[node], frame, value, box)

    def _complete(self, node: fx.Node) -> None:
        if self.places[node] is not None:
            self.values[node] = self._framed(node, boxes.whole(self.before[node]))
            self.places[node] = None

"""Passes without a gradient, on CPUs: a convolution and what follows it in one call of oneDNN.

Sum and ReLU are taken while the convolution's output is at hand, and its weights are put into
oneDNN's own order once, not in every pass. The operators are those that torch.compile writes for
CPUs; PyTorch has no other name for them. They take no gradient.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

SUMS = {"call_function": (operator.add, torch.add), "call_method": ("add",)}
OVERWRITING = {"call_function": (operator.iadd,), "call_method": ("add_",)}
RECTIFIERS = {
    "call_function": (F.relu, torch.relu, torch.relu_),
    "call_method": ("relu", "relu_"),
}
"""What a node does, by its kind."""


def fused(net: fx.GraphModule) -> fx.GraphModule | None:
    """Return the fused form of a net, with the weights of now; the net stays as it is.

    None where there is nothing to fuse: on other devices, in other precisions, without oneDNN.
    """
    if not _possible(net):
        return None
    graph = fx.Graph()
    graph.output(graph.graph_copy(net.graph, {}))
    parts = {
        str(node.target): operator.attrgetter(str(node.target))(net)
        for node in graph.nodes
        if node.op in ("call_module", "get_attr")
    }
    made = [
        _replaced(graph, node, parts)
        for node in list(graph.nodes)
        if node.op == "call_module" and _plain(parts[str(node.target)])
    ]
    if not made:
        return None
    # Only now: a convolution has moved to its sum's place, and reads its images there.
    for node in made:
        part = parts[str(node.target)]
        if isinstance(part, Sum):
            part.over = _last_of(graph, node, made)
    graph.lint()
    return fx.GraphModule(parts, graph).eval()


def _possible(net: nn.Module) -> bool:
    operators = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(torch.ops.mkldnn, name) for name in operators)
        and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in net.parameters())
    )


def _plain(module: nn.Module) -> bool:
    """Whether a module is a convolution as PyTorch has it, padded with zeros."""
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _replaced(graph: fx.Graph, node: fx.Node, parts: dict[str, nn.Module]) -> fx.Node:
    """Put one call in the place of a convolution and of what follows it, where it is read alone."""
    conv = parts[str(node.target)]
    assert isinstance(conv, nn.Conv2d)
    gone = [node]
    read: tuple[fx.node.Argument, ...] = node.args[:1]
    behind = _reader(node)
    if behind is not None and (other := _other(behind, node)) is not None:
        gone, read = [node, behind], (*read, other)
        behind = _reader(behind)
    relu = behind is not None and rectifies(behind, parts.get(str(behind.target)))
    if behind is not None and relu:
        gone.append(behind)
    part = Sum(conv, relu) if len(read) > 1 else Convolution(conv, relu)
    name = f"fused_{len(parts)}"
    parts[name] = part
    with graph.inserting_before(gone[-1]):
        made = graph.call_module(name, read)
    gone[-1].replace_all_uses_with(made)
    for old in reversed(gone):
        graph.erase_node(old)
    return made


def _reader(node: fx.Node) -> fx.Node | None:
    """Return the node that alone reads a node's output."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def rectifies(node: fx.Node, part: nn.Module | None) -> bool:
    """Whether a node, which calls `part` if it calls a module, is a ReLU."""
    if node.op == "call_module":
        return type(part) is nn.ReLU
    return node.target in RECTIFIERS.get(node.op, ())


def _other(total: fx.Node, node: fx.Node) -> fx.Node | None:
    """Return what a sum adds to a node's output; None if it is none, or of another kind."""
    over = total.target in OVERWRITING.get(total.op, ()) and total.args[0] is node
    if not (over or total.target in SUMS.get(total.op, ())) or total.kwargs or len(total.args) != 2:
        return None
    others = [arg for arg in total.args if arg is not node]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _last_of(graph: fx.Graph, node: fx.Node, made: list[fx.Node]) -> bool:
    """Whether a sum may be written over its other summand: a fused output that it reads last."""
    x, other = node.args
    if not isinstance(other, fx.Node) or other not in made or other is x:
        return False
    order = {each: place for place, each in enumerate(graph.nodes)}
    # Others could have made a view of it, which is read later.
    return all(user in made and order[user] <= order[node] for user in other.users)


class Convolution(nn.Module):
    """A convolution, with a ReLU behind it or not."""

    def __init__(self, conv: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.conv, self.then = conv, "relu" if relu else "none"
        self.packed: Tensor | None = None

    def call(self, x: Tensor, padded: bool) -> tuple[object, ...]:
        """Return what all operators take behind the images: weight, bias and geometry."""
        conv = self.conv
        form = list(conv.stride), list(conv.dilation), conv.groups
        if self.packed is None:
            order = torch.ops.mkldnn._reorder_convolution_weight
            self.packed = order(conv.weight.contiguous(), list(conv.padding), *form, list(x.shape))
        return self.packed, conv.bias, [0, 0] if padded else list(conv.padding), *form

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W')."""
        return self.part(x, padded=False)

    def part(self, x: Tensor, *, padded: bool = True) -> Tensor:
        """Do it for a part of the images; `padded`: its surroundings come with it."""
        call = *self.call(x, padded), self.then, [], ""
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *call)
        return y


class Sum(Convolution):
    """A convolution that something is added to, with a ReLU behind the sum or not.

    `over`: the sum is written where the other summand was.
    """

    over = False

    def forward(self, x: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
        """Map (B, inputs, H, W) and the summand (B, outputs, H', W') to the sum."""
        if not self.over:
            return self.part(x, other, padded=False)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *self.add(x, False))
        return y

    def part(self, x: Tensor, other: Tensor, *, padded: bool = True) -> Tensor:  # type: ignore[override]
        """Do it for a part of both, without writing over the other."""
        call = self.add(x, padded)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(x, other, *call)
        return y

    def add(self, x: Tensor, padded: bool) -> tuple[object, ...]:
        """Return what both operators of a sum take behind the images."""
        relu = "relu" if self.then == "relu" else None
        return *self.call(x, padded), "add", 1.0, relu, (), None

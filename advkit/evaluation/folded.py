"""A copy of a net that answers the same to rounding in less time: for searches, not for verdicts.

Batch normalisation is folded once for all passes (`advkit.formulas.folding` does it pass by
pass, in nets whose weights change). The copy also overwrites what it rectifies, and averages by
a sum, whose gradient leaves the layout to what comes before.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from advkit.formulas import folding

ADDITIONS = (operator.add, torch.add)
IN_PLACE: dict[tuple[str, object], Callable[..., object]] = {
    ("call_function", torch.relu_): F.relu,
    ("call_method", "relu_"): F.relu,
    ("call_method", "add_"): operator.add,
}
"""What overwrites its input, and the same with a tensor of its own."""


class _Tracer(fx.Tracer):
    """Keeps convolutions of our own whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def folded(model: nn.Module) -> fx.GraphModule | None:
    """Return the copy, in eval mode, without parameter gradients; the net stays as it is.

    None where there is nothing to fold, or the net's code cannot be traced because it depends on
    the values it computes.
    """
    # Copying a net costs memory: not where nothing comes of it.
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return None
    net = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        graph = _Tracer().trace(net)
    except (fx.proxy.TraceError, RuntimeError, TypeError):
        return None
    if not sum(_fold(net, node) for node in list(graph.nodes)):
        return None
    for node in list(graph.nodes):
        _apart(net, node)
        _overwrite(net, node)
        _average(graph, node)
    graph.lint()  # an edit that left a node without its input ends here, not in an attack
    return fx.GraphModule(net, graph).eval().to(memory_format=torch.channels_last)


def agree(model: nn.Module, other: nn.Module, x: Tensor, tolerance: float) -> bool:
    """Whether two nets give the same logits on x up to a share of the largest one."""
    with torch.no_grad():
        mine, its = model(x), other(x)
    gap: Tensor = (mine - its).abs().amax()
    return bool(gap <= tolerance * mine.abs().amax())


def _module(net: nn.Module, node: fx.Node) -> nn.Module | None:
    return net.get_submodule(str(node.target)) if node.op == "call_module" else None


def _fold(net: nn.Module, node: fx.Node) -> bool:
    """Fold a batch normalisation into the convolution before it, if nothing else reads that."""
    norm = _module(net, node)
    source = node.args[0] if node.args else None
    if not isinstance(norm, nn.BatchNorm2d) or not isinstance(source, fx.Node):
        return False
    conv = _module(net, source)
    if not isinstance(conv, nn.Conv2d) or len(source.users) > 1 or _calls(net, node, conv) > 1:
        return False
    if norm.running_mean is None or norm.running_var is None:
        return False
    dtype = conv.weight.dtype
    # In double precision, so that the copy differs from the net by rounding and no more.
    weight, bias = folding.fold(conv.double(), norm.double())
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)
    return True


def _calls(net: nn.Module, node: fx.Node, module: nn.Module) -> int:
    return sum(_module(net, other) is module for other in node.graph.nodes)


def _apart(net: nn.Module, node: fx.Node) -> None:
    """Let a step that overwrites its input make a tensor of its own: others may follow the input.

    What may be overwritten for all that, `_overwrite` says. A sum may stay on a convolution's
    output that it alone reads.
    """
    if node.kwargs or (node.op, node.target) not in IN_PLACE:
        return
    source = node.args[0]
    if node.target == "add_" and isinstance(source, fx.Node) and _own(net, source):
        return
    node.op, node.target = "call_function", IN_PLACE[node.op, node.target]


def _overwrite(net: nn.Module, node: fx.Node) -> None:
    """Let a ReLU write over what a convolution or a sum gave it: both gradients need it no more."""
    source = node.args[0] if node.args else None
    if node.op != "call_function" or node.target is not F.relu or not isinstance(source, fx.Node):
        return
    sums = source.target in ADDITIONS or (source.op, source.target) == ("call_method", "add_")
    if _own(net, source) or (sums and len(source.users) == 1):
        node.kwargs = {"inplace": True}


def _own(net: nn.Module, node: fx.Node) -> bool:
    """Whether a node is a convolution whose output one other node reads."""
    return isinstance(_module(net, node), nn.Conv2d) and len(node.users) == 1


def _average(graph: fx.Graph, node: fx.Node) -> None:
    """Average all positions by a sum: the gradients of pooling and mean are in another layout."""
    if node.target is not F.adaptive_avg_pool2d or node.args[1:] != (1,):
        return
    with graph.inserting_before(node):
        mean = graph.call_function(_mean, (node.args[0],))
    node.replace_all_uses_with(mean)
    graph.erase_node(node)


def _mean(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, 1, 1); its gradient is one number a channel, not yet spread out."""
    return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])

"""How many images pass a net: a measure of an attack's cost that no neighbour disturbs."""

from __future__ import annotations

from torch import Tensor, is_grad_enabled, nn


class Counting(nn.Module):
    """The same answers, with images counted as they pass.

    `forward_only` pass without a gradient, `with_gradient` on the way to one, `in_windows` in the
    part of the net that a window changes.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.forward_only = self.with_gradient = self.in_windows = self.calls = 0
        if hasattr(net, "hold_for_windows"):
            self.hold_for_windows = net.hold_for_windows

    def forward(self, x: Tensor, *held: object) -> Tensor:
        """Return the net's logits of (B, C, H, W)."""
        self.calls += 1
        if held:
            self.in_windows += len(x)
        elif is_grad_enabled() and x.requires_grad:
            self.with_gradient += len(x)
        else:
            self.forward_only += len(x)
        logits: Tensor = self.net(x, *held)
        return logits

    def taken(self) -> dict[str, int]:
        """Return the counts, and begin anew."""
        names = ("forward_only", "with_gradient", "in_windows", "calls")
        counts = {name: getattr(self, name) for name in names}
        self.forward_only = self.with_gradient = self.in_windows = self.calls = 0
        return counts

"""A net that is asked again and again about nearly the same images, as Square asks.

Square changes one window of its best images, keeps the change where it lowered the margin, and
asks again, thousands of times. Only what a window reaches is computed: the rest of each layer is
what it was for the best images. The logits are the net's own to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from advkit.attacks.upstream import boxes
from advkit.attacks.upstream.steps import Change, Places, Step, Values

FEW = 0.75
"""With fewer changed images than this share, the others are left out."""


class Following(nn.Module):
    """A traced net that answers Square's questions about one batch, in their order.

    The first call asks for the clean images, the second for the start, every other one for a
    change of the best ones. If the calls come otherwise the answers are right all the same: what
    changed is found by comparing images, and an unexpected batch is computed whole.

    Args:
        net: in eval mode.
        y: (B,) int64, the true classes.
    """

    def __init__(self, net: fx.GraphModule, y: Tensor) -> None:
        super().__init__()
        self.net, self.y, self.calls = net, y, 0
        nodes = list(net.graph.nodes)
        self.images, self.answer = nodes[0], nodes[-1].all_input_nodes[0]
        self.steps = [Step(net, node) for node in nodes[1:-1] if node.op != "get_attr"]
        pointwise = {step.node for step in self.steps if step.pointwise}
        self.kept = [self.images] + [
            step.node for step in self.steps if any(u not in pointwise for u in step.node.users)
        ]
        self.best: Values = {}
        self.margin, self.logits = torch.empty(0), torch.empty(0)
        self.tried: tuple[Tensor, Values, Places] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, C, H, W); not differentiable."""
        with torch.no_grad():
            self.calls += 1
            if self.calls == 2 and len(x) == len(self.y):
                return self._started(x)
            self._settle()
            if not self.best or self.best[self.images].shape != x.shape:
                self.best = {}
                answer: Tensor = self.net(x)
                return answer
            return self._changed(x)

    def _started(self, x: Tensor) -> Tensor:
        values: Values = {self.images: x}
        for step in self.steps:
            values[step.node] = step(values)
        self.best = {node: values[node] for node in self.kept}
        self.logits = values[self.answer]
        self.margin = self._margins(self.logits, self.y)
        return self.logits.clone()

    def _margins(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return z_y − max over the others, which Square lowers and stops at 0."""
        own = logits.gather(1, y[:, None])
        return (own - logits.scatter(1, y[:, None], -torch.inf).amax(1, keepdim=True)).flatten()

    def _settle(self) -> None:
        """Take over the tried changes that lowered the margin; forget images that are broken."""
        if self.tried is not None:
            self._take(*self.tried)
            self.tried = None
        standing = self.margin > 0
        if self.best and not bool(standing.all()):
            self.y, self.margin = self.y[standing], self.margin[standing]
            self.logits = self.logits[standing]
            self.best = {node: best[standing] for node, best in self.best.items()}

    def _take(self, rows: Tensor, values: Values, places: Places) -> None:
        logits = values[self.answer]
        margin = self._margins(logits, self.y[rows])
        better = margin < self.margin[rows]
        if not bool(better.any()):
            return
        to = rows[better]
        self.margin[to], self.logits[to] = margin[better], logits[better]
        for node, best in self.best.items():
            place = places[node]
            inside = best if place is None else place.of(best)
            inside[to] = values[node][better]

    def _changed(self, x: Tensor) -> Tensor:
        differs = x != self.best[self.images]
        rows = differs.flatten(1).any(1).nonzero().flatten()
        few = len(rows) < FEW * len(x)
        if not few:
            rows = torch.arange(len(x))
        if len(rows) == 0:
            return self.logits.clone()
        before = {n: v[rows] for n, v in self.best.items()} if few else self.best
        change = Change(
            self.steps,
            self.images,
            before,
            x[rows] if few else x,
            boxes.around(differs.any(0).any(0)),
        )
        self.tried = rows, change.values, change.places
        answer = self.logits.clone()
        answer[rows] = change.values[self.answer]
        return answer

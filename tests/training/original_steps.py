"""Training steps of ADR's, AWP's, TRADES' and MART's code, written anew in plain torch.

From their description, not from theirs or ours: nothing of `advkit` is imported. Everything is as
in the originals but where a docstring says otherwise. Images are (B, C, H, W) in [0, 1].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]
Move = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Iterate, gradient, clean image → the next iterate."""


# --- losses ---


def one_hot(y: Tensor, classes: int) -> Tensor:
    return torch.eye(classes, dtype=torch.float64)[y]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of −Σ t·log p."""
    return -(targets * logits.log_softmax(1)).sum() / len(logits)


def kl(clean: Tensor, adversarial: Tensor) -> Tensor:
    """KL(clean ‖ adversarial), summed over classes, mean over the batch, gradient on both sides."""
    log_p, log_q = clean.log_softmax(1), adversarial.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum() / len(clean)


def trades_joint(net: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor, beta: float) -> Tensor:
    """ADR's code: clean and adversarial images in one pass, clean ones first."""
    clean, adversarial = net(torch.cat([x, x_adv])).split(len(x))
    return cross_entropy(clean, targets) + beta * kl(clean, adversarial)


def trades_separate(
    net: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor, beta: float, passes: str
) -> Tensor:
    """TRADES' and AWP's code: one pass each.

    `passes` is their order, c for clean and a for adversarial: `cac` in TRADES' code and `acc` in
    AWP's, where each term has a clean pass of its own; in `ca` both terms share one, which gives
    the same gradient and moves BN's running statistics once less: no original does that.
    """
    seen = [(kind, net(x if kind == "c" else x_adv)) for kind in passes]
    clean = [logits for kind, logits in seen if kind == "c"]
    (adversarial,) = (logits for kind, logits in seen if kind == "a")
    return cross_entropy(clean[-1], targets) + beta * kl(clean[0], adversarial)


def mart(net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """Boosted cross-entropy and KL weighted by what the clean answer lacks; clean pass first."""
    clean, adversarial = net(x).softmax(1), net(x_adv).softmax(1)
    total = torch.zeros((), dtype=x.dtype)
    for p, q, true in zip(clean, adversarial, y.tolist(), strict=True):
        others = [q[c] for c in range(len(q)) if c != true]
        total = total - q[true].log() - (1.0001 - max(others) + 1e-12).log()
        total = total + beta * (p * (p.log() - q.log())).sum() * (1.0000001 - p[true])
    return total / len(x)


# --- inner attacks ---


def linf(eps: float, alpha: float) -> Move:
    def move(x_adv: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
        moved = x_adv + alpha * gradient.sign()
        return torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)

    return move


def l2(eps: float, alpha: float) -> Move:
    """Step along the unit gradient; ball, then box."""

    def move(x_adv: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
        rows = []
        for a, g, origin in zip(x_adv, gradient, x, strict=True):
            delta = a + alpha * g / g.square().sum().sqrt() - origin
            length = delta.square().sum().sqrt()
            rows.append((origin + delta * min(1.0, eps / float(length))).clamp(0, 1))
        return torch.stack(rows)

    return move


def l1(eps: float, alpha: float, share: float = 0.01) -> Move:
    """Step on the steepest hundredth of the pixels, and on what they have no room for further down.

    Ball and box at once.
    """

    def move(x_adv: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
        moved = x_adv.flatten(1).clone()
        for row, g in zip(moved, gradient.flatten(1).tolist(), strict=True):
            pixels, left = row.tolist(), alpha
            most = alpha / max(1, round(share * len(g)))
            for i in sorted(range(len(g)), key=lambda i: -abs(g[i])):
                room = 1 - pixels[i] if g[i] > 0 else pixels[i]
                length = min(most, room, left) if g[i] else 0.0
                row[i] += length * (1 if g[i] > 0 else -1)
                left -= length
        return project_l1(moved.view_as(x), x, eps)

    return move


def project_l1(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return the nearest points of ‖x′ − x‖₁ ≤ ε in the box, by bisection on the threshold."""
    origin = x.flatten(1)
    delta = x_adv.flatten(1) - origin

    def shrunk(theta: Tensor) -> Tensor:
        soft = delta.sign() * (delta.abs() - theta).clamp_min(0)
        return torch.min(torch.max(soft, -origin), 1 - origin)

    def length(theta: Tensor) -> Tensor:
        return shrunk(theta).abs().sum(1, keepdim=True)

    zero = torch.zeros(len(x), 1, dtype=x.dtype)
    low, high = zero, delta.abs().amax(1, keepdim=True)
    for _ in range(100):
        middle = (low + high) / 2
        outside = length(middle) > eps
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    theta = torch.where(length(zero) > eps, high, zero)
    return (origin + shrunk(theta)).view_as(x)


def ascend(
    net: nn.Module,
    x: Tensor,
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    move: Move,
    steps: int,
) -> Tensor:
    """Return the last iterate. The mode of the net, and so BN's statistics, is the caller's."""
    x_adv = start
    for _ in range(steps):
        leaf = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(net(leaf)), leaf)
        x_adv = move(leaf.detach(), gradient, x)
    return x_adv


# --- ADR's labels ---


def annealed(first: float, last: float, t: int, total: int) -> float:
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * t / total))


def rectified(teacher: nn.Module, x: Tensor, y: Tensor, tau: float, trust: float) -> Tensor:
    """Return ADR's rows (B, C) from the teacher on the clean images."""
    with torch.no_grad():
        probabilities = (teacher(x) / tau).softmax(1)
    rows = []
    for p, true in zip(probabilities, y.tolist(), strict=True):
        share = min(max(trust - float(p.max() - p[true]), 0.0), 1.0)
        row = share * p
        row[true] += 1 - share
        rows.append(row)
    return torch.stack(rows)


# --- the step ---


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]


@contextmanager
def statistics_held(net: nn.Module) -> Iterator[None]:
    """BN with momentum 0: batch statistics are used, running ones stay."""
    before = [each.momentum for each in norms(net)]
    for each in norms(net):
        each.momentum = 0.0
    yield
    for each, momentum in zip(norms(net), before, strict=True):
        each.momentum = momentum


@dataclass
class Original:
    """A student, its average, and SGD with momentum by hand."""

    net: nn.Module
    average: nn.Module | None
    momentum: float
    nesterov: bool
    weight_decay: float
    norm_decay: bool = True
    velocity: dict[str, Tensor] = field(default_factory=dict)

    def gradients(self, loss: Loss) -> dict[str, Tensor]:
        named = dict(self.net.named_parameters())
        found = torch.autograd.grad(loss(self.net), list(named.values()))
        return dict(zip(named, found, strict=True))

    @torch.no_grad()
    def sgd(self, gradients: dict[str, Tensor], rate: float) -> None:
        spared = {id(p) for each in norms(self.net) for p in each.parameters()}
        for name, w in self.net.named_parameters():
            decay = 0.0 if id(w) in spared and not self.norm_decay else self.weight_decay
            g = gradients[name] + decay * w
            v = self.momentum * self.velocity.get(name, torch.zeros_like(w)) + g
            self.velocity[name] = v
            w -= rate * (g + self.momentum * v if self.nesterov else v)

    def plain(self, loss: Loss, rate: float) -> None:
        self.net.train()
        self.sgd(self.gradients(loss), rate)

    def adr_awp(self, loss: Loss, rate: float, rho: float) -> None:
        """ADR's weight perturbation: every tensor; back before the step; BN moves in pass one."""
        self.net.train()
        kept = {name: w.detach().clone() for name, w in self.net.named_parameters()}
        first = self.gradients(loss)
        with torch.no_grad():
            for name, w in self.net.named_parameters():
                w += first[name] * (rho * w.norm() / (first[name].norm() + 1e-20))
        with statistics_held(self.net):
            second = self.gradients(loss)
        with torch.no_grad():
            for name, w in self.net.named_parameters():
                w.copy_(kept[name])
        self.sgd(second, rate)

    def awp(self, loss: Loss, rate: float, gamma: float, proxy_rate: float = 0.1) -> None:
        """AWP's own: a proxy's SGD step gives the direction, the step is taken where it leads."""
        self.net.train()
        proxy = copy.deepcopy(self.net)
        optimizer = torch.optim.SGD(proxy.parameters(), lr=proxy_rate)
        (-loss(proxy)).backward()
        optimizer.step()
        moved, shifts = proxy.state_dict(), {}
        for key, w in self.net.state_dict().items():
            if "weight" in key and w.dim() > 1:
                shift = moved[key] - w
                shifts[key] = gamma * w.norm() / (shift.norm() + 1e-20) * shift
        named = dict(self.net.named_parameters())
        with torch.no_grad():
            for key, shift in shifts.items():
                named[key] += shift
        self.sgd(self.gradients(loss), rate)
        with torch.no_grad():
            for key, shift in shifts.items():
                named[key] -= shift

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Average parameters and BN's statistics alike, after the step."""
        assert self.average is not None
        ours = self.net.state_dict()
        for key, mean in self.average.state_dict().items():
            mean.copy_(decay * mean + (1 - decay) * ours[key])

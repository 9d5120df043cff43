"""Nets of which every example's distance to the decision is known: verdicts without chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advkit.images.image_set import Images, pixels
from tests.conftest import SEED

DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}
"""The norm of a gradient that tells how far a linear function falls in a ball."""
FALLS, NEAR, STANDS = (0.3, 0.5), (0.02, 0.05), (1.15, 1.35)
"""Distance to the decision as a share of ε.

No attack breaks what stands: its margin is far beyond rounding. What falls has half the ball to
spare, so that a few steps along a gradient break it; a near image also falls to a few random
changes.
"""
NEAREST = 2
"""The place of the near image."""
MARK = 230
"""Grey of the first pixel of images on which a net is blunt, 0.9; no other image has over 0.7."""


class Rising(nn.Module):
    """u + tanh(u): not linear, and ranks the classes as u does.

    `blunt`: the logits of marked images are 1000 times as large. Cross-entropy has no gradient
    there, so that APGD-CE stands still; the losses of ratios do not mind.
    """

    def __init__(self, net: nn.Module, blunt: bool = False) -> None:
        super().__init__()
        self.net, self.blunt = net, blunt

    def forward(self, x: Tensor) -> Tensor:
        u = self.net(x)
        z = u + torch.tanh(u)
        if self.blunt:
            z = z * torch.where(x[:, :1, 0, 0] > 0.8, 1000.0, 1.0)
        return z


@dataclass(frozen=True)
class Known:
    """A net, images labelled as it sees them, and which of them stand any attack in the ball."""

    model: nn.Module
    info: dict[str, Any]
    images: Images
    stands: Tensor

    @property
    def x(self) -> Tensor:
        return pixels(self.images.images, "cpu")

    @property
    def y(self) -> Tensor:
        return self.images.labels

    def margins(self, x: Tensor) -> Tensor:
        """Return u_y − max over the others in float64, (N,): above 0 where x is still right."""
        u = linear_part(self.model, x)
        own = u.gather(1, self.y[:, None])
        return (own - u.scatter(1, self.y[:, None], -torch.inf).amax(1, keepdim=True)).flatten()

    def fooled(self, x: Tensor) -> Tensor:
        """Return (N,) bool: what the net makes of x, in float64, no margin a matter of rounding."""
        found = self.margins(x)
        assert float(found.abs().min()) > 1e-6
        return found < 0


def linear_part(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits before they are bent, in float64."""
    net = model.net.double()
    with torch.no_grad():
        found = net(x.double())
    model.net.float()
    return found


def description(classes: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    """What an evaluation reads of a checkpoint's description."""
    return {
        "data": {"name": "digits", "classes": list(classes)},
        "model": {"input_shape": list(shape)},
        "kind": "checkpoint", "digest": "sha256:0", "method": "at", "arch": "x", "role": "best",
        "seed": 0, "parents": [],
    }  # fmt: skip


def known(
    classes: int,
    count: int = 10,
    norm: str = "linf",
    eps: float = 0.05,
    *,
    conv: bool = False,
    blunt: bool = False,
    none_stands: bool = False,
    size: int = 6,
    names: tuple[str, ...] | None = None,
) -> Known:
    """Return a net and images of which every second one stands in the ball, the others fall.

    Args:
        classes: how many.
        count: images.
        norm: of the ball.
        eps: its radius.
        conv: begin with a convolution and its normalisation, which can be folded.
        blunt: every fourth image from the first two on is marked, see `Rising`.
        none_stands: all fall.
        size: pixels of a side.
        names: of the classes.
    """
    draw = torch.Generator().manual_seed(1000 * SEED + classes)
    net = _net(classes, size, conv, draw)
    grey = torch.full((1, 1, size, size), 0.5)
    weight = torch.autograd.functional.jacobian(
        lambda x: net.double()(x)[0], grey.double(), vectorize=True
    ).reshape(classes, -1)
    # A half-way fall costs 3 logits, so that right examples have a probability above 1/2.
    reach = (weight[:, None] - weight[None]).norm(p=DUAL[norm], dim=2)
    scale = 7.5 / (eps * reach[reach > 0].mean())
    last = net[-1]
    with torch.no_grad():
        last.weight *= scale
        last.bias.zero_()
        last.bias -= net(grey.double())[0]
    model = Rising(net.float(), blunt).eval()
    raw, stands = _images(weight, count, eps, reach, none_stands, blunt, draw)
    raw = raw.view(count, 1, size, size)
    labels = linear_part(model, pixels(raw, "cpu")).argmax(1)
    names = names or tuple(f"c{each}" for each in range(classes))
    images = Images("digits", "test", raw, labels, names, 0, False)
    found = Known(model, description(names, (1, size, size)), images, stands)
    assert torch.equal(model(found.x).argmax(1), labels)
    return found


def _net(classes: int, size: int, conv: bool, draw: torch.Generator) -> nn.Sequential:
    """Return a net that is linear in eval mode, with weights of its own draw."""
    first: list[nn.Module] = []
    if conv:
        first = [nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)]
    net = nn.Sequential(*first, nn.Flatten(), nn.Linear((3 if conv else 1) * size**2, classes))
    with torch.no_grad():
        for each in (*net.parameters(), *net.buffers()):
            if each.is_floating_point():
                each.copy_(torch.randn(each.shape, generator=draw))
        if conv:
            first[1].running_var.abs_().add_(0.5)
            first[1].weight.abs_().add_(0.5)
        net[-1].weight.view(classes, -1, size, size)[:, :, :2, :2] = 0  # blind to the first pixel
    return net.eval()


def _images(
    weight: Tensor, count: int, eps: float, reach: Tensor, none_stands: bool, blunt: bool,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Draw images along the classes' weights until each is as far from the decision as wanted."""
    classes, pixels_ = weight.shape
    found, stands = torch.zeros(count, pixels_, dtype=torch.uint8), torch.zeros(count).bool()
    for place in range(count):
        stands[place] = place % 2 == 1 and not none_stands
        low, high = STANDS if stands[place] else NEAR if place == NEAREST else FALLS
        own = weight[place // 2 % classes] - weight.mean(0)
        for _ in range(200):
            noise = torch.rand(pixels_, generator=draw) - 0.5
            pull = 0.05 if place == NEAREST else 1.0
            towards = (pull * own / own.std() + noise).clamp(-1, 1)
            sizes = torch.linspace(0.01, 0.2 if blunt else 0.4, 200)
            raw = (255 * (0.5 + sizes[:, None] * towards)).round().to(torch.uint8)
            if blunt and place % 4 < 2:
                raw[:, 0] = MARK
            u = (raw.double() / 255 - 0.5) @ weight.T
            best = u.argmax(1)
            gaps = (u.gather(1, best[:, None]) - u) / reach[best]
            shares = gaps.scatter(1, best[:, None], torch.inf).amin(1) / eps
            fitting = ((low < shares) & (shares < high)).nonzero().flatten()
            if len(fitting):
                found[place] = raw[fitting[0]]
                break
        else:
            raise AssertionError("no such image was drawn")
    return found, stands

"""The l1 ball inside the pixel box: the exact projection and a sparse step.

In l1 the box matters: projecting on the ball first and clipping afterwards wastes most of ε
where pixels lie at 0 or 1 (Croce and Hein, "Mind the Box", ICML 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 0.01
"""Share of the coordinates that one step moves."""


def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return the point nearest to x′ with ‖x′ − x‖₁ ≤ ε and every pixel in [0, 1].

    δ_i = sign(d_i)·min(r_i, max(|d_i| − θ, 0)) with d = x′ − x and r_i the room from x_i to the
    box in d_i's direction. θ ≥ 0 makes ‖δ‖₁ = ε, or is 0 where less is used; the norm is piecewise
    linear in θ, so θ is found by sorting its 2·D break points.

    Args:
        x_adv: (B, ...), anything finite.
        x: (B, ...) in [0, 1].
        eps: ε ≥ 0.

    Source: optimality conditions of the projection; Croce and Hein 2021, proposition 2.1.
    """
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    origin = x.flatten(1).to(wide)
    delta = x_adv.flatten(1).to(wide) - origin
    room = torch.where(delta > 0, 1 - origin, origin).clamp_min(0)
    size = delta.abs()
    theta = _threshold(size, room, eps)
    length = torch.minimum((size - theta).clamp_min(0), room)
    projected = (origin + delta.sign() * length).to(x.dtype)
    # Rounding may not add up over many pixels: towards x where it went beyond.
    beyond = (projected.to(wide) - origin).abs() > length
    projected = torch.where(beyond, torch.nextafter(projected, x.flatten(1)), projected)
    return projected.clamp(0, 1).view_as(x)


def _threshold(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return θ, (B, 1), at which Σ min(r, max(|d| − θ, 0)) falls to ε."""
    # Each coordinate holds its room up to |d| − r, falls at slope −1 up to |d|, and is 0 there on.
    points = torch.cat([(size - room).clamp_min(0), size], dim=1)
    change = torch.cat([-torch.ones_like(size), torch.ones_like(size)], dim=1)
    points, order = points.sort(dim=1)
    slope = change.gather(1, order).cumsum(1)[:, :-1]
    first = torch.minimum(size, room).sum(1, keepdim=True)
    fallen = (slope * points.diff(dim=1)).cumsum(1)
    values = torch.cat([first, first + fallen], dim=1)  # the norm at each break point
    last = (values > eps).sum(1, keepdim=True).clamp(1, slope.shape[1]) - 1
    over = values.gather(1, last) - eps
    theta = points.gather(1, last) + over / (-slope.gather(1, last)).clamp_min(1)
    return torch.where(first > eps, theta, torch.zeros_like(theta))


def step(x_adv: Tensor, gradient: Tensor, size: float) -> Tensor:
    """Spread `size` evenly over the steepest hundredth of the coordinates, as far as the box lets.

    What a pixel has no room for goes to the next steepest ones, so that the step keeps its length
    near the box's faces; one at 0 or 1 whose gradient points outward is passed over.

    Source: Tramèr and Boneh, "Adversarial Training and Robustness for Multiple Perturbations",
    NeurIPS 2019, section 4.1 (SLIDE, its 99th percentile); the box as in Croce and Hein 2021.
    """
    flat, slope = x_adv.flatten(1), gradient.flatten(1)
    share = size / max(1, round(SHARE * flat.shape[1]))
    room = torch.where(slope > 0, 1 - flat, flat).clamp(0, share)
    steep, order = torch.where(room > 0, slope.abs(), 0.0).sort(dim=1, descending=True, stable=True)
    room = torch.where(steep > 0, room.gather(1, order), 0.0)
    left = size - (room.cumsum(1) - room)
    moves = torch.minimum(room, left.clamp_min(0)) * slope.sign().gather(1, order)
    return flat.scatter_add(1, order, moves).view_as(x_adv)

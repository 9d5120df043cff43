"""GradAlign: the loss surface inside the ball is asked to be as it is at its middle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy
from advkit.runtime import modes


def direction(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """Return ∇ℓ(x) per example, (B, C, H, W), a constant; BN uses the batch and does not move.

    Args:
        model: in any mode.
        x: clean images.
        targets: classes (B,) or rows (B, C); ℓ is cross-entropy.
    """
    with modes.frozen(model), modes.attack_bn(model, "frozen"), torch.enable_grad():
        return _gradient(model, x, targets, again=False).detach()


def penalty(model: nn.Module, x_noisy: Tensor, targets: Tensor, at_x: Tensor) -> Tensor:
    """Return 1 − mean cos(∇ℓ(x), ∇ℓ(x + η)), a scalar whose gradient goes through the second.

    BN is in the caller's mode, as for any other pass. That takes a derivative of a derivative:
    about the cost of two more passes forward and backward.

    Args:
        model: the student.
        x_noisy: x + η with η uniform in the ball, not clipped, as in the original code.
        targets: classes (B,) or rows (B, C).
        at_x: `direction` at x; constant, as in the original code.

    Source: Andriushchenko and Flammarion, "Understanding and Improving Fast Adversarial Training",
    NeurIPS 2020, eq. 7.
    """
    return misalignment(at_x, _gradient(model, x_noisy, targets, again=True))


def misalignment(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 − mean cosine of two gradients per example, in [0, 2].

    Examples where one of the two is zero are left out; 0 where all are.

    Args:
        first: (B, ...).
        second: as `first`.
    """
    pairs = [gradient.flatten(1) for gradient in (first, second)]
    # A confident net's gradient is so small that its squares vanish: cosines know no length.
    sizes = [flat.detach().abs().amax(1, keepdim=True) for flat in pairs]
    kept = (sizes[0] > 0) & (sizes[1] > 0)
    # Masked, not chosen: no shape depends on the data, and no GPU waits to be asked how many.
    a, b = (
        torch.where(kept, flat / torch.where(kept, size, 1), 1)
        for flat, size in zip(pairs, sizes, strict=True)
    )
    cosines = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    apart: Tensor = ((1 - cosines) * kept.flatten()).sum() / kept.sum().clamp(min=1)
    return apart


def _gradient(model: nn.Module, x: Tensor, targets: Tensor, *, again: bool) -> Tensor:
    leaf = x.detach().requires_grad_()
    loss = cross_entropy(model(leaf), targets).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=again)
    return gradient

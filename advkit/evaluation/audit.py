"""What an evaluation checks itself: legal images, finite weights, the shape of inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from advkit.errors import AdvkitError, NumericalError
from advkit.formulas.threat import SLACK, Threat


def audited(x_adv: Tensor, x: Tensor, threat: Threat, name: str) -> Tensor:
    """Check that adversarial images are legal; return ‖x′ − x‖ per example, (B,).

    Raises:
        AdvkitError: outside the ball or the box by more than rounding.
        NumericalError: a pixel is not finite.
    """
    if not bool(torch.isfinite(x_adv).all()):
        raise NumericalError(f"{name} left the threat model: a pixel is not finite")
    norm = threat.distance(x_adv, x)
    slack = SLACK if threat.norm == "linf" else 1e-5 * max(threat.eps, 1)
    low, high = x_adv.amin(), x_adv.amax()
    legal = (norm <= threat.eps + slack).all() & (low >= -SLACK) & (high <= 1 + SLACK)
    if not bool(legal):
        raise AdvkitError(
            f"{name} left the threat model: norm {float(norm.max()):g} of {threat.eps:g}, "
            f"pixels {float(low):g} to {float(high):g}"
        )
    return norm


def fitted(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resize and convert images (B, C, H, W) to a model's input shape (channels, H, W)."""
    channels, height, width = shape
    if x.shape[1] != channels:
        grey = x.mean(1, keepdim=True) if x.shape[1] == 3 else x
        x = grey.expand(-1, channels, -1, -1)
    if x.shape[2:] != (height, width):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
    return x.contiguous()


def require_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Check weights before an evaluation.

    Raises:
        NumericalError: naming the first tensor with NaN or infinity.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NumericalError(f"{where}: {name} holds NaN or infinity")

"""What an evaluation checks itself: legal images, finite weights, the shape of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

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
    # An l2 or l1 norm is a sum over pixels, whose rounding grows with the radius.
    slack = SLACK if threat.norm == "linf" else 1e-5 * max(threat.eps, 1)
    low, high = x_adv.amin(), x_adv.amax()
    # One look at the device for all three: each costs a GPU a wait.
    legal = (norm <= threat.eps + slack).all() & (low >= -SLACK) & (high <= 1 + SLACK)
    if not bool(legal):
        raise AdvkitError(
            f"{name} left the threat model: norm {float(norm.max()):g} of {threat.eps:g}, "
            f"pixels {float(low):g} to {float(high):g}"
        )
    return norm

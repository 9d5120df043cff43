"""What a model's input gradients and its forward pass are like, example by example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from advkit.formulas.losses import log_odds, log_softmax, margin
from advkit.formulas.threat import Threat

FORWARDS = 3
"""Times the same images pass through the model."""
REACH = 0.01
"""Step of the finite difference, as a share of ε: short beside the model's kinks."""
FACTOR = 2.0
"""A gradient is off where it predicts more than so many times the change, or less than a part."""

Loss = Callable[[Tensor, Tensor], Tensor]


class Connected(nn.Module):
    """A model whose logits always hang on the image in autograd's eyes.

    A forward pass that cuts the graph (`detach`, integers) then has a gradient of zero, where
    autograd would refuse; that gradient is what an attack would see.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C)."""
        logits: Tensor = self.model(x)
        if x.requires_grad and not logits.requires_grad:
            return logits + 0 * x.flatten(1).sum(1, keepdim=True)
        return logits


def gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return ∇ₓ loss of each example, (B, C, H, W)."""
    x = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(model(x), y).sum(), x)
    return slope


def flat(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """Return which examples (B,) lack a usable gradient: zero in every pixel, or not finite.

    Asked are the log-odds, whose gradient has the direction of cross-entropy's and no scale at
    which it vanishes, and the margin, at the image and at a random point of the ball; one such
    gradient is enough.
    """
    vanished = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for point in (x, threat.start(x, "uniform", generator)):
        for loss in (log_odds, margin):
            slope = gradient(model, point, y, loss).flatten(1)
            vanished |= (slope == 0).all(1) | ~slope.isfinite().all(1)
    return vanished


def crooked(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """Compare the margin's gradient with a central finite difference: (off (B,), compared (B,)).

    With d the norm's steepest step of length 0.01·ε, (ℓ(x+d) − ℓ(x−d)) / (2·∇ℓ·d) is 1 for a
    smooth loss; outside [1/2, 2] the gradient is off. Examples without a gradient have nothing to
    compare. The margin serves because its gradient does not vanish with confidence.
    """
    slope = gradient(model, x, y, margin)
    # Central differences err by the square of the step: curvature alone makes no gradient wrong.
    step = threat.step(x, slope, REACH * threat.eps) - x
    predicted = 2 * (slope * step).flatten(1).sum(1)
    with torch.no_grad():
        seen = margin(model(x + step), y) - margin(model(x - step), y)
    compared = predicted.isfinite() & (predicted != 0)
    ratio = seen / torch.where(compared, predicted, 1.0)
    honest = (ratio >= 1 / FACTOR) & (ratio <= FACTOR)  # NaN is not
    return compared & ~honest, compared


def unsteady(model: nn.Module, x: Tensor) -> float:
    """Return the largest max|z′ − z|/max|z| over examples and repeated passes; 0 is steady.

    Where all z are 0, the change is relative to z′.
    """
    with torch.no_grad():
        first = model(x)
        changes = [_change(first, model(x)) for _ in range(FORWARDS - 1)]
    return float(torch.stack(changes).amax().nan_to_num())  # NaN twice is no change


def _change(first: Tensor, again: Tensor) -> Tensor:
    """Return the largest relative change of a batch's logits."""
    change, before = (again - first).abs().amax(1), first.abs().amax(1)
    length = before.where(before > 0, again.abs().amax(1))
    return (change / length.where(length > 0, 1.0)).amax()


def gaps(logits: Tensor) -> Tensor:
    """Return the highest logit less the second, (B,)."""
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def saturated(logits: Tensor) -> Tensor:
    """Return where float32's softmax is exactly 1 for some class, (B,): a gap of about 17."""
    return log_softmax(logits).exp().amax(1) == 1

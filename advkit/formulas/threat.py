"""The threat model: a norm ball around an image, inside the pixel box [0, 1].

Nothing here imports torch, so that a mistyped ε is refused at once; tensors bring their own
methods.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from advkit.errors import UsageError, brief
from advkit.runtime.memory import moved

if TYPE_CHECKING:
    from torch import Generator, Tensor

NORMS = ("linf", "l2", "l1")
STARTS = ("uniform", "normal", "positive", "none")
LARGEST = {"linf": 1.0, "l2": 20.0, "l1": 1000.0}
"""Norm → the largest ε that is taken for one of pixel space [0, 1].

The box is no wider in linf; in l2 and l1 these lie above all that is published and below what
the usual ε are in 0..255 (l2 64 and 128, l1 2000).
"""
_FRACTION = re.compile(r"\s*[-+]?[0-9]{1,18}/0*[1-9][0-9]{0,17}\s*")
SLACK = 1e-6
"""How far rounding in float32 may carry ‖x′ − x‖ past ε before the audit calls it a breach."""


def number(text: str | float, what: str = "") -> float:
    """Read a decimal or a fraction.

    >>> number("8/255") == 8 / 255
    True

    Args:
        text: as typed.
        what: is read, for the message.

    Raises:
        UsageError: not a number, or one so near to 0 that it would be taken for it.
    """
    try:
        value = float(text)
    except ValueError:
        # Short: `Fraction` would work out a power of ten that has a billion digits.
        value = float(Fraction(text)) if _FRACTION.fullmatch(str(text)) else math.nan
    if not math.isfinite(value):
        named = f"{what} {brief(repr(text))}".lstrip()
        raise UsageError(f"{named} is not a number: write 0.031 or 8/255")
    if value == 0 and re.match(r"[-+\s]*[0.]*[1-9]", str(text)):
        raise UsageError(f"{f'{what} {brief(str(text))}'.lstrip()} is too near to 0")
    return value


def parse_eps(text: str | float, norm: str | None = "linf") -> float:
    """Read ε in pixel space [0, 1].

    Args:
        text: a decimal or a fraction.
        norm: of the ball; None where it is not known yet.

    Raises:
        UsageError: not a number, negative, or as large as only values in 0..255 are (`LARGEST`).
    """
    eps = number(text, "eps")
    if eps < 0:
        raise UsageError(f"eps {text} is negative")
    if norm is not None and eps > LARGEST.get(norm, math.inf):
        raise UsageError(f"eps {text} ({norm}) is not in pixel space [0, 1]{_in_pixels(str(text))}")
    return eps


def _in_pixels(text: str) -> str:
    """Return the question whether a number was meant in 0..255; a fraction was not."""
    return "" if "/" in text else f": did you mean {text}/255?"


@dataclass(frozen=True)
class Threat:
    """Images x′ with ‖x′ − x‖ ≤ ε and every pixel in [0, 1].

    `norm` is linf, l2 or l1; `eps` is in pixel space.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UsageError(f"unknown norm {self.norm!r}: one of {', '.join(NORMS)}")

    def start(
        self,
        x: Tensor,
        kind: str,
        generator: Generator | None,
        rows: Tensor | None = None,
        total: int = 0,
        clip: bool = True,
    ) -> Tensor:
        """Return the first iterate, (B, C, H, W), inside ball and box if `clip`.

        Without `clip` it is x plus the noise, as in the codes of TRADES, AWP's TRADES and MART:
        pixels may be outside the box, where the first gradient is taken; the projection after
        the first step brings them back.

        Where x is this process's part of a batch of `total`, `rows` (B,) are its places there:
        noise is drawn for the whole batch, so that it does not depend on who shares it.

        `uniform`: uniform over the cube (linf) or with a uniform radius on a random direction
        (l2, l1). `normal`: 0.001·N(0, 1), TRADES' start, needed where the gradient at x is zero.
        `positive`: 0.001·U[0, 1), the start of ADR's TRADES code. `none`: x itself.
        """
        if kind == "none":
            return x.clone()
        # On the generator's device: on the CPU a GPU run draws the noise of any other.
        device = generator.device if generator is not None else x.device
        noise = x.new_empty((len(x) if rows is None else total, *x.shape[1:]), device=device)
        if kind == "normal":
            noise.normal_(generator=generator).mul_(0.001)
        elif kind == "positive":
            noise.uniform_(0, 0.001, generator=generator)
        elif kind == "uniform" and self.norm == "linf":
            noise.uniform_(-self.eps, self.eps, generator=generator)
        elif kind == "uniform":
            noise.normal_(generator=generator)
            if self.norm == "l1":  # signed exponentials are uniform in direction there
                noise = noise.sign() * noise.clone().exponential_(generator=generator)
            # A uniform radius, not a uniform point: in many dimensions that lies at the surface.
            radius = noise.new_empty((len(noise), 1, 1, 1))
            radius.uniform_(0, self.eps, generator=generator)
            length = self._length(noise)
            noise = noise / length.where(length > 0, 1.0) * radius
        else:
            raise UsageError(f"unknown attack start {kind!r}: one of {', '.join(STARTS)}")
        if rows is not None:
            noise = noise[moved(rows, noise.device)]
        started = x + moved(noise, x.device)
        return self.project(started, x) if clip else started

    def step(self, x_adv: Tensor, gradient: Tensor, size: float) -> Tensor:
        """Go `size` along the steepest ascent of the norm.

        linf: the sign; l2: the unit vector; l1: the steepest hundredth of the coordinates.
        """
        if self.norm == "l1":
            from advkit.formulas import l1

            return l1.step(x_adv, gradient, size)
        if self.norm == "linf":
            return x_adv + size * gradient.sign()
        return x_adv + size * _unit(gradient)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the nearest point of the ball, then of the box (which keeps it in the ball).

        l1 takes the nearest point of both at once, see `l1.project`.
        """
        if self.norm == "l1":
            from advkit.formulas import l1

            return l1.project(x_adv, x, self.eps)
        delta = x_adv - x
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            length = self._length(delta)
            delta = delta * (self.eps / length).where(length > self.eps, 1.0)
        return (x + delta).clamp(0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return ‖x′ − x‖ per example, (B,)."""
        delta = x_adv - x
        return self._length(delta).flatten()

    def _length(self, delta: Tensor) -> Tensor:
        """Return the norm of each example, (B, 1, ..., 1)."""
        flat = delta.flatten(1)
        if self.norm == "linf":
            length = flat.abs().amax(1)
        else:
            length = flat.norm(dim=1) if self.norm == "l2" else flat.abs().sum(1)
        return length.view(-1, *[1] * (delta.dim() - 1))


def _unit(vector: Tensor) -> Tensor:
    """Return v/‖v‖₂ per example for a v of any size, and 0 where v is 0.

    A confident net's gradient is so small that the squares in its norm vanish in float32. The
    power of two next below the largest entry scales exactly: no bit of the quotient depends on it.
    """
    size = vector.flatten(1).abs().amax(1).view(-1, *[1] * (vector.dim() - 1))
    power = size / (2 * size.frexp().mantissa)
    vector = vector / power.where(power > 0, 1.0)
    length = vector.flatten(1).norm(dim=1).view_as(size)
    unit: Tensor = vector / length.where(length > 0, 1.0)
    return unit


def step_size(text: str, eps: float) -> float:
    """Read a step size: a number in pixel space, or a share of ε such as `eps/4`.

    >>> step_size("eps/4", 0.2)
    0.05
    >>> step_size("2/255", 8 / 255) == 2 / 255
    True

    Raises:
        UsageError: not a number above 0, or not a share of ε.
    """
    share = re.fullmatch(r"\s*(?:([\d.]+)\s*\*\s*)?eps\s*(?:/\s*([\d.]+))?\s*", text)
    if not share:
        size = number(text, "step size")
    else:
        divisor = number(share[2] or "1")
        size = number(share[1] or "1") * eps / divisor if divisor else 0.0
    if not size > 0 and eps > 0:
        raise UsageError(f"step size {brief(repr(text))} is not above 0")
    return size


def require_step(text: str, eps: float) -> None:
    """Check a step size against the ball it is for.

    Raises:
        UsageError: see `step_size`; or a number that leads out of the ball from any point of it,
            as one in 0..255 does.
    """
    if step_size(text, eps) > 2 * eps > 0 and "eps" not in text:
        raise UsageError(
            f"step size {text} is wider than the ball of eps {eps:g} in pixel space [0, 1]"
            f"{_in_pixels(text)}"
        )

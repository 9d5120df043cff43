"""A sweep's points, who stands at each of them, and what that says."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.errors import UsageError, brief
from advkit.formulas.stats import tail, wilson
from advkit.formulas.threat import Threat, parse_eps
from advkit.formulas.threat import step_size as parse_step

SURE = 0.01
"""A rise of accuracy less likely than this by chance counts as one."""


@dataclass(frozen=True)
class Point:
    """One attack of a sweep: PGD with so many steps of a size inside a ball."""

    sweep: str
    threat: Threat
    steps: int
    size: float


@dataclass(frozen=True)
class Standing:
    """A sweep's points in order, and who stands: `stands` (points, N) bool."""

    points: Sequence[Point]
    stands: Tensor

    @property
    def accuracy(self) -> list[float]:
        """Share that stands at each point, attacked afresh."""
        shares: list[float] = self.stands.double().mean(1).tolist()
        return shares

    @property
    def nested(self) -> list[float]:
        """Share that stands at each point and all before it."""
        before = self.stands.to(torch.uint8).cummin(0).values
        shares: list[float] = before.double().mean(1).tolist()
        return shares

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """95 % Wilson interval of each accuracy."""
        return [wilson(int(mask.sum()), len(mask)) for mask in self.stands]

    @property
    def rises(self) -> list[float | None]:
        """One-sided p of each point's rise over the lowest point before it; None if it is none."""
        p_values: list[float | None] = [None]
        for place in range(1, len(self.points)):
            # Against the lowest point before and not the neighbour: small rises add up.
            now = self.stands[place]
            least = self.stands[int(self.stands[:place].sum(1).argmin())]
            freed, broken = int((now & ~least).sum()), int((least & ~now).sum())
            p_values.append(by_chance(freed, broken) if freed > broken else None)
        return p_values

    @property
    def monotone(self) -> bool:
        """Whether accuracy never rises beyond noise."""
        return all(p is None or p >= SURE for p in self.rises)


def by_chance(freed: int, broken: int) -> float:
    """Return how likely a stronger attack frees so many of the examples whose verdict changed.

    Σ_{k ≥ freed} C(freed + broken, k) / 2^(freed + broken): the sign test. An honest model's
    examples are no likelier to be freed than to be broken.

    >>> round(by_chance(3, 0), 9)
    0.125
    """
    return tail(freed, freed + broken, 0.5)


def half(radii: Sequence[float], accuracy: Sequence[float], clean: float) -> float | None:
    """Return the ε where accuracy first falls to half the clean one, straight between points.

    None where it does not, or where nothing is right when clean.

    >>> half([0.0, 0.5], [1.0, 0.0], 1.0)
    0.25
    """
    wanted = clean / 2
    before = (0.0, clean)
    for eps, share in zip(radii, accuracy, strict=True):
        if clean > 0 and share <= wanted:
            fallen = (before[1] - wanted) / (before[1] - share)
            return before[0] + fallen * (eps - before[0])
        before = (eps, share)
    return None


def parse_radii(text: str, threat: Threat, pixels: int) -> list[float]:
    """Read ε values, increasing: shares of ε such as 1.5*eps, or values in pixel space.

    A share reaches no farther than from one corner of the pixel box to the opposite one.

    >>> parse_radii("0,eps/2,20*eps,1/5", Threat("linf", 0.1), 64)
    [0.0, 0.05, 0.2, 1.0]

    Raises:
        UsageError: another word, or an impossible ε.
    """
    corner = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[threat.norm]
    radii = set()
    for word in text.split(","):
        try:
            if "eps" in word:
                radii.add(min(parse_step(word, threat.eps), corner))
            else:
                radii.add(parse_eps(word, threat.norm))
        except UsageError as error:
            said = f"{word!r} is no share of ε such as eps/4" if "eps" in word else error
            raise UsageError(f"--eps-grid: {said}") from None
    return sorted(radii)


def parse_steps(text: str) -> list[int]:
    """Read `1,2,4` as increasing numbers of steps.

    Raises:
        UsageError: not whole numbers above 0 apart by commas.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("0*[1-9][0-9]{0,4}", word) for word in words):
        raise UsageError(
            f"--steps-grid {brief(repr(text))}: whole numbers from 1 to 99999 apart by commas"
        )
    return sorted({int(word) for word in words})

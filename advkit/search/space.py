"""What ADR leaves to be chosen for a data set, and the ranges in which it is searched.

The paper's settings (ADR, section 5.1): τ 2.5:2.0 on CIFAR-10, 1.5:1.0 on CIFAR-100, 2.0:1.5 on
TinyImageNet; λ 0.7:0.95 on both CIFARs, 0.5:0.9 on TinyImageNet; γ 0.995 throughout. Widened:

- τ start 0.75 to 5, in log: half the paper's least to twice its largest;
- τ end 0.5 up to the start: half the paper's least. In all three τ falls: sharper targets as the
  teacher gets better;
- λ start 0.2 to 0.9: from nearly hard labels to beyond the paper's largest;
- λ end from the start up to 0.99. In all three λ rises: trust comes with training;
- γ 0.95 to 0.9995, 1 − γ in log: ten times the paper's 0.005 each way, for what γ averages over is
  a number of steps, and a small data set has few.

Each end is drawn as a share of the way from its start, so that every draw keeps to the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advkit.formulas.schedules import parse_span

LEAST_TAU, MOST_LAMBDA = 0.5, 0.99
"""Where τ may end, and λ."""
RANGES: Mapping[str, tuple[float, float, bool]] = {
    "tau_start": (0.75, 5.0, True),
    "tau_fall": (0.0, 1.0, False),
    "lambda_start": (0.2, 0.9, False),
    "lambda_rise": (0.0, 1.0, False),
    "ema_gap": (5e-4, 5e-2, True),
}
"""Coordinate → its least, its most, and whether it is drawn in log."""
DIGITS, GAP_DIGITS = 3, 5
"""Decimals of τ and λ, and of γ: what is trained with is what a command line says."""


@dataclass(frozen=True)
class Point:
    """A choice of τ and λ, START:END each as typed, and of γ."""

    tau: str
    lambda_: str
    ema_decay: float

    @property
    def options(self) -> dict[str, object]:
        """The choice as options of a run."""
        return {"tau": self.tau, "lambda": self.lambda_, "ema_decay": self.ema_decay}

    @property
    def coordinates(self) -> dict[str, float]:
        """The coordinates of the choice, in `RANGES`; `at` of them is the choice again."""
        tau, tau_end = parse_span(self.tau)
        trust, trust_end = parse_span(self.lambda_)
        values = {
            "tau_start": tau,
            "tau_fall": (tau - tau_end) / (tau - LEAST_TAU),
            "lambda_start": trust,
            "lambda_rise": (trust_end - trust) / (MOST_LAMBDA - trust),
            "ema_gap": 1 - self.ema_decay,
        }
        # Rounding may have led over an end by a hair, which a sampler takes amiss.
        return {
            name: min(max(value, RANGES[name][0]), RANGES[name][1])
            for name, value in values.items()
        }


def at(coordinates: Mapping[str, float]) -> Point:
    """Return the choice at coordinates in `RANGES`.

    >>> at({"tau_start": 2, "tau_fall": 1, "lambda_start": 0.5, "lambda_rise": 0, "ema_gap": 0.01})
    Point(tau='2:0.5', lambda_='0.5:0.5', ema_decay=0.99)
    """
    tau = round(coordinates["tau_start"], DIGITS)
    tau_end = tau - coordinates["tau_fall"] * (tau - LEAST_TAU)
    trust = round(coordinates["lambda_start"], DIGITS)
    trust_end = trust + coordinates["lambda_rise"] * (MOST_LAMBDA - trust)
    decay = round(1 - coordinates["ema_gap"], GAP_DIGITS)
    return Point(_span(tau, tau_end), _span(trust, trust_end), decay)


def _span(start: float, end: float) -> str:
    return f"{start:g}:{round(end, DIGITS):g}"


PAPER = Point("2.5:2", "0.7:0.95", 0.995)
"""The paper's choice for CIFAR-10, which are the defaults: the first trial of every search."""

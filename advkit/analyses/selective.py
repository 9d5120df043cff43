"""Selective prediction, clean and under attack: the risk of the most confident answers, AURC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from advkit.analyses.drawing.panels import in_percent, layer
from advkit.analyses.drawing.style import COLOURS
from advkit.analyses.gathering.rows import conditions, require_labels
from advkit.analyses.statistics.calibration import scores
from advkit.analyses.statistics.selection import (
    Counts,
    area,
    least_area,
    resampled_area,
    risks,
    tied,
)
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Layer, Number, Panel, Result
from advkit.formulas import resampling
from advkit.formulas.resampling import Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("logits",)
OVERLAY = True
LIMITS = {"risk": "[0, 1)", "seed": "[0, 4294967295]", "resamples": "[1, 1e6]"}
_DECIMALS = 12
"""To which confidences are equal: their last bits depend on a row's place in a vector register."""
_DRAWN = 400
"""Points of a drawn curve at most."""
_MARKED = 25
"""Points of a curve among those of other nets, each with its marker."""
_COVERAGE, _RISK = "coverage: answers taken", "risk: wrong among these"
_STYLES = {"clean": ("-", "o"), "adversarial": ("--", "s")}


class _Curve(NamedTuple):
    """The answers of one condition, by confidence, the greatest first: three arrays (G,)."""

    confidence: Values
    answers: Counts
    errors: Counts

    @property
    def n(self) -> int:
        return int(self.answers.sum())


def analyze(
    inputs: Sequence[Logits], *, risk: float = 0.05, seed: int = 0, resamples: int = 1000
) -> Result:
    """Measure what a net's confidence is worth where it may abstain, from one logits file.

    For the outputs on clean images and, where the file has them, on attacked ones: `risk` (share
    wrong of all), `aurc` (the mean risk of the k most confident answers, k = 1..N) with its
    bootstrap interval, `least_aurc` (of a confidence that ranks every wrong answer last), `e_aurc`
    (the excess over it), and `coverage`, the largest share of answers that a threshold can take
    with a risk of at most `--risk`, 0 where none can. Confidence is the top probability; equal
    ones are taken together, or drawn among (the expectation is given), so that no figure depends
    on the order of rows. The attack did not aim at confidence: one that does may do more harm.

    Args:
        risk: the risk at which the coverage is given.
        seed: of the bootstrap.
        resamples: resamples behind the interval of AURC.

    Raises:
        InputError: out-of-distribution data, which has no labels.

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019 (AURC and E-AURC).
    """
    (logits,) = inputs
    y = require_labels(logits, "selective")
    numbers: dict[str, Number] = {"n": len(y), "risk": risk}
    rows: list[tuple[object, ...]] = []
    curves: dict[str, _Curve] = {}
    for name, values in conditions(logits).items():
        measured = scores(values, y, torch.arange(len(y)))
        confidence = measured.confidence.numpy().round(_DECIMALS)
        wrong = measured.correct.numpy() == 0
        curve = curves[name] = _Curve(*tied(confidence, wrong))
        # A stream of its own a condition, from its start.
        drawn = resampled_area(
            confidence, wrong, resampling.stream(seed, "selective", name), resamples
        )
        figures = {
            **_figures(curve, risk),
            "aurc_ci95": list(resampling.ends(drawn)) if len(y) > 1 else None,
        }
        numbers |= {f"{name}_{key}": value for key, value in figures.items()}
        rows += _rows(name, curve)
    header = ("condition", "threshold", "taken", "wrong", "coverage", "risk")
    panels = (_panel(curves, numbers),)
    return Result(numbers, header, tuple(rows), panels, overlay=_layers(curves))


def _figures(curve: _Curve, risk: float) -> dict[str, Number]:
    n, wrong = curve.n, int(curve.errors.sum())
    taken, failed = np.cumsum(curve.answers), np.cumsum(curve.errors)
    # In whole numbers, but for the risk that was asked for: 5 of 100 is a risk of 0.05.
    fine = taken[failed <= risk * taken + 1e-9]
    aurc, least = area(curve.answers, curve.errors), least_area(n, wrong)
    return {
        "risk": wrong / n,
        "aurc": aurc,
        "least_aurc": least,
        "e_aurc": max(aurc - least, 0.0),  # rounding may give −1e-17 for the best ranking
        "coverage": int(fine.max(initial=0)) / n,
    }


def _rows(name: str, curve: _Curve) -> list[tuple[object, ...]]:
    """Return a row a threshold: what it takes, and how much of that is wrong."""
    taken, failed = np.cumsum(curve.answers), np.cumsum(curve.errors)
    columns = (curve.confidence, taken, failed, taken / curve.n, failed / taken)
    return [(name, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _points(curve: _Curve) -> tuple[Values, Values]:
    """Return coverage and expected risk of a drawn curve."""
    risk = risks(curve.answers, curve.errors)
    kept = np.unique(np.linspace(0, len(risk) - 1, min(len(risk), _DRAWN)).round().astype(int))
    return (kept + 1) / len(risk), risk[kept]


def _panel(curves: dict[str, _Curve], numbers: dict[str, Number]) -> Panel:
    def draw(axes: Axes) -> None:
        for name, curve in curves.items():
            coverage, risk = _points(curve)
            style, marker = _STYLES[name]
            axes.plot(
                coverage,
                risk,
                color=COLOURS[name],
                linestyle=style,
                linewidth=1.3,
                marker=marker,
                markersize=3.5,
                markevery=max(1, len(coverage) // 10),
                label=f"{name}, AURC {numbers[f'{name}_aurc']:.3f}",
            )
        axes.set(xlim=(0, 1.02), ylim=(-0.02, None))
        in_percent(axes, "x", _COVERAGE)
        in_percent(axes, "y", _RISK)

    return draw


def _layers(curves: dict[str, _Curve]) -> tuple[Layer, ...]:
    """Return a layer a condition, for panels of several nets."""
    return tuple(_layer(name, *_points(curve)) for name, curve in curves.items())


def _layer(condition: str, coverage: Values, risk: Values) -> Layer:
    kept = np.unique(np.linspace(0, len(risk) - 1, min(len(risk), _MARKED)).round().astype(int))
    inner = layer(
        coverage[kept].tolist(), risk[kept].tolist(), xlabel="", ylabel="", title=condition
    )

    def draw(axes: Axes, name: str, place: int) -> None:
        inner(axes, name, place)
        axes.set(xlim=(0, 1.02))
        in_percent(axes, "x", _COVERAGE)
        in_percent(axes, "y", _RISK)

    return draw

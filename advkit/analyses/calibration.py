"""Calibration, clean and under attack: ECE, MCE, NLL, Brier, reliability, a fitted temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advkit.analyses.drawing.panels import lengths, whole
from advkit.analyses.drawing.style import COLOURS, GREY, Look, look
from advkit.analyses.gathering.rows import conditions, require_labels
from advkit.analyses.statistics.calibration import (
    Scores,
    fitted_temperature,
    halves,
    places,
    resampled,
    scores,
)
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Layer, Number, Panel, Result
from advkit.artifacts.rows import Rows
from advkit.errors import UsageError
from advkit.formulas.stats import wilson
from advkit.runtime.seeding import generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMITS = {"bins": "[1, 1e5]", "seed": "[0, 4294967295]", "resamples": "[1, 1e6]"}
KINDS = ("logits",)
OVERLAY = True


@dataclass(frozen=True)
class Bins:
    """Non-empty bins of confidence: `low`, `high`, `count`, mean `confidence`, `accuracy`."""

    low: Tensor
    high: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def gaps(self) -> Tensor:
        """|accuracy − confidence| of each bin."""
        return (self.accuracy - self.confidence).abs()

    @property
    def error(self) -> float:
        """Mean gap weighted by count."""
        return float((self.gaps * self.count).sum() / self.count.sum())


def reliability(probabilities: Tensor, y: Tensor, bins: int, *, equal_mass: bool = False) -> Bins:
    """Sort predictions into bins of confidence.

    Args:
        probabilities: (N, C), rows summing to 1.
        y: (N,) int64.
        bins: how many, see `binned`.
        equal_mass: see `binned`.
    """
    confidence, predicted = probabilities.double().max(1)
    return binned(confidence, (predicted == y).double(), bins, equal_mass=equal_mass)


def binned(confidence: Tensor, correct: Tensor, bins: int, *, equal_mass: bool = False) -> Bins:
    """Sort examples into bins of confidence.

    Args:
        confidence: (N,) float64 in [0, 1].
        correct: (N,) float64, 1 if right else 0.
        bins: how many; of equal width (k/bins, (k+1)/bins], so that confidence 1 lies in the
            last one, or of equal mass.
        equal_mass: bins hold equally many examples (to within one) in order of confidence;
            more where several share a confidence, which is never cut in two.
    """
    place = _equal_mass(confidence, bins) if equal_mass else places(confidence, bins)
    count = torch.bincount(place, minlength=bins).double()
    filled = count > 0
    mean_confidence, accuracy = (
        torch.bincount(place, weights=values, minlength=bins)[filled] / count[filled]
        for values in (confidence, correct)
    )
    edges = torch.arange(bins + 1).double() / bins
    low, high = edges[:-1], edges[1:]
    if equal_mass:  # such bins have no edges but those of the confidences they hold
        low, high = (
            edges.new_zeros(bins).scatter_reduce(0, place, confidence, end, include_self=False)
            for end in ("amin", "amax")
        )
    return Bins(low[filled], high[filled], count[filled], mean_confidence, accuracy)


def _equal_mass(confidence: Tensor, bins: int) -> Tensor:
    """Return the bin of each example, (N,): equal counts in order of confidence.

    One confidence belongs to one bin, that of its middle rank, however many examples share it:
    cut between equals, the bins would depend on the order of rows. Bins may then stay empty.
    """
    _, value, shared = torch.unique(confidence, return_inverse=True, return_counts=True)
    groups = torch.tensor_split(torch.arange(len(confidence)), bins)
    of_rank = torch.cat([torch.full_like(ranks, k) for k, ranks in enumerate(groups)])
    middle = shared.cumsum(0) - 1 - shared // 2
    return of_rank[middle[value]]


def ece(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal width, in [0, 1].

    Σ_k n_k/N · |accuracy_k − confidence_k|.

    Args:
        probabilities: (N, C).
        y: (N,) int64.
        bins: number of bins.

    >>> p = torch.tensor([[0.75, 0.25], [0.75, 0.25]])
    >>> ece(p, torch.tensor([0, 1]), 10)
    0.25

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3. Unlike
    torchmetrics 1.9, a confidence of exactly 1 belongs to the last bin.
    """
    return reliability(probabilities, y, bins).error


def adaptive_ece(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    """Return the calibration error over bins of equal mass, in [0, 1].

    Source: Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019.
    """
    return reliability(probabilities, y, bins, equal_mass=True).error


def brier(probabilities: Tensor, y: Tensor) -> float:
    """Return the mean of Σ_c (p_c − onehot_c)², in [0, 2].

    Source: Brier, "Verification of forecasts", Monthly Weather Review 1950.
    """
    truth = torch.nn.functional.one_hot(y, probabilities.shape[1])
    return float((probabilities.double() - truth).square().sum(1).mean())


def analyze(
    inputs: Sequence[Logits], *, bins: int = 15, seed: int = 0, resamples: int = 1000
) -> Result:
    """Measure calibration of one logits file.

    A temperature is fitted to each condition's own logits on one half of the examples, drawn by
    the seed; `ece_fitted` and `nll_fitted` are measured on the other half, as are `ece_held` and
    `nll_held` without it. They are null where no finite temperature is best.

    Args:
        bins: bins of confidence, of equal width (of equal mass for adaptive ECE).
        seed: parts the examples for the fit and draws the resamples.
        resamples: resamples behind the intervals of ECE and Brier score.

    Raises:
        InputError: out-of-distribution data, which has no labels.
        UsageError: no bin or no resample.
    """
    for word, value in (("bins", bins), ("resamples", resamples)):
        if value < 1:
            raise UsageError(f"--{word} must be at least 1")
    (logits,) = inputs
    y = require_labels(logits, "calibration")
    numbers: dict[str, Number] = {"n": len(y), "bins": bins}
    rows: list[tuple[str, *tuple[float, ...]]] = []
    panels: list[Panel] = []
    layers: list[Layer] = []
    for name, values in conditions(logits).items():
        measured = scores(values, y, torch.arange(len(y)))
        even = binned(measured.confidence, measured.correct, bins)
        # A stream of its own a condition, from its start: both resample the same examples.
        draws = generator(seed, "calibration resamples")
        random = resampled(measured, even.error, bins, resamples, draws)
        figures = {
            **_figures(measured, even, bins),
            "ece_ci95": random.ece,
            "ece_if_calibrated": random.ece_if_calibrated,
            "brier_ci95": random.brier,
            **_after(values, y, bins, seed),
        }
        numbers.update({f"{name}_{key}": value for key, value in figures.items()})
        columns = (even.low, even.high, even.count, even.confidence, even.accuracy)
        rows += [(name, *line) for line in zip(*(c.tolist() for c in columns), strict=True)]
        panels.append(_diagram(name, even, random.ece))
        layers.append(_layer(name, even))
    header = ("condition", "low", "high", "count", "confidence", "accuracy")
    return Result(numbers, header, tuple(rows), tuple(panels), overlay=tuple(layers))


def _figures(measured: Scores, even: Bins, bins: int) -> dict[str, Number]:
    correct = int(measured.correct.sum())
    return {
        "accuracy": float(measured.correct.mean()),
        "accuracy_ci95": list(wilson(correct, len(measured.correct))),
        "confidence": float(measured.confidence.mean()),
        "ece": even.error,
        "adaptive_ece": binned(measured.confidence, measured.correct, bins, equal_mass=True).error,
        "mce": float(even.gaps.max()),
        "nll": float(measured.nll.mean()),
        "brier": float(measured.brier.mean()),
    }


def _after(values: Rows, y: Tensor, bins: int, seed: int) -> dict[str, Number]:
    """Fit a temperature on one half; return it with NLL and ECE of the other, before and after."""
    # Measured on the examples that it was fitted to, a temperature would look too good.
    fit, held = halves(len(y), seed)
    temperature = fitted_temperature(values, y, fit)
    figures: dict[str, Number] = {"temperature": temperature}
    for word, t in (("held", 1.0), ("fitted", temperature)):
        figures |= {f"nll_{word}": None, f"ece_{word}": None}
        if t is not None:
            cooled = scores(values, y, held, t)
            figures[f"nll_{word}"] = float(cooled.nll.mean())
            figures[f"ece_{word}"] = binned(cooled.confidence, cooled.correct, bins).error
    return figures


def _diagram(name: str, bins: Bins, ends: list[float] | None) -> Panel:
    """Return a reliability diagram: accuracy per bin with its 95 % Wilson interval."""
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""

    def draw(axes: Axes) -> None:
        _diagonal(axes)
        own = look(list(COLOURS).index(name))._replace(colour=COLOURS[name])
        axes.bar(
            bins.low.tolist(),
            (bins.count / bins.count.sum()).tolist(),
            (bins.high - bins.low).tolist(),
            align="edge",
            color=own.colour,
            alpha=0.2,
            label="examples in the bin, share of all",
        )
        _reliable(axes, bins, own, "accuracy, 95 % interval")
        axes.set(title=f"{name}, ECE {bins.error:.3f}{interval}")

    return draw


def _layer(name: str, bins: Bins) -> Layer:
    """Return the accuracies of one net, for a panel of several."""

    def draw(axes: Axes, net: str, place: int) -> None:
        if place == 0:
            _diagonal(axes)
        _reliable(axes, bins, look(place), net)
        axes.set(title=f"{name}, 95 % intervals")

    return draw


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    axes.set(xlabel="confidence (probability)", ylabel="accuracy (share of examples)")
    whole(axes, "x")
    whole(axes, "y")


def _reliable(axes: Axes, bins: Bins, own: Look, label: str) -> None:
    """Draw the accuracy of each bin with its interval, whole at the edges."""
    # Accuracies are quotients in floating point; the interval wants the count they came from.
    hits = (bins.accuracy * bins.count).round().int().tolist()
    ends = [wilson(hit, int(n)) for hit, n in zip(hits, bins.count.tolist(), strict=True)]
    accuracy = bins.accuracy.tolist()
    axes.errorbar(
        bins.confidence.tolist(),
        accuracy,
        yerr=lengths(accuracy, ends),
        color=own.colour,
        marker=own.marker,
        markersize=3.5,
        linewidth=1.2,
        linestyle=own.line,
        elinewidth=0.7,
        capsize=1.5,
        clip_on=False,
        label=label,
    )

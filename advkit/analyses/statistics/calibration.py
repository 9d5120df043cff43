"""Behind calibration: scores per example, a temperature fitted afterwards, resampled intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from advkit.artifacts.rows import Rows, height
from advkit.formulas.losses import cross_entropy, log_softmax
from advkit.formulas.minimum import bounded
from advkit.runtime import seeding

REACH = 10.0
"""How far, in log T, a fitted temperature may lie from the logits' mean spread."""
TAIL = 0.025


@dataclass(frozen=True)
class Scores:
    """(N,) float64 each: top probability, 1 if right else 0, −log p_y in nats, Brier score."""

    confidence: Tensor
    correct: Tensor
    nll: Tensor
    brier: Tensor


def scores(logits: Rows, y: Tensor, rows: Tensor, temperature: float = 1.0) -> Scores:
    """Return the scores of softmax(z/T), piece by piece.

    Args:
        logits: z, (N, C).
        y: (N,) int64.
        rows: which of them, in increasing order.
        temperature: T > 0.
    """
    columns = []
    for piece in torch.split(rows, height(logits)):
        log_p = log_softmax(logits[piece].double() / temperature)
        confidence, predicted = log_p.exp().max(1)
        true = log_p.gather(1, y[piece, None]).squeeze(1)
        # Σ_c (p_c − 1[c = y])² = Σ_c p_c² − 2·p_y + 1.
        brier = (2 * log_p).exp().sum(1) - 2 * true.exp() + 1
        columns.append(torch.stack([confidence, (predicted == y[piece]).double(), -true, brier]))
    return Scores(*torch.cat(columns, 1))


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return n places parted at random: those to fit on, and the rest, which is never smaller.

    Both are in increasing order.
    """
    order = torch.randperm(n, generator=seeding.generator(seed, "calibration halves"))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values


def fitted_temperature(logits: Rows, y: Tensor, rows: Tensor) -> float | None:
    """Return the T > 0 at which the mean −log softmax(z/T)_y is least; None if there is none.

    The loss is convex in 1/T. It has a least value at a finite T > 0 exactly if true classes have
    logits above the mean logit on average (else T = ∞, the uniform output, is best) and one
    example at least is wrong (else T = 0 is).

    Args:
        logits: z, (N, C).
        y: (N,) int64.
        rows: which of them to fit on, in increasing order.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    # Both conditions, and the mean spread z_max − z_min, which has the scale of a sensible T.
    gain = short = spread = 0.0
    for piece in torch.split(rows, height(logits)) if len(rows) else ():
        z = logits[piece].double()
        true, top = z.gather(1, y[piece, None]).squeeze(1), z.amax(1)
        gain += float((true - z.mean(1)).sum())
        short = max(short, float((top - true).max()))
        spread += float((top - z.amin(1)).sum())
    if gain <= 0 or short <= 0:
        return None
    return _least(logits, y, rows, math.log(spread / len(rows)))


def _least(logits: Rows, y: Tensor, rows: Tensor, centre: float) -> float | None:
    """Return the best T; None if it lies where outputs are one-hot or uniform all the same."""

    def loss(log_t: float) -> float:
        pieces = torch.split(rows, height(logits))
        losses = (cross_entropy(logits[p].double() / math.exp(log_t), y[p]) for p in pieces)
        return math.fsum(float(values.sum()) for values in losses) / len(rows)

    # In log T the search is as fine for sharp logits as for flat ones.
    ends = (centre - REACH, centre + REACH)
    minimum = bounded(loss, *ends, near=1e-6)
    return math.exp(minimum) if min(minimum - ends[0], ends[1] - minimum) > 0.01 else None


@dataclass(frozen=True)
class Resampled:
    """What resampling says: 95 % intervals, and the ECE of a calibrated model on as many."""

    ece: list[float] | None
    brier: list[float] | None
    ece_if_calibrated: float


def resampled(
    measured: Scores, ece: float, bins: int, resamples: int, generator: Generator
) -> Resampled:
    """Return bootstrap intervals of an ECE and the Brier score; None of fewer than two examples.

    ECE's is the basic bootstrap interval, 2·ECE minus the quantiles: ECE is biased upward, the
    more the fewer examples, and resampling adds the same bias again, so that the usual percentile
    interval lies too high. It is widened to 0 where a calibrated model, one that is right with
    probability `confidence`, may show as much (97.5 % quantile over labels drawn so), and to the
    ECE itself. Brier's is the percentile interval.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; Bröcker and Smith,
    "Increasing the Reliability of Reliability Diagrams", Weather and Forecasting 2007.
    """
    n, confidence = len(measured.correct), measured.confidence
    place = places(confidence, bins)
    gap = measured.correct - confidence
    drawn = torch.zeros(3, resamples, dtype=torch.float64)
    for k in range(resamples):
        rows = torch.randint(n, (n,), generator=generator)
        chance = torch.rand(n, generator=generator, dtype=torch.float64)
        drawn[0, k] = _ece(gap[rows], place[rows], bins)
        drawn[1, k] = measured.brier[rows].mean()
        drawn[2, k] = _ece((chance < confidence).double() - confidence, place, bins)
    calibrated = float(drawn[2].mean())
    if n < 2:
        return Resampled(None, None, calibrated)
    low, high = _quantiles(drawn[0])
    possible = ece <= _quantiles(drawn[2])[1]
    ends = [0.0 if possible else max(2 * ece - high, 0.0), min(max(2 * ece - low, ece), 1.0)]
    return Resampled(ends, _quantiles(drawn[1]), calibrated)


def places(confidence: Tensor, bins: int) -> Tensor:
    """Return each one's bin of (k/bins, (k+1)/bins], (N,) int64."""
    return (confidence * bins).ceil().long().clamp(1, bins) - 1


def _ece(gap: Tensor, place: Tensor, bins: int) -> float:
    return float(torch.bincount(place, weights=gap, minlength=bins).abs().sum()) / len(gap)


def _quantiles(values: Tensor) -> list[float]:
    ends = torch.tensor([TAIL, 1 - TAIL], dtype=values.dtype)
    return [float(end) for end in torch.quantile(values, ends)]

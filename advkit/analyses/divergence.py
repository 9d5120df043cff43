"""Jensen–Shannon divergence between the predictions on clean and on adversarial images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from advkit.analyses.drawing.histograms import BINS, bin_rows, counted, edges, histogram, outline
from advkit.analyses.statistics import outputs
from advkit.analyses.statistics.scores import averaged
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.result import Histogram, Number, Result
from advkit.artifacts.rows import Rows, argmax, piecewise
from advkit.errors import UsageError
from advkit.formulas.information import TOP
from advkit.formulas.information import jensen_shannon as jensen_shannon  # stays importable
from advkit.formulas.losses import kl_divergence
from advkit.formulas.stats import wilson

LIMITS = {"bins": "[1, 1e5]"}
KINDS = ("logits",)
OVERLAY = True
_ALL = "clean to adversarial"
_XLABEL = "Jensen–Shannon divergence (nats)"


def analyze(inputs: Sequence[Logits], *, bins: int = 30) -> Result:
    """Measure how far an attack moves the output distribution of one logits file.

    `divergence_broken` is the mean over examples that the attack broke, `divergence_robust` that
    over those right to the end; in neither are those wrong when clean. `kl` is the mean of
    KL(clean ‖ adversarial) in nats, `changed` the share of predictions that changed. Intervals of
    means are normal ones, of shares Wilson's.

    Args:
        bins: bins of the histogram over [0, ln 2].

    Raises:
        InputError: the file has no adversarial logits.
        UsageError: no bin.

    Source: ADR, section 3.2 and figure 2e.
    """
    if bins < 1:
        raise UsageError("--bins must be at least 1")
    (logits,) = inputs
    divergences = outputs.divergences(logits)
    assert logits.adversarial is not None  # else there were none
    quantiles = torch.quantile(divergences, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    numbers: dict[str, Number] = {
        "n": len(divergences),
        **averaged("divergence", divergences, TOP),
        "divergence_median": quantiles[0],
        "divergence_p95": quantiles[1],
        "max_divergence": TOP,
        **_moved(logits.clean, logits.adversarial),
    }
    series = {_ALL: divergences}
    if logits.broken_by is not None:
        sides = {"robust": logits.broken_by == ROBUST, "broken": logits.broken_by >= 0}
        series |= {name: divergences[chosen] for name, chosen in sides.items()}
        for name in sides:
            numbers |= averaged(f"divergence_{name}", series[name], TOP)
    counts = {name: counted(values, bins, TOP) for name, values in series.items()}
    bounds = edges(bins, TOP)
    rows = bin_rows(bounds, counts)
    whole = {_ALL: counts.pop(_ALL)}
    figures = [Histogram(f"mean {float(divergences.mean()):.3f}", bounds, whole)]
    figures += [Histogram("by what the attack did", bounds, counts)] if counts else []
    panels = tuple(histogram(figure, _XLABEL) for figure in figures)
    layers = (outline(figures[0], _ALL, _XLABEL, _ALL),)
    return Result(numbers, BINS, rows, panels, tuple(figures), overlay=layers)


def _moved(clean: Rows, adversarial: Rows) -> dict[str, Number]:
    kl = piecewise(lambda z, a: kl_divergence(z.double(), a.double()), clean, adversarial)
    changed = int((argmax(clean) != argmax(adversarial)).sum())
    return {
        **averaged("kl", kl, math.inf),
        "changed": changed / len(clean),
        "changed_ci95": list(wilson(changed, len(clean))),
    }

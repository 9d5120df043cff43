"""Jensen–Shannon divergence between the predictions on clean and on adversarial images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from advkit.analyses import Histogram, Result
from advkit.analyses._panels import histogram
from advkit.analyses.entropy import counted, edges, entropy
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, UsageError
from advkit.losses import log_softmax

KINDS = ("logits",)
TOP = math.log(2)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Return H((p + q)/2) − (H(p) + H(q))/2 per example, (B,), in nats, in [0, ln 2].

    The divergence, not its square root (which is the distance).

    Args:
        p: (B, C), rows summing to 1.
        q: (B, C), rows summing to 1.

    >>> p = torch.tensor([[1.0, 0.0]])
    >>> abs(float(jensen_shannon(p, p.flip(1))) - math.log(2)) < 1e-6
    True

    Source: Lin, "Divergence measures based on the Shannon entropy", 1991.
    """
    middle = entropy((p + q) / 2)
    return (middle - (entropy(p) + entropy(q)) / 2).clamp_min(0)


def analyze(inputs: Sequence[Logits], *, bins: int = 30) -> Result:
    """Measure how far an attack moves the output distribution of one logits file.

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
    if logits.adversarial is None:
        raise InputError(f"{logits.path}: divergence needs adversarial logits: attack it first")
    p, q = (log_softmax(z).double().exp() for z in (logits.clean, logits.adversarial))
    found = jensen_shannon(p, q)
    quantiles = torch.quantile(found, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    numbers: dict[str, float | int | str | None] = {
        "n": len(found),
        "divergence": float(found.mean()),
        "divergence_median": quantiles[0],
        "divergence_p95": quantiles[1],
        "max_divergence": TOP,
    }
    counts = {"clean to adversarial": counted(found, bins, TOP)}
    figure = Histogram(f"mean {float(found.mean()):.3f}", edges(bins, TOP), counts)
    rows = [
        (low, high, count)
        for low, high, count in zip(
            figure.edges, figure.edges[1:], counts["clean to adversarial"], strict=False
        )
    ]
    panel = histogram(figure, "Jensen–Shannon divergence (nats)")
    return Result(numbers, ("low", "high", "count"), tuple(rows), (panel,), (figure,))

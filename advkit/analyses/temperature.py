"""Accuracy by LTD's temperature: clean, under PGD and under AutoAttack, over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from advkit.analyses.drawing.panels import curve
from advkit.analyses.gathering.cells import seed_noise, spread
from advkit.analyses.gathering.rows import require_labels
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.result import Panel, Result
from advkit.artifacts.rows import argmax
from advkit.errors import InputError

KINDS = ("logits",)
COMPARES = True
_KEPT = {"clean": "clean", "pgd": "PGD", "autoattack": "AutoAttack"}
"""What is averaged, and how the picture calls it."""
_COLUMNS = ("temperature", "seeds", "clean", "pgd", "autoattack", "pgd_overstates", "n")


def analyze(inputs: Sequence[Logits]) -> Result:
    """Average logits files of LTD runs over seeds, a row a temperature.

    `pgd_overstates` is PGD's robust accuracy less AutoAttack's: what a PGD evaluation would have
    claimed too much. Means over the runs of a temperature.

    Raises:
        InputError: a file without labels, or whose checkpoint was not trained at a temperature.

    Source: LTD, Table 4.
    """
    shares_of: dict[float, dict[str, dict[Any, float]]] = defaultdict(lambda: defaultdict(dict))
    sizes: dict[float, int] = {}
    for place, logits in enumerate(inputs):
        t = _temperature(logits)
        y = require_labels(logits, "accuracy")
        sizes[t] = min(len(y), sizes.get(t, len(y)))
        clean = float((argmax(logits.clean) == y).double().mean())
        # The files of one checkpoint's attacks hold the same clean logits: they count once.
        shares_of[t]["clean"][logits.info["parents"][0].get("digest", place)] = clean
        if logits.broken_by is not None:
            robust = float((logits.broken_by == ROBUST).double().mean())
            shares_of[t][logits.info["config"]["attack"]][place] = robust
    shares = {t: {name: list(of[name].values()) for name in _KEPT} for t, of in shares_of.items()}
    rows = []
    for t in sorted(shares):
        clean_, pgd, judged = (_mean(shares[t][name]) for name in _KEPT)
        over = None if pgd is None or judged is None else pgd - judged
        seeds = max(len(shares[t][name]) for name in ("pgd", "autoattack"))
        rows.append((t, seeds, clean_, pgd, judged, over, sizes[t]))
    best = max((row for row in rows if row[4] is not None), key=_robust, default=None)
    numbers = {
        "files": len(inputs),
        "best_temperature": best[0] if best else None,
        "best_autoattack": best[4] if best else None,
    }
    return Result(
        dict(numbers),
        _COLUMNS,
        tuple(rows),
        (_panel(shares, sizes),),
        text=aligned([_COLUMNS, *rows]),
    )


def _panel(
    shares: Mapping[float, Mapping[str, Sequence[float]]], sizes: Mapping[float, int]
) -> Panel:
    """Return each accuracy's mean by temperature, with the interval that its runs leave."""
    x = sorted(shares)
    noise = {name: seed_noise(shares[t][name] for t in x) for name in _KEPT}
    intervals = {
        shown: [
            spread(shares[t][name], sizes[t], noise[name]) if shares[t][name] else None for t in x
        ]
        for name, shown in _KEPT.items()
    }
    return curve(
        x,
        {shown: [_mean(shares[t][name]) for t in x] for name, shown in _KEPT.items()},
        xlabel="temperature of the teacher",
        ylabel="accuracy",
        logx=True,
        intervals=intervals,
    )


def _robust(row: tuple[Any, ...]) -> float:
    return float(row[4])


def _temperature(logits: Logits) -> float:
    trained = logits.info["parents"][0].get("temperature")
    if trained is None:
        raise InputError(f"{logits.path}: its checkpoint was not trained on softened labels")
    return float(trained)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None

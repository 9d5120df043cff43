"""Accuracy by LTD's temperature: clean, under PGD and under AutoAttack, over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from advkit.analyses import Result, aligned
from advkit.analyses._panels import curve
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.errors import InputError

KINDS = ("logits",)
COMPARES = True
COLUMNS = ("temperature", "seeds", "clean", "pgd", "autoattack", "pgd_overstates", "n")


def analyze(inputs: Sequence[Logits]) -> Result:
    """Average logits files of LTD runs over seeds, a row a temperature.

    `pgd_overstates` is PGD's robust accuracy less AutoAttack's: what a PGD evaluation would have
    claimed too much. Means over the runs of a temperature.

    Raises:
        InputError: a file whose checkpoint was not trained at a temperature.

    Source: LTD, Table 4.
    """
    found: dict[float, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    sizes: dict[float, int] = {}
    for logits in inputs:
        t = _temperature(logits)
        n = sizes[t] = len(logits.labels)
        attack = logits.info["config"]["attack"]
        found[t]["clean"].append(float((logits.clean.argmax(1) == logits.labels).double().mean()))
        if logits.broken_by is not None:
            found[t][attack].append(int((logits.broken_by == ROBUST).sum()) / n)
    rows = []
    for t in sorted(found):
        clean, pgd, judged = (_mean(found[t][k]) for k in ("clean", "pgd", "autoattack"))
        over = None if pgd is None or judged is None else pgd - judged
        seeds = max(len(found[t][k]) for k in ("pgd", "autoattack"))
        rows.append((t, seeds, clean, pgd, judged, over, sizes[t]))
    series = {
        "clean": [row[2] for row in rows],
        "PGD": [row[3] for row in rows],
        "AutoAttack": [row[4] for row in rows],
    }
    picture = curve(
        [row[0] for row in rows], series,
        xlabel="temperature of the teacher", ylabel="accuracy", logx=True,
    )  # fmt: skip
    best = max((row for row in rows if row[4] is not None), key=_robust, default=None)
    numbers = {
        "files": len(inputs),
        "best_temperature": best[0] if best else None,
        "best_autoattack": best[4] if best else None,
    }
    return Result(dict(numbers), COLUMNS, tuple(rows), (picture,), text=aligned([COLUMNS, *rows]))


def _robust(row: tuple[Any, ...]) -> float:
    return float(row[4])


def _temperature(logits: Logits) -> float:
    trained = logits.info["parents"][0].get("temperature")
    if trained is None:
        raise InputError(f"{logits.path}: its checkpoint was not trained on softened labels")
    return float(trained)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

"""Accuracy by LTD's temperature: clean, under PGD and under AutoAttack, over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from advkit.analyses.drawing.panels import curve
from advkit.analyses.gathering import protocol
from advkit.analyses.gathering.cells import seed_noise, spread
from advkit.analyses.gathering.entries import Entry, entries_of
from advkit.analyses.gathering.rows import require_labels
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.result import Panel, Result
from advkit.artifacts.rows import argmax
from advkit.errors import InputError

KINDS = ("logits",)
EXAMPLE = "runs/*-ltd-*/best.*.h5"
COMPARES = True
_AVERAGED = {"clean": "clean", "pgd": "PGD", "autoattack": "AutoAttack"}
"""What is averaged, and how the picture calls it."""


class Row(NamedTuple):
    """Mean accuracies at one temperature, None where no file holds them."""

    temperature: float
    seeds: int
    clean: float | None
    pgd: float | None
    autoattack: float | None
    pgd_overstates: float | None
    n: int


def analyze(inputs: Sequence[Logits]) -> Result:
    """Average logits files of LTD runs over seeds, a row a temperature.

    `pgd_overstates` is PGD's robust accuracy less AutoAttack's: what a PGD evaluation would have
    claimed too much. Means over the runs of a temperature. The settings in which files of one
    attack differ, the method's own aside, are named (`differs`): across them no temperature is
    the best one.

    Raises:
        InputError: a file without labels, or whose checkpoint was not trained at a temperature.

    Source: LTD, Table 4.
    """
    runs: dict[float, dict[str, dict[str | int, float]]] = defaultdict(lambda: defaultdict(dict))
    sizes: dict[float, int] = {}
    for place, logits in enumerate(inputs):
        t = _temperature(logits)
        y = require_labels(logits, "accuracy")
        sizes[t] = min(len(y), sizes.get(t, len(y)))
        clean = float((argmax(logits.clean) == y).double().mean())
        # The files of one checkpoint's attacks hold the same clean logits: they count once.
        runs[t]["clean"][logits.info["parents"][0].get("digest", place)] = clean
        if logits.broken_by is not None:
            robust = float((logits.broken_by == ROBUST).double().mean())
            runs[t][logits.info["config"]["attack"]][place] = robust
    shares = {t: {name: list(runs[t][name].values()) for name in _AVERAGED} for t in sorted(runs)}
    rows = tuple(_row(t, shares[t], sizes[t]) for t in shares)
    judged = {row.temperature: row.autoattack for row in rows if row.autoattack is not None}
    differing = _differing(entries_of(inputs))
    # Of equals the lowest; none across a difference that makes no method.
    best = None if differing else max(judged, key=judged.__getitem__, default=None)
    numbers = {
        "files": len(inputs),
        "best_temperature": best,
        "best_autoattack": None if best is None else judged[best],
    }
    return Result(
        numbers,
        Row._fields,
        rows,
        (_panel(shares, sizes),),
        text="\n".join([aligned([Row._fields, *rows]), *_remarks(differing)]),
        more={"differs": differing},
    )


def _differing(entries: Sequence[Entry]) -> dict[str, list[object]]:
    """Return the settings in which files differ, those of an attack among its own files alone."""
    attacks = {entry.attack["attack"] for entry in entries}
    alike = [[x for x in entries if x.attack["attack"] == name] for name in sorted(attacks)]
    compared = [[protocol.evaluated(entry) for entry in files] for files in alike]
    # Clean accuracies are means over the files of every attack.
    compared.append([protocol.answered(entry) for entry in entries])
    return protocol.together([protocol.differences(files) for files in compared])


def _remarks(differing: Mapping[str, Sequence[object]]) -> list[str]:
    values = [f"{name} {', '.join(map(protocol.spelt, own))}" for name, own in differing.items()]
    told = "; ".join(values)
    words = f"note: not the same in all files: {told}; no temperature is the best across it"
    return [words] if told else []


def _row(temperature: float, shares: Mapping[str, Sequence[float]], n: int) -> Row:
    clean, pgd, judged = (_mean(shares[name]) for name in _AVERAGED)
    overstated = None if pgd is None or judged is None else pgd - judged
    seeds = max(len(shares[name]) for name in ("pgd", "autoattack"))
    return Row(temperature, seeds, clean, pgd, judged, overstated, n)


def _panel(
    shares: Mapping[float, Mapping[str, Sequence[float]]], sizes: Mapping[float, int]
) -> Panel:
    """Return each accuracy's mean by temperature, with the interval that its runs leave."""
    x = list(shares)
    known = {name: own for name, own in _AVERAGED.items() if any(shares[t][name] for t in x)}
    noise = {name: seed_noise(shares[t][name] for t in x) for name in _AVERAGED}
    intervals = {
        shown: [
            spread(shares[t][name], sizes[t], noise[name]) if shares[t][name] else None for t in x
        ]
        for name, shown in known.items()
    }
    return curve(
        x,
        {shown: [_mean(shares[t][name]) for t in x] for name, shown in known.items()},
        xlabel="temperature of the teacher (no unit)",
        ylabel="accuracy",
        logx=True,
        percent=True,
        intervals=intervals,
    )


def _temperature(logits: Logits) -> float:
    trained = logits.info["parents"][0].get("temperature")
    if trained is None:
        raise InputError(f"{logits.path}: its checkpoint was not trained on softened labels")
    return float(trained)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None

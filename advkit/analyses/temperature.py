"""Accuracy by LTD's temperature: clean, under PGD and under AutoAttack, over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from advkit.analyses.drawing.panels import curve
from advkit.analyses.gathering import protocol
from advkit.analyses.gathering.cells import seed_noise, spread
from advkit.analyses.gathering.entries import Entry, attack_options, differing
from advkit.analyses.gathering.groups import Group, grouped
from advkit.analyses.gathering.rows import require_labels
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Panel, Result
from advkit.errors import InputError, MismatchError

KINDS = ("logits",)
EXAMPLE = "runs/*-ltd-*/best.*.h5"
COMPARES = True
_AVERAGED = {"clean": "clean", "pgd": "PGD", "autoattack": "AutoAttack"}
"""What is averaged, and how the picture calls it."""
Placed = Sequence[tuple[Entry, Group]]


class Row(NamedTuple):
    """Mean accuracies at one temperature, None where no file holds them."""

    temperature: float
    seeds: int
    clean: float | None
    pgd: float | None
    autoattack: float | None
    pgd_overstates: float | None
    n: int


def analyze(inputs: Sequence[Logits], *, point: Literal["best", "final"] = "best") -> Result:
    """Average logits files of LTD runs over seeds, a row a temperature.

    `pgd_overstates` is PGD's robust accuracy less AutoAttack's: what a PGD evaluation would have
    claimed too much. Means over the seeds of a temperature. The settings in which files of one
    attack differ, the temperature aside, are named (`differs`): across them no temperature is
    the best one.

    Args:
        point: checkpoints to compare, of the best epoch or of the last.

    Raises:
        InputError: a file without labels, or whose checkpoint was not trained at a temperature; a
            seed twice; or no file of that point.
        MismatchError: two recipes at one temperature, or two attacks of one name.

    Source: LTD, Table 4.
    """
    for logits in inputs:
        require_labels(logits, "accuracy")
    placed = [(entry, group) for entry, group in grouped(inputs) if entry.point == point]
    if not placed:
        raise InputError(f"--point {point}: no file is of such a checkpoint")
    runs: dict[float, dict[str, dict[int | None, float]]] = defaultdict(lambda: defaultdict(dict))
    sizes: dict[float, int] = {}
    # The files of one checkpoint's attacks hold the same clean logits, which count once: of the
    # file with most examples.
    by_size = sorted(zip(_temperatures(placed), placed, strict=True), key=lambda pair: pair[1][0].n)
    for t, (entry, _) in by_size:
        sizes[t] = min(entry.n, sizes.get(t, entry.n))
        for what, name in (("clean", "clean"), ("robust", entry.attack["attack"])):
            count = entry.hits[what]
            if count is not None:
                runs[t][name][entry.seed] = count / entry.n
    shares = {t: {name: list(runs[t][name].values()) for name in _AVERAGED} for t in sorted(runs)}
    rows = tuple(_row(t, shares[t], sizes[t]) for t in shares)
    judged = {row.temperature: row.autoattack for row in rows if row.autoattack is not None}
    differs = _differing(placed)
    # Of equals the lowest; none across a difference.
    best = None if differs else max(judged, key=judged.__getitem__, default=None)
    numbers = {
        "files": len(placed),
        "best_temperature": best,
        "best_autoattack": None if best is None else judged[best],
    }
    return Result(
        numbers,
        Row._fields,
        rows,
        (_panel(shares, sizes),),
        text="\n".join([aligned([Row._fields, *rows]), *_remarks(differs)]),
        more={"differs": differs},
    )


def _temperatures(placed: Placed) -> list[float]:
    """Return each file's temperature, having seen that the files of one are seeds of one recipe.

    Raises:
        InputError: a checkpoint was not trained at a temperature.
        MismatchError: two recipes at one temperature, or two attacks of one name.
    """
    temperatures = [_temperature(entry.logits) for entry, _ in placed]
    first: dict[tuple[float, str], tuple[str, Mapping[str, object]]] = {}
    for t, (entry, group) in zip(temperatures, placed, strict=True):
        attack = {**attack_options(entry.attack), "examples": entry.fingerprint}
        for what, own in (
            ("recipes", _recipe(group)),
            (f"attacks by {entry.attack['attack']}", attack),
        ):
            path, known = first.setdefault((t, what), (entry.path, own))
            told = ", ".join(differing([own, known]))
            if told:
                raise MismatchError(
                    f"{path} and {entry.path}: two {what} at temperature {t:g} ({told}): give one "
                    "of them"
                )
    return temperatures


def _recipe(group: Group) -> dict[str, object]:
    """Return what makes files of a group another recipe: method, weights, settings."""
    names = group.labels
    return {**names.settings, "method": names.method, "weights": names.weights, "arch": names.arch}


def _differing(placed: Placed) -> dict[str, list[object]]:
    """Return the settings in which files differ, those of an attack among its own files alone.

    Of the method too, but for the temperature; a substitute that was not attacked may have another.
    """
    own = (protocol.of_method() - {"temperature"}) | {"weights"}
    files: dict[str, list[protocol.Protocol]] = defaultdict(list)
    for entry, group in placed:
        name = entry.attack["attack"]
        recipe = {key: value for key, value in _recipe(group).items() if key in own}
        told = protocol.plainly({} if name == "none" else recipe)
        files[name].append({**protocol.evaluated(entry), **told})
    # Clean accuracies are means over the files of every attack.
    clean = [protocol.answered(entry) for entry, _ in placed]
    every: list[Sequence[protocol.Protocol]] = [*files.values(), clean]
    return protocol.together([protocol.differences(each) for each in every])


def _remarks(differs: Mapping[str, Sequence[object]]) -> list[str]:
    values = [f"{name} {', '.join(map(protocol.spelt, own))}" for name, own in differs.items()]
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

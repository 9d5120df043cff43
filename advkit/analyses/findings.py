"""ADR's three findings: do they hold for robust models' outputs, against a natural model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from advkit.analyses.drawing.differences import Point, differences, interval_text
from advkit.analyses.gathering.models import BASELINE, Model, baseline, gathered
from advkit.analyses.gathering.pairing import names_of
from advkit.analyses.statistics.outputs import LEAST, Measure, measures
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Panel, Result
from advkit.errors import InputError

KINDS = ("logits",)
COMPARES = True
_FINDINGS = {
    "ood": "higher entropy and AUROC out of distribution",
    "wrong": "higher entropy when wrong",
    "divergence": "smaller Jensen–Shannon divergence under attack",
}
_MEASURES = {
    "ood_entropy": ("ood", "entropy out of distribution", "nats"),
    "ood_auroc": ("ood", "AUROC of entropy, out of distribution", ""),
    "wrong_entropy": ("wrong", "entropy when wrong", "nats"),
    "wrong_less_right": ("", "entropy when wrong less when right", "nats"),
    "divergence": ("divergence", "Jensen–Shannon under attack", "nats"),
}
"""Measure → finding that it decides (none if it only stands beside), title, unit."""
_COLUMNS = ("model", "baseline", *Measure.__annotations__)


def analyze(inputs: Sequence[Logits], *, seed: int = 0) -> Result:
    """Say for each robust model which of ADR's findings hold, against a natural model.

    A finding holds where the 95 % intervals of all its measures lie above 0, fails where one lies
    below, and is open otherwise. Intervals are those of a bootstrap over examples: paired where
    both models answer to the same ones, of two samples where the examples are those that each
    model gets wrong; AUROC's is DeLong's.

    Args:
        seed: of the bootstrap.

    Raises:
        InputError: no natural or no robust model, or two files of one model and data.
        MismatchError: two models' files of the same data hold other examples.

    Source: ADR, section 3.2 and figures 1 and 2.
    """
    models = gathered(inputs)
    naturals = [each for each in models if each.natural]
    robust = [each for each in models if not each.natural]
    if not naturals or not robust:
        lacking = "robust" if naturals else f"natural (method {BASELINE})"
        raise InputError(
            f"{inputs[0].path}: findings compares models, and no {lacking} one is given"
        )
    names = dict(zip(map(id, models), names_of([_first(each) for each in models]), strict=True))
    every = []
    for model in robust:
        other = baseline(model, naturals)
        labels = {"model": names[id(model)], "baseline": names[id(other)]}
        every.append((model, labels, list(measures(other, model, seed))))
    groups = tuple(_group(model, labels, measured) for model, labels, measured in every)
    rows = [{**labels, **asdict(each)} for _, labels, measured in every for each in measured]
    return Result(
        _numbers(groups),
        _COLUMNS,
        tuple(tuple(row[name] for name in _COLUMNS) for row in rows),
        _pictures([labels["model"] for _, labels, _ in every], rows),
        text=_text(groups, rows),
        groups=groups,
    )


def _first(model: Model) -> Logits:
    return model.test or next(iter(model.outside.values()))


def _group(model: Model, labels: dict[str, str], measured: Sequence[Measure]) -> dict[str, Any]:
    """Return one robust model's verdicts."""
    group: dict[str, Any] = {
        **labels,
        "method": model.info["method"],
        "seed": model.seed,
        "arch": model.info["arch"],
    }
    for finding in _FINDINGS:
        of = [each for each in measured if _MEASURES[each.measure][0] == finding]
        answers = [each.holds for each in of]
        holds = False if False in answers else None if None in answers or not answers else True
        reasons = [f"{each.measure}: {each.reason}" for each in of if each.reason]
        lacking = "" if of else _lacking(finding)
        group[f"{finding}_holds"] = holds
        group[f"{finding}_reason"] = lacking or "; ".join(reasons) if holds is None else ""
    return group


def _lacking(finding: str) -> str:
    """Say what files a finding without any measure would need."""
    if finding == "ood":
        return "no file of the same out-of-distribution data for both models"
    if finding == "wrong":
        return "no file of labelled data for both models"
    return "no file of the same attack on both models"


def _numbers(groups: Sequence[dict[str, Any]]) -> dict[str, float | int | str | None]:
    """Return in how many models each finding holds, fails and is open."""
    numbers: dict[str, float | int | str | None] = {"models": len(groups)}
    for finding in _FINDINGS:
        answers = [each[f"{finding}_holds"] for each in groups]
        for word, answer in (("holds", True), ("fails", False), ("open", None)):
            numbers[f"{finding}_{word}"] = sum(each is answer for each in answers)
    return numbers


def _text(groups: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    head = ("model", "measure", "natural", "robust", "in ADR's direction", "holds")
    lines = [head, *(_line(row) for row in rows)]
    said = [
        f"{group['model']}: {title}: {_said(group, finding)}"
        for group in groups
        for finding, title in _FINDINGS.items()
    ]
    return "\n".join([aligned(lines), *said])


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    gap, unit = "-", _MEASURES[row["measure"]][2]
    if row["low"] is not None:
        gap = interval_text((row["difference"], row["low"], row["high"]), 3, unit)
    outside = row["measure"].startswith("ood")
    title = _MEASURES[row["measure"]][1] + (f" ({row['data']})" if outside else "")
    answer = {True: "yes", False: "no", None: row["reason"]}[row["holds"]]
    return row["model"], title, row["natural"], row["robust"], gap, answer


def _said(group: dict[str, Any], finding: str) -> str:
    holds = group[f"{finding}_holds"]
    if holds is None:
        return f"open ({group[f'{finding}_reason']})"
    return "holds" if holds else "does not hold"


def _pictures(models: Sequence[str], rows: Sequence[dict[str, Any]]) -> tuple[Panel, ...]:
    """Return a panel a measure, a line a model; right of 0 the finding holds."""
    panels = []
    for measure, (finding, title, unit) in _MEASURES.items():
        data = list(dict.fromkeys(row["data"] for row in rows if row["measure"] == measure))
        if not data or not finding:
            continue
        of = {(row["model"], row["data"]): row for row in rows if row["measure"] == measure}
        series = {name: [_point(of.get((model, name))) for model in models] for name in data}
        sign = "natural less robust" if measure == "divergence" else "robust less natural"
        xlabel = ", ".join(word for word in (sign, unit, "95 % interval") if word)
        only = f"\n({data[0]})" if measure.startswith("ood") and len(data) == 1 else ""
        bare = any(point and point[1] is None for points in series.values() for point in points)
        few = f"\n(no interval: under {LEAST} examples)" if bare else ""
        panels.append(differences(models, series, xlabel=xlabel, title=title + only + few))
    return tuple(panels)


def _point(row: dict[str, Any] | None) -> Point | None:
    if row is None or row["difference"] is None:
        return None
    ends = None if row["low"] is None else (row["low"], row["high"])
    return row["difference"], ends

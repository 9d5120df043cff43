"""ADR's three findings: do they hold for robust models' outputs, against a natural model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

from advkit.analyses.drawing.differences import Point, differences, interval_text
from advkit.analyses.gathering import naming, protocol
from advkit.analyses.gathering.entries import entries_of
from advkit.analyses.gathering.models import BASELINE, Model, baseline, gathered
from advkit.analyses.gathering.pairing import names_of
from advkit.analyses.statistics.outputs import LEAST, Measure, measures
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Panel, Result
from advkit.errors import InputError

LIMITS = {"seed": "[0, 4294967295]"}
KINDS = ("logits",)
COMPARES = True
_FINDINGS = {
    "ood": "higher entropy and AUROC out of distribution",
    "wrong": "higher entropy when wrong",
    "divergence": "smaller Jensen–Shannon divergence under attack",
}
_LACKING = {
    "ood": "no file of the same out-of-distribution data for both models",
    "wrong": "no file of labelled data for both models",
    "divergence": "no file of the same attack on both models",
}
"""What a finding without any measure would need."""


class _About(NamedTuple):
    """What a measure is: the finding that it decides (none if it only stands beside), its unit."""

    finding: str
    title: str
    unit: str


_MEASURES = {
    "ood_entropy": _About("ood", "entropy out of distribution", "nats"),
    "ood_auroc": _About("ood", "AUROC of entropy, out of distribution", ""),
    "wrong_entropy": _About("wrong", "entropy when wrong", "nats"),
    "wrong_less_right": _About("", "entropy when wrong less when right", "nats"),
    "divergence": _About("divergence", "Jensen–Shannon under attack", "nats"),
}
_COLUMNS = ("model", "baseline", *Measure.__annotations__)


@dataclass(frozen=True)
class _Answer:
    """Whether a finding holds, fails or is open (None), and if open, why."""

    holds: bool | None
    reason: str


@dataclass(frozen=True)
class _Compared:
    """A robust model beside its natural one: what was measured, and finding → answer.

    `differing`: setting → the natural model's value and the robust one's, where these differ.
    """

    model: Model
    name: str
    baseline: str
    measures: Sequence[Measure]
    answers: dict[str, _Answer]
    differing: Mapping[str, Sequence[object]]

    def plain(self) -> dict[str, object]:
        """Return the verdicts as a plain object for the record and JSON."""
        info = self.model.info
        group: dict[str, object] = {"model": self.name, "baseline": self.baseline}
        group |= {"method": info["method"], "seed": self.model.seed, "arch": info["arch"]}
        for finding, answer in self.answers.items():
            group |= {f"{finding}_holds": answer.holds, f"{finding}_reason": answer.reason}
        return {**group, "differs": protocol.plain(self.differing)}


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
    naturals = [model for model in models if model.natural]
    robust = [model for model in models if not model.natural]
    if not naturals or not robust:
        lacking = "robust" if naturals else f"natural (method {BASELINE})"
        raise InputError(
            f"{inputs[0].path}: findings compares models, and no {lacking} one is given"
        )
    # By identity: a model that holds tensors has no hash.
    names = dict(zip(map(id, models), names_of([_first(model) for model in models]), strict=True))
    groups = []
    for model in robust:
        natural = baseline(model, naturals)
        measured = list(measures(natural, model, seed))
        answers = {finding: _answer(finding, measured) for finding in _FINDINGS}
        own = (names[id(model)], names[id(natural)])
        groups.append(_Compared(model, *own, measured, answers, _differing(natural, model)))
    rows = [(group.name, group.baseline, *astuple(x)) for group in groups for x in group.measures]
    return Result(
        _numbers(groups),
        _COLUMNS,
        tuple(rows),
        _pictures(groups),
        text=_text(groups),
        groups=tuple(group.plain() for group in groups),
        more={"differs": protocol.together([group.differing for group in groups])},
    )


def _first(model: Model) -> Logits:
    return model.test or next(iter(model.outside.values()))


def _differing(natural: Model, robust: Model) -> dict[str, list[object]]:
    """Return the settings in which two models differ, attacks and examples where both have such."""
    shared = [data for data in natural.outside if data in robust.outside]
    if natural.test and robust.test:
        files = [natural.test, robust.test]
    elif shared:
        files = [natural.outside[shared[0]], robust.outside[shared[0]]]
    else:
        files = [_first(natural), _first(robust)]
    return protocol.differences([protocol.evaluated(entry) for entry in entries_of(files)])


def _answer(finding: str, measured: Sequence[Measure]) -> _Answer:
    """Return a finding's verdict: it fails where one measure does, and is open where one is."""
    own = [measure for measure in measured if _MEASURES[measure.measure].finding == finding]
    verdicts = [measure.holds for measure in own]
    if False in verdicts:
        return _Answer(False, "")
    if own and None not in verdicts:
        return _Answer(True, "")
    reasons = [f"{measure.measure}: {measure.reason}" for measure in own if measure.reason]
    return _Answer(None, "; ".join(reasons) if own else _LACKING[finding])


def _numbers(groups: Sequence[_Compared]) -> dict[str, Number]:
    """Return in how many models each finding holds, fails and is open."""
    numbers: dict[str, Number] = {"models": len(groups)}
    for finding in _FINDINGS:
        verdicts = [group.answers[finding].holds for group in groups]
        for word, verdict in (("holds", True), ("fails", False), ("open", None)):
            numbers[f"{finding}_{word}"] = verdicts.count(verdict)
    return numbers


def _text(groups: Sequence[_Compared]) -> str:
    head = ("model", "measure", "natural", "robust", "in ADR's direction", "holds")
    lines = [(group.name, *_line(measure)) for group in groups for measure in group.measures]
    words: dict[bool | None, str] = {True: "holds", False: "does not hold"}
    verdicts = [
        f"{group.name}: {title}: {words.get(answer.holds, f'open ({answer.reason})')}"
        for group in groups
        for title, answer in zip(_FINDINGS.values(), group.answers.values(), strict=True)
    ]
    notes = [
        f"note: {group.name}: other settings than {group.baseline}'s: {told}"
        for group in groups
        if (told := protocol.words(group.differing, [group.baseline, group.name]))
    ]
    return "\n".join([aligned([head, *lines]), *verdicts, *notes])


def _line(measure: Measure) -> tuple[str | float | None, ...]:
    about, point = _MEASURES[measure.measure], _point(measure)
    ends = point[1] if point else None
    gap = interval_text((point[0], *ends), 3, about.unit) if point and ends else "-"
    title = about.title + (f" ({measure.data})" if about.finding == "ood" else "")
    verdict = {True: "yes", False: "no", None: measure.reason}[measure.holds]
    return title, measure.natural, measure.robust, gap, verdict


def _pictures(groups: Sequence[_Compared]) -> tuple[Panel, ...]:
    """Return a panel a measure, a line a model; right of 0 the finding holds."""
    panels = []
    for measure, (finding, title, unit) in _MEASURES.items():
        places = {
            (group.name, x.data): _point(x)
            for group in groups
            for x in group.measures
            if x.measure == measure
        }
        data = list(dict.fromkeys(name for _, name in places))
        if not data or not finding:
            continue
        names = [group.name for group in groups]
        shown = [naming.beside(_first(group.model), group.name) for group in groups]
        series = {str(own): [places.get((name, own)) for name in names] for own in data}
        # Turned so that ADR's finding lies on the right in every panel.
        sign = "natural less robust" if measure == "divergence" else "robust less natural"
        xlabel = ", ".join(word for word in (sign, unit, "95 % interval") if word)
        only = f"\n({data[0]})" if finding == "ood" and len(data) == 1 else ""
        bare = any(point and point[1] is None for point in places.values())
        few = f"\n(no interval: under {LEAST} examples)" if bare else ""
        panels.append(differences(shown, series, xlabel=xlabel, title=title + only + few))
    return tuple(panels)


def _point(measure: Measure) -> Point | None:
    if measure.difference is None:
        return None
    if measure.low is None or measure.high is None:
        return measure.difference, None
    return measure.difference, (measure.low, measure.high)

"""One net under several threat models: accuracy under each one, and under all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from advkit.analyses.drawing.differences import differences
from advkit.analyses.drawing.panels import forest
from advkit.analyses.gathering import naming, protocol
from advkit.analyses.gathering.entries import entries_of, radius
from advkit.analyses.gathering.pairing import model_of, paired
from advkit.analyses.gathering.rows import require_labels
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import ROBUST, WRONG, Logits
from advkit.artifacts.provenance import canonical
from advkit.artifacts.result import Number, Panel, Result
from advkit.errors import InputError, MismatchError, UsageError
from advkit.formulas.stats import paired_interval, wilson

KINDS = ("logits",)
EXAMPLE = "runs/adr/best.autoattack-*.h5"
COMPARES = True
_THREAT = ("norm", "eps", "examples")
"""What may differ: the threat model, and the order of the same examples."""


class _Threat(NamedTuple):
    """A threat model: its name, the attacks of its files, and who stands under all, (N,) bool."""

    name: str
    attacks: str
    robust: Tensor


class _Row(NamedTuple):
    """One accuracy; the last four are null for clean and union.

    `only` counts the examples that break under this threat model and stand under every other;
    `over_union` is its accuracy less the union's.
    """

    threat: str
    attacks: str
    n: int
    right: int
    accuracy: float
    low: float
    high: float
    only: int | None = None
    over_union: float | None = None
    over_union_low: float | None = None
    over_union_high: float | None = None


def analyze(inputs: Sequence[Logits]) -> Result:
    """Take several logits files of one checkpoint on the same examples together, by threat model.

    An example is right under a threat model (norm and ε) where no attack of its files broke it,
    and in the union where it is right under every one. Accuracies have Wilson's 95 % interval;
    `NAME_less_union` is what the union loses against one threat model on the same examples, with
    the adjusted Wald interval of paired shares. Files of one norm and ε are one threat model under
    several attacks. In what else threat models were attacked otherwise is named (`differs`).

    Raises:
        UsageError: a single file.
        InputError: a file without labels, or not attacked.
        MismatchError: another checkpoint, or other examples.
    """
    if len(inputs) < 2:
        path = inputs[0].path if inputs else "none"
        raise UsageError(f"union needs two logits files or more, got one ({path})")
    first = inputs[0]
    threats = _threats(first, [_verdicts(first, logits) for logits in inputs], inputs)
    clean = torch.stack([_verdicts(first, x, wrong=True) for x in inputs]).all(0)
    together = torch.stack([threat.robust for threat in threats]).all(0)
    rows = [
        _row("clean", "none", clean),
        *(_beside(threat, together, _others(threat, threats, clean)) for threat in threats),
        _row("union", "all of these", together),
    ]
    weakest = min(rows[1:-1], key=lambda row: (row.accuracy, row.threat))
    numbers: dict[str, Number] = {
        "files": len(inputs),
        "threats": len(threats),
        "n": len(clean),
        "clean_accuracy": rows[0].accuracy,
        "clean_accuracy_ci95": [rows[0].low, rows[0].high],
        "union_accuracy": rows[-1].accuracy,
        "union_accuracy_ci95": [rows[-1].low, rows[-1].high],
        "weakest": weakest.threat,
        "weakest_accuracy": weakest.accuracy,
        "weakest_over_union": weakest.over_union,
        "weakest_over_union_ci95": [weakest.over_union_low or 0.0, weakest.over_union_high or 0.0],
    }
    differs = _differing(inputs)
    told = protocol.words(differs, [_threat_of(logits) for logits in inputs])
    note = f"\nnote: attacked otherwise than in norm and eps: {told}" if told else ""
    return Result(
        numbers,
        _Row._fields,
        tuple(rows),
        _panels(rows),
        text=_text(rows) + note,
        heading=naming.name(first),
        more={"differs": protocol.plain(differs)},
    )


def _threat_of(logits: Logits) -> str:
    config = logits.info["config"]
    return f"{config.get('norm')} {config.get('eps')}"


def _differing(inputs: Sequence[Logits]) -> dict[str, list[object]]:
    """Return the settings in which files differ, but for norm and ε; {} for threats attacked alike.

    Several attacks of one threat model are no difference where every threat model has the same.
    """
    own = [
        {name: each for name, each in protocol.evaluated(entry).items() if name not in _THREAT}
        for entry in entries_of(inputs)
    ]
    attacks: dict[tuple[str | None, float | None], set[str]] = {}
    for logits, settings in zip(inputs, own, strict=True):
        config = logits.info["config"]
        keys = canonical({name: each.key for name, each in settings.items() if each.key})
        attacks.setdefault((config.get("norm"), radius(config)), set()).add(keys)
    alike = len({frozenset(keys) for keys in attacks.values()}) == 1
    return {} if alike else protocol.differences(own)


def _verdicts(first: Logits, logits: Logits, *, wrong: bool = False) -> Tensor:
    """Return who is robust in a file, (N,) bool, in the order of the first file's examples.

    Args:
        first: the file that says checkpoint and examples.
        logits: this file.
        wrong: who is right when clean, instead.
    """
    require_labels(logits, "union")
    if logits.broken_by is None:
        raise InputError(f"{logits.path}: it is not attacked: union needs attacked logits files")
    if model_of(logits).get("digest") != model_of(first).get("digest"):
        raise MismatchError(
            f"{first.path} and {logits.path}: other checkpoints: union takes one net's files"
        )
    pair = paired(first, logits)
    if not pair.whole:
        raise MismatchError(
            f"{first.path} and {logits.path}: {len(first.labels)} and {len(logits.labels)} "
            "examples: attack the same ones (the same --limit)"
        )
    verdicts = logits.broken_by != WRONG if wrong else logits.broken_by == ROBUST
    # Both in the order of the first file's rows, whatever order pairing gave.
    in_order = torch.empty_like(verdicts)
    in_order[pair.first_rows] = verdicts[pair.second_rows]
    return in_order


def _threats(first: Logits, verdicts: Sequence[Tensor], inputs: Sequence[Logits]) -> list[_Threat]:
    """Gather files by norm and ε, in the order in which these first come."""
    places: dict[tuple[str | None, float | None], list[int]] = {}
    for place, logits in enumerate(inputs):
        config = logits.info["config"]
        places.setdefault((config.get("norm"), radius(config)), []).append(place)
    threats = []
    for own in places.values():
        attacks = dict.fromkeys(str(inputs[place].info["config"]["attack"]) for place in own)
        name = _threat_of(inputs[own[0]])
        robust = torch.stack([verdicts[place] for place in own]).all(0)
        threats.append(_Threat(name, ", ".join(attacks), robust))
    return threats


def _row(threat: str, attacks: str, right: Tensor) -> _Row:
    n, count = len(right), int(right.sum())
    return _Row(threat, attacks, n, count, count / n, *wilson(count, n))


def _others(threat: _Threat, threats: Sequence[_Threat], clean: Tensor) -> Tensor:
    """Return who stands under every other threat model, (N,) bool; without one, who is right."""
    others = [other.robust for other in threats if other is not threat]
    return torch.stack([clean, *others]).all(0)


def _beside(threat: _Threat, together: Tensor, others: Tensor) -> _Row:
    """Return the row of a threat model, with what it counts over the union, (N,) bool each."""
    # Nobody stands in the union alone: it is a part of each threat model's right examples.
    over, n = int((threat.robust & ~together).sum()), len(together)
    low, high = paired_interval(0, over, n)
    return _row(threat.name, threat.attacks, threat.robust)._replace(
        only=int((others & ~threat.robust).sum()),
        over_union=over / n,
        over_union_low=max(low, 0.0),
        over_union_high=high,
    )


def _text(rows: Sequence[_Row]) -> str:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    lines: list[tuple[object, ...]] = [
        (
            "",
            "attacks",
            "accuracy",
            "95 % interval",
            "over the union",
            "95 % interval",
            "breaks alone",
        )
    ]
    for row in rows:
        over = row.over_union is not None
        own = f"{percent(row.low)} to {percent(row.high)}"
        gap = f"{percent(row.over_union_low)} to {percent(row.over_union_high)}" if over else ""
        alone = "" if row.only is None else row.only
        cells = (percent(row.accuracy), own, percent(row.over_union), gap, alone)
        lines.append((row.threat, row.attacks, *cells))
    return aligned(lines)


def _panels(rows: Sequence[_Row]) -> tuple[Panel, ...]:
    """Return the accuracies, and what each threat model has over the union."""
    names = [row.threat for row in rows]
    # matplotlib leaves a name that begins with _ out of the legend: a single series needs none.
    series = {"_": [(row.accuracy, (row.low, row.high)) for row in rows]}
    title = f"right under each, and under all (n = {rows[0].n})"
    accuracies = forest(names, series, xlabel="accuracy, 95 % interval", title=title, percent=True)
    own = [row for row in rows if row.over_union is not None]
    points = {
        "": [
            (
                100 * (row.over_union or 0),
                (100 * (row.over_union_low or 0), 100 * (row.over_union_high or 0)),
            )
            for row in own
        ]
    }
    unit = "percentage points, 95 % interval"
    gaps = differences(
        [row.threat for row in own], points, xlabel=unit, title="accuracy over the union's"
    )
    return accuracies, gaps

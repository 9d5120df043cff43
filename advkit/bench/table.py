"""The table of `advkit bench`, in the layout of ADR's Table 6, with what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from advkit.artifacts.document import aligned
from advkit.artifacts.result import Result
from advkit.bench.measure import Comparison, ratios
from advkit.bench.projection import EvaluationCost, Training, counts, fitting
from advkit.config.settings import Settings

LABELS = {"at": "AT", "adr": "AT + ADR", "at-awp": "AT + AWP", "adr-awp": "AT + AWP + ADR"}
"""Method → what ADR's Table 6 calls it."""


class Row(NamedTuple):
    """One method's line of the table, and a row of its file."""

    method: str
    label: str
    epochs: int
    seconds_per_step: float
    slowest_step: float
    seconds_per_epoch: float
    ratio: float
    images_per_second: float
    validation_seconds: float
    peak_bytes: int | None
    flops_per_step: int
    share_of_limit: float
    hours: float
    kwh: float | None


class Projected(NamedTuple):
    """AutoAttack on n test images: hours, and the 95 % interval of the robust accuracy."""

    n: int
    hours: float
    ci95: list[float]


COLUMNS = Row._fields
HEAD = ("method", "s/step", "s/epoch", "ratio", "peak GiB", "of limit", "epochs", "hours")


@dataclass(frozen=True)
class Wishes:
    """What the user states: watts that the machine draws, and a budget in seconds; None if not.

    `clean` and `robust` are the accuracies that AutoAttack's projection assumes.
    """

    clean: float
    robust: float
    watts: float | None = None
    budget: float | None = None


def report(
    chosen: Mapping[str, Settings], comparison: Comparison, test: int, wishes: Wishes
) -> Result:
    """Put everything together: a row a method, then AutoAttack by n, then what fits.

    Args:
        chosen: the methods, in the order of the table; ratios are to the first.
        comparison: what they cost.
        test: examples of the test set.
        wishes: watts, budget and assumed accuracies.

    Source: ADR, Table 6.
    """
    rows = tuple(
        _row(name, settings, comparison, wishes.watts) for name, settings in chosen.items()
    )
    evaluation = EvaluationCost(
        comparison.forward, comparison.gradient, wishes.clean, wishes.robust
    )
    sizes = counts(test)
    projected = [
        Projected(n, evaluation.seconds(n) / 3600, list(evaluation.interval(n))) for n in sizes
    ]
    fits: list[dict[str, object]] = []
    if wishes.budget is not None:
        trainings = [_training(name, settings, comparison) for name, settings in chosen.items()]
        fits = fitting(trainings, evaluation, sizes, wishes.budget)
    groups: list[dict[str, object]] = [{"what": "autoattack", **p._asdict()} for p in projected]
    groups += [{"what": "fits", **fit} for fit in fits]
    numbers: dict[str, float | int | str | None] = {
        "limit_flops": comparison.limit,
        "noise": comparison.noise,
        "watts": wishes.watts,
        "budget_seconds": wishes.budget,
        "assumed_clean_accuracy": wishes.clean,
        "assumed_robust_accuracy": wishes.robust,
        "forward_seconds_per_image": comparison.forward,
        "gradient_seconds_per_image": comparison.gradient,
    }
    text = "\n\n".join(_texts(rows, comparison, wishes.watts, projected, fits))
    return Result(numbers, COLUMNS, rows, text=text, groups=tuple(groups))


def _training(name: str, settings: Settings, comparison: Comparison) -> Training:
    cost = comparison.costs[name]
    return Training(name, cost.seconds_per_epoch + cost.validation_seconds, settings.epochs)


def _row(name: str, settings: Settings, comparison: Comparison, watts: float | None) -> Row:
    cost, first = comparison.costs[name], next(iter(comparison.costs.values()))
    hours = _training(name, settings, comparison).hours()
    rate = cost.flops_per_step / cost.seconds_per_step
    energy = None if watts is None else hours * watts / 1000
    by_round = statistics.median(ratios(cost.seconds, first.seconds))
    ratio = by_round * cost.steps_per_epoch / first.steps_per_epoch
    return Row(
        name,
        LABELS.get(name, name.upper()),
        settings.epochs,
        cost.seconds_per_step,
        max(cost.seconds),
        cost.seconds_per_epoch,
        ratio,
        cost.batch_size / cost.seconds_per_step,
        cost.validation_seconds,
        cost.peak_bytes,
        cost.flops_per_step,
        rate / comparison.limit,
        hours,
        energy,
    )


def _texts(
    rows: Sequence[Row],
    measured: Comparison,
    watts: float | None,
    projected: Sequence[Projected],
    fits: Sequence[Mapping[str, object]],
) -> list[str]:
    head = HEAD if watts is None else (*HEAD, "kWh")
    lines: list[Sequence[object]] = [head]
    for row in rows:
        peak = row.peak_bytes
        cells = [
            row.label,
            f"{row.seconds_per_step:.4g}",
            f"{row.seconds_per_epoch:.4g}",
            f"{row.ratio:.2f}",
            "-" if peak is None else f"{peak / 2**30:.2f}",
            f"{row.share_of_limit:.0%}",
            row.epochs,
            f"{row.hours:.3g}",
        ]
        lines.append(cells if row.kwh is None else [*cells, f"{row.kwh:.3g}"])
    texts = [aligned(lines)]
    texts[0] += (
        f"\nlimit {measured.limit / 1e9:.4g} GFLOP/s (matrix product); the first method again: "
        f"{measured.noise:.2f}"
    )
    interval: list[Sequence[object]] = [("AutoAttack n", "hours", "95 % interval", "half width")]
    interval += [_interval(projection) for projection in projected]
    texts.append(aligned(interval))
    if fits:
        head_ = ("method", "epochs", "hours", "AutoAttack n that fits")
        texts.append(aligned([head_, *(_fit(fit) for fit in fits)]))
    return texts


def _interval(projection: Projected) -> tuple[object, ...]:
    low, high = projection.ci95
    hours, half = f"{projection.hours:.3g}", f"{(high - low) / 2:.3f}"
    return str(projection.n), hours, f"{low:.3f} to {high:.3f}", half


def _fit(fit: Mapping[str, object]) -> tuple[object, ...]:
    n = "none" if fit["n"] is None else fit["n"]
    return fit["method"], fit["epochs"], f"{fit['hours']:.3g}", n

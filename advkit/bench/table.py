"""The table of `advkit bench`, in the layout of ADR's Table 6, with what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advkit.artifacts.document import aligned
from advkit.artifacts.result import Result
from advkit.bench.measure import Comparison
from advkit.bench.projection import EvaluationCost, Training, counts, fitting
from advkit.config.settings import Settings

LABELS = {"at": "AT", "adr": "AT + ADR", "at-awp": "AT + AWP", "adr-awp": "AT + AWP + ADR"}
"""Method → what ADR's Table 6 calls it."""
COLUMNS = (
    "method",
    "label",
    "epochs",
    "seconds_per_step",
    "slowest_step",
    "seconds_per_epoch",
    "ratio",
    "images_per_second",
    "validation_seconds",
    "peak_bytes",
    "flops_per_step",
    "share_of_limit",
    "hours",
    "kwh",
)
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
    rows = tuple(_row(name, each, comparison, wishes.watts) for name, each in chosen.items())
    evaluation = EvaluationCost(
        comparison.forward, comparison.gradient, wishes.clean, wishes.robust
    )
    sizes = counts(test)
    groups = [_evaluated(evaluation, n) for n in sizes]
    if wishes.budget is not None:
        trainings = [_training(name, each, comparison) for name, each in chosen.items()]
        fits = fitting(trainings, evaluation, sizes, wishes.budget)
        groups += [{"what": "fits", **row} for row in fits]
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
    text = "\n\n".join(_texts(rows, comparison, wishes.watts, groups))
    return Result(numbers, COLUMNS, rows, text=text, groups=tuple(groups))


def _training(name: str, settings: Settings, comparison: Comparison) -> Training:
    cost = comparison.costs[name]
    return Training(name, cost.seconds_per_epoch + cost.validation_seconds, settings.epochs)


def _row(
    name: str, settings: Settings, comparison: Comparison, watts: float | None
) -> tuple[Any, ...]:
    cost, first = comparison.costs[name], next(iter(comparison.costs.values()))
    hours = _training(name, settings, comparison).hours()
    rate = cost.flops_per_step / cost.seconds_per_step
    energy = None if watts is None else hours * watts / 1000
    pairs = zip(cost.seconds, first.seconds, strict=True)
    by_round = statistics.median(a / b for a, b in pairs)
    ratio = by_round * cost.steps_per_epoch / first.steps_per_epoch
    return (
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


def _evaluated(evaluation: EvaluationCost, n: int) -> dict[str, Any]:
    low, high = evaluation.interval(n)
    hours = evaluation.seconds(n) / 3600
    return {"what": "autoattack", "n": n, "hours": hours, "ci95": [low, high]}


def _texts(
    rows: Sequence[tuple[Any, ...]],
    measured: Comparison,
    watts: float | None,
    groups: Sequence[Mapping[str, Any]],
) -> list[str]:
    head = HEAD if watts is None else (*HEAD, "kWh")
    lines: list[Sequence[object]] = [head]
    for row in rows:
        each = dict(zip(COLUMNS, row, strict=True))
        peak = each["peak_bytes"]
        shown = [
            each["label"],
            f"{each['seconds_per_step']:.4g}",
            f"{each['seconds_per_epoch']:.4g}",
            f"{each['ratio']:.2f}",
            "-" if peak is None else f"{peak / 2**30:.2f}",
            f"{each['share_of_limit']:.0%}",
            each["epochs"],
            f"{each['hours']:.3g}",
        ]
        lines.append(shown if each["kwh"] is None else [*shown, f"{each['kwh']:.3g}"])
    texts = [aligned(lines)]
    texts[0] += (
        f"\nlimit {measured.limit / 1e9:.4g} GFLOP/s (matrix product); the first method again: "
        f"{measured.noise:.2f}"
    )
    interval: list[Sequence[object]] = [("AutoAttack n", "hours", "95 % interval", "half width")]
    interval += [_interval(each) for each in groups if each["what"] == "autoattack"]
    texts.append(aligned(interval))
    fits = [each for each in groups if each["what"] == "fits"]
    if fits:
        head_ = ("method", "epochs", "hours", "AutoAttack n that fits")
        texts.append(aligned([head_, *(_fit(each) for each in fits)]))
    return texts


def _interval(each: Mapping[str, Any]) -> tuple[object, ...]:
    low, high = each["ci95"]
    hours, half = f"{each['hours']:.3g}", f"{(high - low) / 2:.3f}"
    return str(each["n"]), hours, f"{low:.3f} to {high:.3f}", half


def _fit(each: Mapping[str, Any]) -> tuple[object, ...]:
    n = "none" if each["n"] is None else each["n"]
    return each["method"], each["epochs"], f"{each['hours']:.3g}", n

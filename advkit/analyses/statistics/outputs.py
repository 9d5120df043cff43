"""How a robust and a natural model differ in entropy, AUROC and divergence, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from advkit.analyses.gathering.models import Model
from advkit.analyses.gathering.pairing import Pair, paired
from advkit.analyses.statistics.delong import difference
from advkit.analyses.statistics.scores import auroc, mean
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import argmax, piecewise
from advkit.errors import InputError
from advkit.formulas import resampling
from advkit.formulas.information import moved
from advkit.formulas.resampling import Values

LEAST = 20
"""Examples of a sample below which there is no interval and no verdict."""
NOISE = "inside noise"


@dataclass(frozen=True)
class Measure:
    """One figure of a natural and a robust model, and their difference in ADR's direction.

    `difference` is positive where ADR's finding holds; `holds` is None where its interval
    contains 0 or a sample is too small, and `reason` says which.
    """

    measure: str
    data: str | None
    natural_n: int
    robust_n: int
    natural: float | None
    robust: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    holds: bool | None = None
    reason: str = ""


def measures(natural: Model, robust: Model, seed: int) -> Iterator[Measure]:
    """Yield what can be measured of two models with what files there are."""
    tested = None
    if natural.test is not None and robust.test is not None:
        tested = paired(natural.test, robust.test)
    for data in robust.outside:
        if data in natural.outside:
            yield from _outside(natural, robust, data, tested, seed)
    if tested is not None:
        yield from _wrong(natural, robust, tested, seed)
        if tested.same_attack and tested.first.adversarial is not None:
            yield _moved(tested, seed)


def _outside(
    natural: Model, robust: Model, data: str, tested: Pair | None, seed: int
) -> Iterator[Measure]:
    pair = paired(natural.outside[data], robust.outside[data])
    name = pair.first.info["data"]["name"]
    before = natural.outside_entropy(data)[pair.first_rows]
    after = robust.outside_entropy(data)[pair.second_rows]
    generator = resampling.stream(seed, "ood", name)
    gaps = resampling.means((after - before).numpy(), generator)
    yield _measured("ood_entropy", name, (before, after), gaps)
    if tested is None:
        return
    scores = (
        (natural.test_entropy[tested.first_rows], before),
        (robust.test_entropy[tested.second_rows], after),
    )
    gap, ends = difference(*scores)
    areas = (auroc(*scores[0]), auroc(*scores[1]))
    measure = Measure("ood_auroc", name, pair.n, pair.n, *areas, gap, *ends)
    yield _judged(measure, min(tested.n, pair.n))


def _wrong(natural: Model, robust: Model, tested: Pair, seed: int) -> Iterator[Measure]:
    """Yield the entropy of the examples that each model gets wrong, and its excess over right.

    Each model errs on examples of its own: the samples are taken as independent, which makes the
    interval too wide rather than too narrow where they overlap.
    """
    name = tested.first.info["data"]["name"]
    wrong, right = [], []
    for model, logits, rows in (
        (natural, tested.first, tested.first_rows),
        (robust, tested.second, tested.second_rows),
    ):
        errs = (argmax(logits.clean) != logits.labels)[rows]
        entropy = model.test_entropy[rows]
        wrong.append(entropy[errs])
        right.append(entropy[~errs])
    sizes = (len(wrong[0]), len(wrong[1]))
    if 0 in sizes:
        means = (mean(wrong[0]), mean(wrong[1]))
        reason = _few(min(sizes), "wrong ")
        yield Measure("wrong_entropy", name, *sizes, *means, reason=reason)
        return
    generator = resampling.stream(seed, "wrong", name)
    drawn = [resampling.means(values.numpy(), generator) for values in wrong]
    yield _measured("wrong_entropy", name, (wrong[0], wrong[1]), drawn[1] - drawn[0], "wrong ")
    # A net that is unsure of everything is so when wrong, too: the excess over right answers.
    if all(map(len, right)):
        rest = [resampling.means(values.numpy(), generator) for values in right]
        before, after = (float(w.mean() - r.mean()) for w, r in zip(wrong, right, strict=True))
        ends = resampling.ends((drawn[1] - rest[1]) - (drawn[0] - rest[0]))
        excess = Measure("wrong_less_right", name, *sizes, before, after, after - before, *ends)
        yield _judged(excess, min(map(len, (*wrong, *right))))


def _moved(tested: Pair, seed: int) -> Measure:
    """Return how far the attack moves the outputs of both."""
    name = tested.first.info["data"]["name"]
    before = divergences(tested.first)[tested.first_rows]
    after = divergences(tested.second)[tested.second_rows]
    generator = resampling.stream(seed, "divergence", name)
    drawn = resampling.means((before - after).numpy(), generator)
    return _measured("divergence", name, (before, after), drawn, smaller=True)


def divergences(logits: Logits) -> Tensor:
    """Return the Jensen–Shannon divergence of clean from adversarial outputs, (N,) float64.

    Raises:
        InputError: the file has no adversarial logits.
    """
    if logits.adversarial is None:
        raise InputError(f"{logits.path}: divergence needs adversarial logits: attack it first")
    return piecewise(moved, logits.clean, logits.adversarial)


def _measured(
    measure: str,
    data: str,
    samples: tuple[Tensor, Tensor],
    drawn: Values,
    kind: str = "",
    *,
    smaller: bool = False,
) -> Measure:
    """Return the means of both models' samples, with the interval of the drawn differences."""
    natural, robust = float(samples[0].mean()), float(samples[1].mean())
    gap = natural - robust if smaller else robust - natural
    sizes = (len(samples[0]), len(samples[1]))
    ends = resampling.ends(drawn)
    return _judged(Measure(measure, data, *sizes, natural, robust, gap, *ends), min(sizes), kind)


def _judged(measure: Measure, least: int, kind: str = "") -> Measure:
    """Add the verdict; without enough examples there is none, and no interval."""
    if least < LEAST:
        return replace(measure, low=None, high=None, reason=_few(least, kind))
    if measure.low is None or measure.high is None:
        return measure
    if measure.low > 0 or measure.high < 0:
        return replace(measure, holds=measure.low > 0)
    return replace(measure, reason=NOISE)


def _few(least: int, kind: str) -> str:
    return f"{least} {kind}example{'' if least == 1 else 's'}, wanted {LEAST}"

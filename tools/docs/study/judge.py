"""What the study says of each claim: an estimate, Holm over its family, one rule for verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advkit.formulas.stats import holm
from study.asked import Asked, Claims
from study.summaries import VERDICTS, Study
from study.twoway import Estimated, one_way, two_way

HELD, OPPOSITE, SAME, OPEN, NONE = (
    "held", "the opposite held", "no difference that matters", "open", "not run yet",
)  # fmt: skip
DECIDED = (HELD, OPPOSITE, SAME)


@dataclass(frozen=True)
class Judged:
    """A test with its estimate, None if there is none, and what that says of it."""

    test: Asked
    found: Estimated | None
    verdict: str


def estimate(test: Asked, study: Study) -> Estimated | None:
    """Return the effect of a test, over the seeds that all its rows have."""
    seeds = study.seeds(test.terms, test.measure)
    if not seeds:
        return None
    if test.measure in VERDICTS:
        return two_way(study.effects(test.terms, test.measure, seeds))
    return one_way(study.figures(test.terms, test.measure, seeds))


def judge(claims: Claims, study: Study) -> list[Judged]:
    """Judge every test, in order; those not run yet count in their family all the same."""
    found = [estimate(test, study) for test in claims.tests]
    verdicts = [NONE] * len(found)
    for family in claims.families:
        places = [place for place, test in enumerate(claims.tests) if test.family == family]
        own = decide(
            [found[place] for place in places],
            [claims.tests[place].measure for place in places],
            claims.level,
            claims.margin,
        )
        for place, verdict in zip(places, own, strict=True):
            verdicts[place] = verdict
    return [Judged(*each) for each in zip(claims.tests, found, verdicts, strict=True)]


def decide(
    found: Sequence[Estimated | None], measures: Sequence[str], level: float, margin: float
) -> list[str]:
    """Return the verdicts of one family.

    Args:
        found: an estimate for each test, None where it was not run.
        measures: of each; accuracies alone can be found not to differ.
        level: of the family, by Holm.
        margin: in points.
    """
    differ = holm([each.p_zero() if each else 1.0 for each in found])
    within = holm(
        [
            each.p_within(margin) if each and measure in VERDICTS else 1.0
            for each, measure in zip(found, measures, strict=True)
        ]
    )
    verdicts = []
    for each, p, same in zip(found, differ, within, strict=True):
        if each is None:
            verdicts.append(NONE)
        elif p < level:
            verdicts.append(HELD if each.mean > 0 else OPPOSITE)
        else:
            verdicts.append(SAME if same < level else OPEN)
    return verdicts

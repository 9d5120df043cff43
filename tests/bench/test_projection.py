"""Hours, AutoAttack's passes and budgets, by hand."""

import pytest
from scipy.stats import binomtest

from advkit.bench.projection import PASSES, EvaluationCost, Training, counts, fitting
from advkit.errors import UsageError
from advkit.options import parse_budget


def test_a_robust_image_costs_every_pass():
    """7,855 forward passes and 1,910 of them with a backward pass, as counted upstream."""
    assert [sum(each) for each in zip(*PASSES.values(), strict=True)] == [7855, 1910]
    robust = EvaluationCost(forward=1.0, gradient=3.0, clean=1.0, robust=1.0)
    assert robust.seconds(1) == 1 + (7855 - 1910) + 1910 * 3


def test_others_cost_less():
    wrong = EvaluationCost(1.0, 3.0, clean=0.0, robust=0.0)
    assert wrong.seconds(10) == 10
    fooled = EvaluationCost(1.0, 3.0, clean=1.0, robust=0.0)  # one attack breaks them all
    assert fooled.seconds(2) == 2 * (1 + 2 + 101 * 3)
    half = EvaluationCost(1.0, 3.0, clean=0.8, robust=0.5)
    whole = EvaluationCost(1.0, 3.0, clean=1.0, robust=1.0)
    expected = 1 + 0.5 * (whole.seconds(1) - 1) + 0.3 * 305
    assert half.seconds(100) == pytest.approx(100 * expected)


def test_the_interval_is_wilsons():
    made = EvaluationCost(1.0, 2.0, 0.8, 0.5)
    expected = binomtest(250, 500).proportion_ci(method="wilson")
    assert made.interval(500) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("text", ["", "4", "h", "0h", "-1h", "4 hours", "1w"])
def test_other_budgets_are_refused(text):
    with pytest.raises(UsageError, match="--budget"):
        parse_budget(text)


def test_what_fits_a_budget():
    """Two hours are 7,200 s; an image takes one."""
    seconds = EvaluationCost(forward=1.0, gradient=0.0, clean=0.0, robust=0.0)  # 1 s an image
    trainings = [Training("at", 60.0, 100), Training("adr", 600.0, 100)]
    rows = fitting(trainings, seconds, (10, 1000, 5000), budget=2 * 3600)
    found = {(row["method"], row["epochs"]): row["n"] for row in rows}
    assert found == {
        ("at", 100): 1000,  # 6,000 s leave 1,200
        ("at", 50): 1000,  # 4,200
        ("at", 25): 5000,  # 5,700
        ("adr", 100): None,
        ("adr", 50): None,
        ("adr", 25): None,
    }
    assert rows[0]["hours"] == pytest.approx(6000 / 3600)


def test_counts_end_with_the_whole_test_set():
    assert counts(10_000) == (100, 200, 500, 1000, 2000, 5000, 10_000)
    assert counts(60) == (60,)

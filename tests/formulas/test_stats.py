"""Wilson and McNemar against scipy and enumeration; sample sizes by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from advkit.formulas.stats import Z80, Z95, examples_needed, holm, mcnemar, paired_interval, wilson

COUNTS = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_z_is_the_normal_quantile():
    assert pytest.approx(reference.norm.ppf(0.975), rel=1e-15) == Z95
    assert pytest.approx(reference.norm.ppf(0.8), rel=1e-15) == Z80


@given(COUNTS)
def test_wilson_is_scipys(counts):
    successes, n = counts
    expected = reference.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx(tuple(expected), abs=1e-12)


@given(COUNTS)
def test_the_interval_lies_in_the_unit_interval_around_the_share(counts):
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-15
    assert successes / n - 1e-15 <= high <= 1


@given(COUNTS)
def test_the_interval_is_symmetric_in_success_and_failure(counts):
    successes, n = counts
    low, high = wilson(successes, n)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (1, 0), (-1, 5), (6, 5), (0, -1)])
def test_what_is_no_proportion_is_refused(successes, n):
    with pytest.raises(ValueError, match="is not a proportion"):
        wilson(successes, n)


# --- McNemar, paired intervals, numbers of examples ---


@pytest.mark.parametrize(("b", "c"), [(b, c) for b in range(8) for c in range(8) if b + c])
def test_mcnemar_by_going_through_every_outcome(b, c):
    """Two-sided: outcomes of b + c fair coins at least as far from even as the one seen."""
    n, far = b + c, abs(b - c)
    outcomes = itertools.product((0, 1), repeat=n)
    extreme = sum(abs(2 * sum(outcome) - n) >= far for outcome in outcomes)
    assert mcnemar(b, c) == pytest.approx(extreme / 2**n)


@given(st.integers(0, 3_000), st.integers(0, 3_000))
def test_mcnemar_is_scipys(b, c):
    expected = reference.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-7, abs=1e-300)


@pytest.mark.parametrize(("b", "c"), [(30_000, 31_000), (500_000, 503_000)])
def test_mcnemar_of_many(b, c):
    assert mcnemar(b, c) == pytest.approx(reference.binomtest(b, b + c).pvalue, rel=1e-7)


def test_mcnemar_refuses_what_is_no_count():
    with pytest.raises(ValueError, match="not counts"):
        mcnemar(-1, 3)


def test_the_paired_interval_by_hand():
    """b = 4, c = 9 of 48: p̃ = 5/50 and 10/50, 0.1 ± 1.96·√((0.3 − 0.01)/50)."""
    spread = reference.norm.ppf(0.975) * math.sqrt(0.29 / 50)
    assert paired_interval(4, 9, 48) == pytest.approx((0.1 - spread, 0.1 + spread))


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_pairs_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="are not pairs"):
        paired_interval(*counts)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.02), (0.01, 0.01), (0.02, 0.08)])
def test_the_paired_interval_covers_with_few_discordant_pairs(first, second):
    n, truth = 120, second - first
    drawn = np.random.default_rng(0).multinomial(n, (first, second, 1 - first - second), 2000)
    ends = [paired_interval(int(b), int(c), n) for b, c, _ in drawn]
    assert np.mean([low <= truth <= high for low, high in ends]) >= 0.94


@pytest.mark.parametrize(
    ("b", "c", "n", "high"),
    [
        (10, 20, 200, 0.84),
        (40, 10, 500, 0.84),
        (3, 1, 20, 0.84),
        (60, 80, 300, 0.84),
        (0, 8, 100, 0.94),
    ],  # one-sided discordance: the formula asks for more than it takes
)
def test_so_many_examples_give_the_promised_power(b, c, n, high):
    """Simulated: exact McNemar at 5 % sees the difference four times of five, not with fewer."""
    rng = np.random.default_rng(1)

    def power(size):
        drawn = rng.multinomial(size, (b / n, c / n, 1 - (b + c) / n), 4000)
        seen = {(int(x), int(y)) for x, y, _ in drawn}
        small = {pair for pair in seen if mcnemar(*pair) < 0.05}
        return np.mean([(int(x), int(y)) in small for x, y, _ in drawn])

    needed = examples_needed(b, c, n)
    assert 0.76 < power(needed) < high
    assert power(needed // 2) < 0.66


def test_examples_needed_is_connors_but_for_the_correction():
    """Connor 1987 by hand: ψ = 0.15, δ = 0.05 gives 468.6; corrected, s² − √468.6·s − 20 = 0."""
    psi, delta = 0.15, 0.05
    z95, z80 = reference.norm.ppf([0.975, 0.8])
    plain = ((z95 * math.sqrt(psi) + z80 * math.sqrt(psi - delta**2)) / delta) ** 2
    root = max(np.roots([1, -math.sqrt(plain), -1 / delta]))
    assert plain == pytest.approx(468.6, abs=0.1)
    assert examples_needed(10, 20, 200) == math.ceil(root**2)


def test_no_number_of_examples_shows_no_difference():
    assert examples_needed(4, 4, 100) is examples_needed(0, 0, 1) is None


def test_holm_by_hand():
    """0.01·4, max of it and 0.02·3, then 0.03·2, then 0.5."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []

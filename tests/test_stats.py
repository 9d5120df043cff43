"""Wilson intervals against scipy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from advkit.stats import Z95, wilson

COUNTS = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_z_is_the_normal_quantile():
    assert pytest.approx(reference.norm.ppf(0.975), rel=1e-15) == Z95


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

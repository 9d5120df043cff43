"""Bootstrap intervals against scipy's, against exact multinomial moments, and by coverage."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats as reference

from advkit.formulas import resampling


def stream(name="test"):
    return resampling.stream(0, name)


def values(n=300):
    return np.random.default_rng(3).gamma(1.5, size=n)


def test_resampled_means_scatter_as_the_bootstrap_does():
    """Mean x̄ and standard deviation σ/√n, σ with n below."""
    x = values()
    found = resampling.means(x, stream(), 20_000)
    assert found.shape == (20_000,)
    assert found.mean() == pytest.approx(x.mean(), abs=4 * x.std() / np.sqrt(300 * 20_000))
    assert found.std() == pytest.approx(x.std() / np.sqrt(300), rel=0.02)


def test_intervals_are_scipys_percentile_ones():
    x, y = values(), values(200) + 0.3
    ours = resampling.of_mean(x, stream(), 20_000)
    theirs = reference.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.006)
    generator = stream()
    drawn = resampling.means(y, generator, 20_000) - resampling.means(x, generator, 20_000)
    ours = resampling.ends(drawn)
    theirs = reference.bootstrap(
        (y, x), lambda a, b, axis: a.mean(axis) - b.mean(axis),
        n_resamples=20_000, method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    assert ours == pytest.approx(tuple(theirs), abs=0.008)


def test_verdicts_are_drawn_exactly():
    """Of −1, 0, 1 only the counts matter: the resampled mean is a multinomial difference."""
    gaps = np.repeat([-1.0, 0.0, 1.0], (6, 80, 14))
    found = resampling.means(gaps, stream(), 40_000)
    assert np.allclose(found * 100, np.round(found * 100))
    assert found.var() == pytest.approx((0.20 - 0.08**2) / 100, rel=0.03)
    none = reference.binom.pmf(0, 100, 0.06)  # no −1 drawn at all
    low = reference.multinomial.pmf([0, 93, 7], 100, [0.06, 0.8, 0.14])
    assert none > 0
    assert low > 0
    exact = sum(reference.multinomial.pmf([b, 100 - 2 * b - 8, b + 8], 100, [0.06, 0.8, 0.14])
                for b in range(47))  # fmt: skip
    assert np.mean(np.isclose(found, 0.08)) == pytest.approx(exact, abs=0.006)


@pytest.mark.parametrize(
    ("n", "share"), [(30, 0.92), (100, 0.935), pytest.param(400, 0.945, marks=pytest.mark.slow)]
)
def test_coverage(n, share):
    """95 % intervals hold the truth about 95 times of 100, a little less for small samples."""
    rng, truth, hits = np.random.default_rng(5), 1.5, 0
    for trial in range(400):
        low, high = resampling.of_mean(rng.gamma(1.5, size=n), stream(trial), 400)
        hits += low <= truth <= high
    assert abs(hits / 400 - share) < 3.5 * (share * (1 - share) / 400) ** 0.5


def test_a_million_values_take_little_memory_and_keep_mean_and_spread():
    x = np.random.default_rng(0).beta(0.5, 3, size=1_000_000)
    tracemalloc.start()
    found = resampling.means(x, stream(), 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * x.nbytes  # one draw of indices for each resample would be 2,000 times it
    assert found.mean() == pytest.approx(x.mean(), abs=5 * x.std() / 1000 / np.sqrt(2000))
    assert found.std() == pytest.approx(x.std() / 1000, rel=0.06)


def test_binning_keeps_the_mean_and_almost_all_of_the_variance():
    x = values(5000)
    centres, counts = resampling._cells(x)
    assert len(centres) <= resampling.CELLS < len(np.unique(x))
    assert counts.sum() == 5000
    assert centres @ counts / 5000 == pytest.approx(x.mean(), rel=1e-12)
    kept = ((centres - x.mean()) ** 2) @ counts / 5000
    assert kept == pytest.approx(x.var(), rel=1e-4)
    assert kept <= x.var()


def test_streams_repeat_and_differ_by_name():
    x = values()
    assert resampling.of_mean(x, stream()) == resampling.of_mean(x, stream())
    assert resampling.of_mean(x, stream()) != resampling.of_mean(x, stream("other"))


def test_one_value_and_none():
    assert resampling.of_mean([2.0], stream()) == (2.0, 2.0)
    with pytest.raises(ValueError, match="no value"):
        resampling.of_mean([], stream())

"""AUROC and FPR95 against scikit-learn's ROC curve, the interval against its definition."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from advkit.analyses.statistics.scores import auroc, auroc_interval, fpr95, mean_interval


def sides(seed, m, n, ties):
    rng = np.random.default_rng(seed)
    low, high = rng.normal(size=m), rng.normal(1, size=n)
    return (np.round(low), np.round(high)) if ties else (low, high)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 7), (20, 3), (60, 100), (333, 200)])
def test_auroc_and_fpr95_against_scikit_learn(m, n, ties):
    for seed in range(5):
        low, high = sides(seed, m, n, ties)
        scores = np.concatenate([low, high])
        outside = np.r_[np.zeros(m), np.ones(n)]
        found = auroc(torch.tensor(low), torch.tensor(high))
        assert found == pytest.approx(roc_auc_score(outside, scores), abs=1e-12)
        wrong, kept, _ = roc_curve(1 - outside, -scores, drop_intermediate=False)
        expected = wrong[kept >= 0.95][0]
        assert fpr95(torch.tensor(low), torch.tensor(high)) == pytest.approx(expected, abs=1e-12)


def test_all_equal_is_a_coin():
    assert auroc(torch.zeros(4), torch.zeros(9)) == 0.5
    assert fpr95(torch.zeros(4), torch.zeros(9)) == 1.0


def test_an_empty_side_has_no_auroc():
    for low, high in ((torch.zeros(0), torch.zeros(3)), (torch.zeros(3), torch.zeros(0))):
        assert auroc(low, high) is None
    assert auroc_interval(None, 0, 3) is None


def hanley_mcneil(a, n):
    """Return the variance of an AUROC of n against n, as the paper of 1982 writes it."""
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    return (a * (1 - a) + (n - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (n * n)


@pytest.mark.parametrize("area", [0.1, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("n", [1, 10, 200])
def test_interval_ends_are_z_deviations_away(area, n):
    for end in auroc_interval(area, n, n):
        assert abs(area - end) == pytest.approx(1.959964 * math.sqrt(hanley_mcneil(end, n)), 1e-5)


@pytest.mark.parametrize(("area", "fixed"), [(0.0, 0), (1.0, 1)])
def test_interval_has_a_width_at_the_ends(area, fixed):
    ends = auroc_interval(area, 30, 40)
    assert ends[fixed] == area
    assert 0.02 < ends[1] - ends[0] < 0.2


def test_interval_covers():
    """Of two exponentials with AUROC 0.8, for which Hanley and McNeil's variance is exact."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        low, high = rng.exponential(1, 40), rng.exponential(4, 30)
        low_end, high_end = auroc_interval(auroc(torch.tensor(low), torch.tensor(high)), 40, 30)
        hits += low_end <= 0.8 <= high_end
    assert 0.92 <= hits / 400 <= 0.985


def test_interval_of_a_mean():
    values = torch.tensor([0.2, 0.4, 0.9]).double()
    half = 1.959964 * np.std([0.2, 0.4, 0.9], ddof=1) / math.sqrt(3)
    assert mean_interval(values, 1.0) == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)
    assert mean_interval(values, 0.6)[1] == 0.6
    assert mean_interval(values - 0.2, 1.0)[0] == 0
    assert mean_interval(values[:1], 1.0) is None

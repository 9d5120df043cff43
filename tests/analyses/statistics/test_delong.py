"""AUROC against scikit-learn, DeLong's interval against a bootstrap over examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from advkit.analyses.statistics.delong import difference, placements
from advkit.analyses.statistics.scores import auroc


def scores(n=120, m=80, shift=0.8, seed=0, places=None):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=n), rng.normal(size=m) + shift
    return [torch.tensor(x if places is None else x.round(places)) for x in drawn]


@pytest.mark.parametrize("places", [None, 1, 0])
def test_against_scikit_learn(places):
    """Ties count as halves."""
    inside, outside = scores(places=places)
    expected = roc_auc_score([0] * 120 + [1] * 80, torch.cat([inside, outside]))
    assert auroc(inside, outside) == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    """Pairs (1,2) (1,3) (2,2)½ (2,3) (4,2) (4,3): 3.5 of 6."""
    inside, outside = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 3.0])
    assert auroc(inside, outside) == pytest.approx(3.5 / 6)
    above, below = placements(inside, outside)
    assert above.tolist() == pytest.approx([1, 0.75, 0])
    assert below.tolist() == pytest.approx([0.5, 2 / 3])


def test_the_interval_is_that_of_a_bootstrap_over_examples():
    first, second = scores(shift=0.5), scores(shift=1.0)  # one draw: paired and correlated
    second = [x + 0.5 * noise for x, noise in zip(second, scores(seed=9), strict=True)]
    centre, (low, high) = difference(first, second)
    assert centre == pytest.approx(auroc(*second) - auroc(*first))
    rng, drawn = np.random.default_rng(1), []
    for _ in range(1500):
        i, j = rng.integers(120, size=120), rng.integers(80, size=80)
        ours = [auroc(x[i], y[j]) for x, y in (first, second)]
        drawn.append(ours[1] - ours[0])
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(drawn), rel=0.08)


def test_the_interval_covers():
    """Of two scores equally good on average, the interval holds 0 about 95 times of 100."""
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        base = rng.normal(size=60), rng.normal(size=40) + 1
        two = [[torch.tensor(x + rng.normal(size=len(x))) for x in base] for _ in "ab"]
        _, (low, high) = difference(*two)
        hits += low <= 0 <= high
    assert 0.91 <= hits / 300 <= 0.98


def test_one_example_each_and_none():
    one = torch.tensor([1.0])
    assert difference((one, one + 1), (one, one - 1)) == (-1.0, (-1.0, -1.0))
    with pytest.raises(ValueError, match="needs a score"):
        placements(one, torch.empty(0))

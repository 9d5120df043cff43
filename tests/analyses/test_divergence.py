"""Jensen–Shannon divergence against scipy's distance, squared."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import sem

from advkit.analyses.divergence import analyze
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, UsageError
from advkit.formulas.information import jensen_shannon


def logits_of(clean, adversarial=None):
    tensors = [None if z is None else torch.tensor(z).float() for z in (clean, adversarial)]
    n = len(clean)
    return Logits(torch.arange(n), torch.zeros(n).long(), tensors[0], {}, tensors[1], path="x.h5")


def pair(scale=1.0, n=80, classes=5):
    rng = np.random.default_rng(2)
    return rng.normal(size=(n, classes)) * scale, rng.normal(size=(n, classes)) * scale


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0, 15.0])
def test_against_scipy(scale):
    p, q = (softmax(z, axis=1) for z in pair(scale))
    expected = jensenshannon(p, q, axis=1, base=math.e) ** 2
    np.testing.assert_allclose(
        jensen_shannon(torch.tensor(p), torch.tensor(q)), expected, atol=1e-12
    )


def test_ends():
    p = torch.eye(3).double()
    q = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]]).double()
    np.testing.assert_allclose(jensen_shannon(p, q), [0, math.log(2), 0], atol=1e-12)


def test_symmetric():
    p, q = (torch.tensor(softmax(z, axis=1)) for z in pair())
    assert torch.allclose(jensen_shannon(p, q), jensen_shannon(q, p), atol=1e-15)


def test_numbers_and_table():
    clean, adversarial = pair()
    result = analyze([logits_of(clean, adversarial)], bins=9)
    p, q = (softmax(z, axis=1) for z in (clean, adversarial))
    expected = jensenshannon(p, q, axis=1) ** 2
    kl = scipy.stats.entropy(p, q, axis=1)
    changed = int((p.argmax(1) != q.argmax(1)).sum())
    ends = scipy.stats.binomtest(changed, 80).proportion_ci(method="wilson")
    intervals = {
        "divergence_ci95": scipy.stats.norm.interval(0.95, expected.mean(), sem(expected)),
        "kl_ci95": scipy.stats.norm.interval(0.95, kl.mean(), sem(kl)),
        "changed_ci95": (ends.low, ends.high),
    }
    numbers = dict(result.numbers)
    for name, interval in intervals.items():
        assert numbers.pop(name) == pytest.approx(interval, abs=1e-6)
    assert numbers == pytest.approx(
        {
            "n": 80,
            "divergence": expected.mean(),
            "divergence_median": np.median(expected),
            "divergence_p95": np.quantile(expected, 0.95),
            "max_divergence": math.log(2),
            "kl": kl.mean(),
            "changed": changed / 80,
        },
        abs=1e-6,
    )
    counts, ends = np.histogram(expected, bins=9, range=(0, math.log(2)))
    assert [row[3] for row in result.rows] == counts.tolist()
    np.testing.assert_allclose([row[1] for row in result.rows], ends[:-1])
    np.testing.assert_allclose([row[2] for row in result.rows], ends[1:])
    assert len(result.panels) == len(result.sketches) == 1


def test_broken_and_robust_apart():
    """Those wrong when clean belong to neither."""
    clean, adversarial = pair()
    verdicts = torch.tensor([-2, -1, 0, 1] * 20, dtype=torch.int8)
    file = dataclasses.replace(logits_of(clean, adversarial), broken_by=verdicts)
    result = analyze([file])
    p, q = (softmax(z, axis=1) for z in (clean, adversarial))
    found = (jensenshannon(p, q, axis=1) ** 2).reshape(20, 4)
    assert result.numbers["divergence_robust"] == pytest.approx(found[:, 1].mean(), abs=1e-6)
    assert result.numbers["divergence_broken"] == pytest.approx(found[:, 2:].mean(), abs=1e-6)
    counts = {
        name: sum(row[3] for row in result.rows if row[0] == name) for name, *_ in result.rows
    }
    assert counts == {"clean to adversarial": 80, "robust": 20, "broken": 40}
    nobody = dataclasses.replace(file, broken_by=torch.full_like(verdicts, -1))
    assert analyze([nobody]).numbers["divergence_broken"] is None


def test_one_example_and_two_classes():
    numbers = analyze([logits_of([[0.0, 1.0]], [[200.0, -200.0]])]).numbers
    assert numbers["divergence_ci95"] is None
    assert (numbers["changed"], numbers["n"]) == (1, 1)
    assert math.isfinite(numbers["kl"])


def test_needs_an_attack():
    with pytest.raises(InputError, match=r"x\.h5: divergence needs adversarial"):
        analyze([logits_of(pair()[0])])


def test_needs_a_bin():
    with pytest.raises(UsageError, match="--bins"):
        analyze([logits_of(*pair())], bins=0)

"""Calibration against a loop over examples, torchmetrics and numpy."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from advkit.analyses import calibration
from advkit.analyses.calibration import adaptive_ece, analyze, brier, ece, reliability
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, UsageError


def sample(n=200, classes=4, seed=0, scale=2.0):
    """(logits, y) in float64, right about half of the time."""
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(n, classes)) * scale, rng.integers(classes, size=n)
    z[np.arange(n), y] += 1
    return z, y


def brute(p, y, bins):
    """Return (ECE, MCE) over bins (k/K, (k+1)/K], one example at a time."""
    inside = [[] for _ in range(bins)]
    for row, label in zip(p, y, strict=True):
        for k in range(bins):
            if k / bins < row.max() <= (k + 1) / bins:
                inside[k].append((row.max(), row.argmax() == label))
    gaps = [
        (len(b), abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b]))) for b in inside if b
    ]
    return sum(n * gap for n, gap in gaps) / len(y), max(gap for _, gap in gaps)


def logits_of(clean, y, adversarial=None):
    clean = torch.tensor(clean, dtype=torch.float32)
    if adversarial is not None:
        adversarial = torch.tensor(adversarial, dtype=torch.float32)
    return Logits(torch.arange(len(y)), torch.as_tensor(y), clean, {}, adversarial, path="it.h5")


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (50, 2), (400, 10)])
def test_ece_and_mce_by_brute_force(n, classes, bins):
    z, y = sample(n, classes, seed=bins)
    p = softmax(z, axis=1)
    expected, worst = brute(p, y, bins)
    assert ece(torch.tensor(p), torch.tensor(y), bins) == pytest.approx(expected, abs=1e-12)
    found = reliability(torch.tensor(p), torch.tensor(y), bins)
    assert float(found.gaps.max()) == pytest.approx(worst, abs=1e-12)
    assert int(found.count.sum()) == n


@pytest.mark.parametrize("bins", [5, 15])
def test_agrees_with_torchmetrics(bins):
    from torchmetrics.functional.classification import multiclass_calibration_error

    z, y = sample(300, 5)
    p = torch.tensor(softmax(z, axis=1))
    y, numbers = torch.tensor(y), analyze([logits_of(z, y)], bins=bins).numbers
    assert float(p.max()) < 1
    for norm, name in (("l1", "clean_ece"), ("max", "clean_mce")):
        theirs = multiclass_calibration_error(p, y, 5, n_bins=bins, norm=norm)
        assert numbers[name] == pytest.approx(float(theirs), abs=1e-5)


def test_full_confidence_is_in_the_last_bin():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.95, 0.05]])
    y = torch.tensor([0, 1, 0, 0])
    assert ece(p, y, 10) == pytest.approx(abs(3.95 / 4 - 3 / 4))


def test_edges_belong_below():
    found = reliability(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 0]), 4)
    assert found.low.tolist() == [0.25, 0.5]
    assert found.high.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(("n", "bins"), [(200, 15), (30, 15), (7, 15), (100, 1)])
def test_adaptive_ece_by_hand(n, bins):
    """Sorted by confidence and cut into parts of equal size, to within one."""
    z, y = sample(n)
    p = softmax(z, axis=1)
    confidence, right = p.max(1), p.argmax(1) == y
    parts = [part for part in np.array_split(np.argsort(confidence), bins) if len(part)]
    gaps = [len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts]
    found = adaptive_ece(torch.tensor(p), torch.tensor(y), bins)
    assert found == pytest.approx(sum(gaps) / n, abs=1e-12)
    counts = reliability(torch.tensor(p), torch.tensor(y), bins, equal_mass=True).count
    assert int(counts.max() - counts.min()) <= 1


def test_brier_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    by_hand = ((0.3**2 + 0.2**2 + 0.1**2) + (1 + 1)) / 2
    assert brier(p, torch.tensor([0, 2])) == pytest.approx(by_hand)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_numbers(scale):
    """Every figure of both conditions, from numpy."""
    z, y = sample(scale=scale)
    attacked = sample(seed=1)[0] * scale
    numbers = analyze([logits_of(z, y, attacked)], bins=10).numbers
    rows = np.arange(len(y))
    for name, logits in (("clean", z), ("adversarial", attacked)):
        p = softmax(logits, axis=1)
        expected = {
            "accuracy": (p.argmax(1) == y).mean(),
            "confidence": p.max(1).mean(),
            "nll": -np.log(p[rows, y]).mean(),
            "brier": ((p - np.eye(4)[y]) ** 2).sum(1).mean(),
            "ece": brute(p, y, 10)[0],
            "mce": brute(p, y, 10)[1],
        }
        found = {key: numbers[f"{name}_{key}"] for key in expected}
        assert found == pytest.approx(expected, abs=1e-5)
    assert (numbers["n"], numbers["bins"]) == (200, 10)


def test_table_adds_up():
    z, y = sample()
    result = analyze([logits_of(z, y)], bins=8)
    column = {name: [row[k] for row in result.rows] for k, name in enumerate(result.columns)}
    assert set(column["condition"]) == {"clean"}
    count, accuracy, confidence = (
        np.array(column[name]) for name in ("count", "accuracy", "confidence")
    )
    assert count.sum() == 200
    gap = (count * np.abs(accuracy - confidence)).sum() / 200
    assert result.numbers["clean_ece"] == pytest.approx(gap)
    assert all(
        low < c <= high
        for low, high, c in zip(column["low"], column["high"], confidence, strict=True)
    )


def test_clean_file_has_clean_figures_only():
    z, y = sample()
    assert not any(name.startswith("adv") for name in analyze([logits_of(z, y)]).numbers)


def test_needs_labels():
    z, y = sample()
    with pytest.raises(InputError, match=r"it\.h5: calibration needs labels"):
        analyze([logits_of(z, np.full_like(y, -1))])


@pytest.mark.parametrize("bins", [0, -1])
def test_needs_a_bin(bins):
    z, y = sample()
    with pytest.raises(UsageError, match="--bins"):
        analyze([logits_of(z, y)], bins=bins)


def test_takes_logits_one_by_one():
    assert calibration.KINDS == ("logits",)
    assert not getattr(calibration, "COMPARES", False)

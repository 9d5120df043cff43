"""Entropy against scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from advkit.analyses.drawing.histograms import counted, edges
from advkit.analyses.entropy import analyze
from advkit.artifacts.hdf5 import Logits
from advkit.errors import UsageError
from advkit.formulas.information import entropy


def logits_of(clean, y, adversarial=None):
    tensors = [None if z is None else torch.tensor(z).float() for z in (clean, adversarial)]
    return Logits(torch.arange(len(y)), torch.as_tensor(y), tensors[0], {}, tensors[1], path="x")


@pytest.fixture
def case():
    """(clean, adversarial, y) for 60 examples of 6 classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 6)) * 2, rng.normal(size=(60, 6)), rng.integers(6, size=60)


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 500.0])
def test_against_scipy(scale):
    p = softmax(np.random.default_rng(1).normal(size=(50, 7)) * scale, axis=1)
    np.testing.assert_allclose(entropy(torch.tensor(p)), scipy.stats.entropy(p, axis=1), atol=1e-12)


def test_ends():
    p = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(entropy(p), [0, math.log(4), math.log(2)], atol=1e-6)


def test_numbers(case):
    clean, adversarial, y = case
    numbers = analyze([logits_of(clean, y, adversarial)]).numbers
    assert numbers["max_entropy"] == pytest.approx(math.log(6))
    for name, z in (("clean", clean), ("adversarial", adversarial)):
        found, right = scipy.stats.entropy(softmax(z, axis=1), axis=1), z.argmax(1) == y
        expected = {
            f"{name}_entropy": found.mean(),
            f"{name}_entropy_right": found[right].mean(),
            f"{name}_entropy_wrong": found[~right].mean(),
        }
        assert {key: numbers[key] for key in expected} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [59, 60])
def test_median(case, n):
    """The usual median: of an even count, midway between the middle two."""
    clean, _, y = (each[:n] for each in case)
    expected = np.median(scipy.stats.entropy(softmax(clean, axis=1), axis=1))
    found = analyze([logits_of(clean, y)]).numbers["clean_entropy_median"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_histograms_count_everyone(case):
    clean, adversarial, y = case
    result = analyze([logits_of(clean, y, adversarial)], bins=12)
    found = scipy.stats.entropy(softmax(clean, axis=1), axis=1)
    expected, ends = np.histogram(found, bins=12, range=(0, math.log(6)))
    rows = [row for row in result.rows if row[0] == "clean"]
    assert [row[3] for row in rows] == expected.tolist()
    np.testing.assert_allclose([row[1] for row in rows], ends[:-1])
    np.testing.assert_allclose([row[2] for row in rows], ends[1:])
    counts = {
        name: sum(row[3] for row in result.rows if row[0] == name) for name, *_ in result.rows
    }
    for name in ("clean", "adversarial"):
        assert counts[name] == 60 == counts[f"{name}, right"] + counts[f"{name}, wrong"]
    assert [list(each.counts) for each in result.sketches] == [
        ["clean", "adversarial"],
        ["clean, right", "clean, wrong"],
        ["adversarial, right", "adversarial, wrong"],
    ]
    assert len(result.panels) == 3


def test_out_of_distribution_has_no_right_or_wrong(case):
    result = analyze([logits_of(case[0], np.full(60, -1))])
    own = {"clean_entropy", "clean_entropy_ci95", "clean_entropy_median"}
    assert set(result.numbers) == {"n", "max_entropy", *own}
    assert len(result.panels) == 1


def test_telling_wrong_from_right_against_scikit_learn(case):
    clean, adversarial, y = case
    numbers = analyze([logits_of(clean, y, adversarial)]).numbers
    for name, z in (("clean", clean), ("adversarial", adversarial)):
        found = scipy.stats.entropy(softmax(np.float32(z).astype(float), axis=1), axis=1)
        expected = roc_auc_score(z.argmax(1) != y, found)
        assert numbers[f"{name}_entropy_auroc"] == pytest.approx(expected, abs=1e-9)
        low, high = numbers[f"{name}_entropy_auroc_ci95"]
        assert 0 < low < expected < high < 1


def test_intervals_of_means_against_scipy(case):
    clean, _, y = case
    numbers = analyze([logits_of(clean, y)]).numbers
    found, right = scipy.stats.entropy(softmax(clean, axis=1), axis=1), clean.argmax(1) == y
    for name, side in (("", right | True), ("_right", right), ("_wrong", ~right)):
        values = found[side]
        expected = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
        assert numbers[f"clean_entropy{name}_ci95"] == pytest.approx(expected, abs=1e-5)


def test_one_example_and_two_classes():
    numbers = analyze([logits_of([[0.0, 1.0]], [1], [[1.0, 0.0]])]).numbers
    assert numbers["clean_entropy_ci95"] is numbers["clean_entropy_auroc"] is None
    assert numbers["clean_entropy_right"] == numbers["adversarial_entropy_wrong"]


def test_pieces_do_not_show(case, monkeypatch):
    expected = analyze([logits_of(*case[::2])]).numbers
    monkeypatch.setattr("advkit.artifacts.rows.PIECE", 7)
    assert analyze([logits_of(*case[::2])]).numbers == expected


def test_nobody_wrong_is_null():
    numbers = analyze([logits_of(np.eye(3), np.arange(3))]).numbers
    assert numbers["clean_entropy_wrong"] is numbers["clean_entropy_auroc"] is None
    assert numbers["clean_entropy_right"] is not None


def test_rounding_beyond_the_ends_counts():
    assert counted(torch.tensor([-1e-9, 0.0, 1.0, 1.0 + 1e-9]), 2, 1.0) == (2, 2)
    assert edges(4, 2.0) == (0, 0.5, 1, 1.5, 2)


def test_needs_a_bin(case):
    with pytest.raises(UsageError, match="--bins"):
        analyze([logits_of(case[0], case[2])], bins=0)

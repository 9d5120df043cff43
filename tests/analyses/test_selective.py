"""Selective prediction of logits files, against a rewrite in numpy, and by hand."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from advkit.analyses.selective import analyze
from advkit.errors import InputError
from tests.analyses._files import certain, file_of


def reference(logits, y, risk):
    """AURC, its least value and the coverage at a risk, one answer after the other; no ties."""
    p = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    wrong = (p.argmax(1) != y)[np.argsort(-p.max(1))]
    n, curve, best, failed = len(y), [], 0, 0
    for k in range(1, n + 1):
        failed += wrong[k - 1]
        curve.append(failed / k)
        best = k if failed / k <= risk else best
    ideal = [max(0, k - (n - wrong.sum())) / k for k in range(1, n + 1)]
    return np.mean(curve), np.mean(ideal), best / n, wrong.mean()


def test_against_a_rewrite():
    rng = np.random.default_rng(0)
    y = torch.tensor(rng.integers(4, size=300))
    clean = torch.tensor(rng.normal(size=(300, 4))).float()
    clean[torch.arange(300), y] += 2
    adversarial = clean + torch.tensor(rng.normal(size=(300, 4))).float()
    robust = adversarial.argmax(1) == y
    numbers = analyze([file_of(clean, y, adversarial=adversarial, robust=robust)], risk=0.1).numbers
    for name, z in (("clean", clean), ("adversarial", adversarial)):
        aurc, least, coverage, risk = reference(z.numpy(), y.numpy(), 0.1)
        assert numbers[f"{name}_aurc"] == pytest.approx(aurc)
        assert numbers[f"{name}_least_aurc"] == pytest.approx(least)
        assert numbers[f"{name}_e_aurc"] == pytest.approx(aurc - least)
        assert numbers[f"{name}_coverage"] == coverage
        assert numbers[f"{name}_risk"] == pytest.approx(risk)
        low, high = numbers[f"{name}_aurc_ci95"]
        assert low < aurc < high


def test_by_hand():
    """Confidences .9 .8 .8 .6 of 3 classes; the second and the last answer are wrong."""
    says = torch.tensor([0, 1, 2, 0])
    y = torch.tensor([0, 2, 2, 1])
    z = certain(says, 3, torch.tensor([0.9, 0.8, 0.8, 0.6]))
    result = analyze([file_of(z, y)], risk=0.34)
    # Taken one by one: 0; half a wrong one of 2; 1 of 3; 2 of 4.
    assert result.numbers["clean_aurc"] == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)
    assert result.numbers["clean_least_aurc"] == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert result.numbers["clean_coverage"] == 0.75
    assert [row[2:] for row in result.rows] == [
        (1, 0, 0.25, 0),
        (3, 1, 0.75, 1 / 3),
        (4, 2, 1, 0.5),
    ]
    assert "adversarial_aurc" not in result.numbers


def test_a_threshold_takes_all_of_a_tie():
    """The right one of two equals cannot be had without the wrong one."""
    z = certain(torch.tensor([0, 1]), 3, 0.8)
    numbers = analyze([file_of(z, torch.tensor([0, 2]))]).numbers
    assert numbers["clean_coverage"] == 0
    assert numbers["clean_aurc"] == 0.5


def test_the_order_of_rows_changes_nothing_and_last_bits_neither():
    rng = np.random.default_rng(1)
    y = torch.tensor(rng.integers(3, size=50))
    z = torch.tensor(rng.normal(size=(50, 3))).round().float()
    order = torch.tensor(rng.permutation(50))
    numbers = analyze([file_of(z, y)]).numbers
    assert analyze([file_of(z[order], y[order])]).numbers == numbers
    # Another order of classes has the same confidences but for the last bits of their sums.
    turned = analyze([file_of(z.flip(1), 2 - y)])
    assert len(turned.rows) == len(analyze([file_of(z, y)]).rows)


def test_one_example_has_no_interval():
    numbers = analyze([file_of(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))]).numbers
    assert (numbers["clean_aurc"], numbers["clean_aurc_ci95"]) == (0, None)
    assert numbers["clean_coverage"] == 1


def test_needs_labels():
    with pytest.raises(InputError, match="selective needs labels"):
        analyze([file_of(torch.tensor([[2.0, 0.0]]), torch.tensor([-1]))])

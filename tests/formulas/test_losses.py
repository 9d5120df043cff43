"""Losses per example against scipy, numpy and hand-worked values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special
from scipy.spatial.distance import cdist

from advkit.formulas import losses

LOGITS = hnp.arrays(np.float64, (4, 5), elements=st.floats(-30, 30, allow_subnormal=False))
Y = torch.tensor([0, 1, 4, 4])


@given(LOGITS)
def test_log_softmax_is_scipys(z):
    found = losses.log_softmax(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(found, special.log_softmax(z, axis=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("given_dtype", "dtype"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_widened(given_dtype, dtype):
    assert losses.log_softmax(torch.zeros(1, 3, dtype=given_dtype)).dtype == dtype
    steep = torch.tensor([[12.0, 0.0]], dtype=given_dtype, requires_grad=True)
    losses.cross_entropy(steep, torch.tensor([0])).sum().backward()
    assert steep.grad[0, 1] > 0  # e^-12 is below what half-precision softmax resolves


@given(LOGITS)
def test_cross_entropy_is_minus_log_probability(z):
    found = losses.cross_entropy(torch.from_numpy(z), Y).numpy()
    expected = -special.log_softmax(z, axis=1)[np.arange(4), Y]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(LOGITS, LOGITS)
def test_soft_cross_entropy_is_the_weighted_sum(z, t):
    target = special.softmax(t, axis=1)
    found = losses.cross_entropy(torch.from_numpy(z), torch.from_numpy(target)).numpy()
    expected = -(target * special.log_softmax(z, axis=1)).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(LOGITS)
def test_hard_and_one_hot_targets_agree(z):
    logits = torch.from_numpy(z)
    one_hot = torch.nn.functional.one_hot(Y, 5).double()
    hard, soft = losses.cross_entropy(logits, Y), losses.cross_entropy(logits, one_hot)
    torch.testing.assert_close(hard, soft)


@given(LOGITS, LOGITS)
def test_kl_is_scipys_relative_entropy(p, q):
    found = losses.kl_divergence(torch.from_numpy(p), torch.from_numpy(q)).numpy()
    left, right = special.softmax(p, axis=1), special.softmax(q, axis=1)
    np.testing.assert_allclose(found, special.rel_entr(left, right).sum(1), rtol=1e-6, atol=1e-9)
    assert (found >= -1e-9).all()


def test_kl_by_hand():
    p, q = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    # 0.75 ln 1.5 + 0.25 ln 0.5
    assert float(losses.kl_divergence(p, q)) == pytest.approx(0.1308120, abs=1e-6)
    # 0.5 ln (2/3) + 0.5 ln 2
    assert float(losses.kl_divergence(q, p)) == pytest.approx(0.1438410, abs=1e-6)


def test_kl_keeps_finite_gradients_at_huge_gaps():
    p = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    q = torch.tensor([[-300.0, 0.0, 300.0]], requires_grad=True)
    losses.kl_divergence(p, q).sum().backward()
    assert bool(p.grad.isfinite().all())
    assert bool(q.grad.isfinite().all())
    assert losses.kl_divergence(p, q).item() == pytest.approx(600)


def test_margin_and_dlr_by_hand():
    z = torch.tensor([[3.0, 1.0, 0.0, -1.0], [3.0, 1.0, 0.0, -1.0]])
    y = torch.tensor([0, 2])
    assert losses.margin(z, y).tolist() == [-2, 3]
    # y=0: -(3-1)/(3-0); y=2: -(0-3)/(3-0)
    assert losses.dlr(z, y).tolist() == pytest.approx([-2 / 3, 1.0])


@given(LOGITS)
def test_margin_is_positive_exactly_when_misclassified(z):
    found = losses.margin(torch.from_numpy(z), Y).numpy()
    expected = np.array([np.delete(row, y).max() - row[y] for row, y in zip(z, Y, strict=True)])
    np.testing.assert_array_equal(found, expected)


@given(LOGITS, st.floats(0.5, 4), st.floats(-3, 3))
def test_dlr_ignores_scale_and_shift_of_the_logits(z, scale, shift):
    z = z + np.arange(5) * 100  # no ties
    first = losses.dlr(torch.from_numpy(z), Y)
    torch.testing.assert_close(losses.dlr(torch.from_numpy(z * scale + shift), Y), first)


def test_log_odds_against_scipy():
    z = np.random.default_rng(0).normal(0, 4, (4, 5))
    others = [np.delete(row, label) for row, label in zip(z, Y.tolist(), strict=True)]
    own = [row[label] for row, label in zip(z, Y.tolist(), strict=True)]
    expected = [special.logsumexp(rest) - true for rest, true in zip(others, own, strict=True)]
    got = losses.log_odds(torch.from_numpy(z), Y)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    # Cross-entropy is log(1 + exp of them).
    entropy = losses.cross_entropy(torch.from_numpy(z), Y)
    np.testing.assert_allclose(np.logaddexp(0, got.numpy()), entropy, rtol=1e-12)


def test_log_odds_have_a_gradient_where_cross_entropy_has_none():
    z = torch.tensor([[300.0, 0.0, 1.0]], requires_grad=True)
    y = torch.tensor([0])
    (dead,) = torch.autograd.grad(losses.cross_entropy(z, y).sum(), z)
    assert dead.abs().sum() == 0
    (slope,) = torch.autograd.grad(losses.log_odds(z, y).sum(), z)
    share = 1 / (1 + np.e)
    np.testing.assert_allclose(slope, [[-1, share, 1 - share]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_spread_is_the_same_at_every_scale(scale):
    z = np.random.default_rng(1).normal(0, 1, (4, 5))
    scaled = torch.from_numpy(z * scale).float()
    brought = (scaled * losses.to_spread(scaled)).double().numpy()
    np.testing.assert_allclose(brought.std(1), losses.SPREAD, rtol=1e-5)
    np.testing.assert_allclose(brought / losses.SPREAD, z / z.std(1)[:, None], rtol=1e-4)


def test_equal_logits_are_left_alone():
    assert losses.to_spread(torch.zeros(2, 3)).tolist() == [[1], [1]]
    assert losses.to_spread(torch.full((1, 3), 7.0)).tolist() == [[1]]


def test_ties_give_no_nan():
    z = torch.ones(4, 5)
    assert losses.dlr(z, Y).tolist() == [0] * 4
    assert losses.margin(z, Y).tolist() == [0] * 4


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.margin, losses.dlr])
def test_each_example_has_a_gradient_of_its_own(loss):
    z = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = torch.func.jacrev(lambda each: loss(each, Y))(z)
    crossed = cdist(np.eye(4), np.eye(4)) > 0
    assert bool((together[torch.from_numpy(crossed)] == 0).all())
    assert torch.autograd.gradcheck(lambda each: loss(each, Y), z.requires_grad_())

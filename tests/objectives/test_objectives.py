"""Objectives against formulas written with scipy in float64."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from advkit.objectives import Given, at, natural, trades


class Affine(nn.Module):
    """Logits W·x + b in float64: each input's own, no batch statistics."""

    def __init__(self, classes=4, pixels=6):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(pixels, classes).double()

    def forward(self, x):
        return self.linear(x.flatten(1))

    def by_hand(self, x):
        w, b = (p.detach().numpy() for p in (self.linear.weight, self.linear.bias))
        return x.flatten(1).numpy() @ w.T + b


def ce(z, t):
    return -(t * log_softmax(z, axis=1)).sum(1)


def kl(z, w):
    p, q = log_softmax(z, axis=1), log_softmax(w, axis=1)
    return (np.exp(p) * (p - q)).sum(1)


def unasked():
    raise AssertionError("nothing here looks at the clean logits of the attack")


@pytest.fixture
def case():
    """(model, clean, adversarial, given) for 5 examples of 4 classes, soft targets."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(5, 1, 2, 3, generator=rng, dtype=torch.float64)
    x_adv = x + 0.1 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    targets = torch.rand(5, 4, generator=rng, dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 1, 2])
    return Affine(), x, x_adv, Given(y, targets / targets.sum(1, keepdim=True), unasked)


def test_at(case):
    model, x, x_adv, given = case
    loss, seen = at.outer(model, x, x_adv, given)
    z = model.by_hand(x_adv)
    assert loss.item() == pytest.approx(ce(z, given.targets.numpy()).mean(), rel=1e-12)
    np.testing.assert_allclose(seen["adversarial"], z, atol=1e-12)
    assert not seen["adversarial"].requires_grad


def test_natural(case):
    model, x, x_adv, given = case
    loss, seen = natural.outer(model, x, x_adv, given)
    z = model.by_hand(x)
    assert loss.item() == pytest.approx(ce(z, given.targets.numpy()).mean(), rel=1e-12)
    np.testing.assert_allclose(seen["clean"], z, atol=1e-12)
    assert loss.requires_grad


@pytest.mark.parametrize("objective", [at, natural])
def test_inner_is_ce_with_the_soft_target(case, objective):
    model, _, x_adv, given = case
    found = objective.inner(model(x_adv), given).detach().numpy()
    np.testing.assert_allclose(found, ce(model.by_hand(x_adv), given.targets.numpy()), rtol=1e-12)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades(case, beta, joint):
    model, x, x_adv, given = case
    loss, seen = trades.outer(model, x, x_adv, given, beta=beta, joint_batch=joint)
    z, w = model.by_hand(x), model.by_hand(x_adv)
    expected = ce(z, given.targets.numpy()).mean() + beta * kl(z, w).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(seen["clean"], z, atol=1e-12)
    np.testing.assert_allclose(seen["adversarial"], w, atol=1e-12)


def test_trades_inner(case):
    model, x, x_adv, given = case
    z, w = model.by_hand(x), model.by_hand(x_adv)
    given = Given(given.y, given.targets, lambda: torch.tensor(z))
    found = trades.inner(model(x_adv), given).detach().numpy()
    np.testing.assert_allclose(found, kl(z, w), rtol=1e-10)
    hard = trades.inner(model(x_adv), given, inner="ce").detach().numpy()
    np.testing.assert_allclose(hard, ce(w, np.eye(4)[given.y]), rtol=1e-10)


def test_trades_ce_never_asks_for_clean_logits(case):
    found = trades.inner(torch.zeros(5, 4), case[-1], inner="ce")
    np.testing.assert_allclose(found, [np.log(4)] * 5, rtol=1e-6)


def test_trades_gradient_reaches_both_sides():
    """The model is the identity on logits, so that the gradient has a closed form."""
    rng = np.random.default_rng(3)
    z, w, t = rng.normal(size=(3, 6, 5))
    t = np.exp(log_softmax(t, axis=1))
    x, x_adv = (torch.tensor(v.reshape(6, 5, 1, 1), requires_grad=True) for v in (z, w))
    given = Given(torch.zeros(6, dtype=torch.int64), torch.tensor(t), unasked)
    loss, _ = trades.outer(nn.Flatten(), x, x_adv, given, beta=6.0)
    loss.backward()
    log_p, log_q = log_softmax(z, axis=1), log_softmax(w, axis=1)
    p, q = np.exp(log_p), np.exp(log_q)
    clean_side = p * (log_p - log_q - kl(z, w)[:, None])
    np.testing.assert_allclose(x.grad.flatten(1), (p - t + 6 * clean_side) / 6, atol=1e-12)
    np.testing.assert_allclose(x_adv.grad.flatten(1), 6 * (q - p) / 6, atol=1e-12)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("gap", [110.0, 200.0])
def test_trades_survives_large_gaps(gap, joint):
    x = torch.tensor([[gap, 0, 0]]).view(1, 3, 1, 1).requires_grad_()
    x_adv = torch.tensor([[0, gap, 0]]).view(1, 3, 1, 1).requires_grad_()
    given = Given(torch.tensor([0]), torch.tensor([[1.0, 0, 0]]), unasked)
    loss, _ = trades.outer(nn.Flatten(), x, x_adv, given, beta=6.0, joint_batch=joint)
    loss.backward()
    assert loss.item() == pytest.approx(6 * gap)
    assert bool(torch.isfinite(x.grad).all())
    np.testing.assert_allclose(x_adv.grad.flatten(), [-6, 6, 0], atol=1e-5)


def test_joint_batch_shares_batch_statistics():
    """With batch normalisation the joint pass sees one batch of 2B, not two of B."""
    torch.manual_seed(0)
    x, x_adv = torch.rand(2, 8, 3, 1, 1).double()
    given = Given(torch.zeros(8, dtype=torch.int64), torch.full((8, 3), 1 / 3).double(), unasked)
    norm = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Flatten()).double()
    options = {"beta": 2.0}

    def normalised(v, mean, var):
        return (v - mean) / np.sqrt(var + 1e-5)

    def expected(z, w):
        return ce(z, given.targets.numpy()).mean() + 2 * kl(z, w).mean()

    a, b = (v.flatten(1).numpy() for v in (x, x_adv))
    both = np.concatenate([a, b])
    joint = expected(*(normalised(v, both.mean(0), both.var(0)) for v in (a, b)))
    apart = expected(*(normalised(v, v.mean(0), v.var(0)) for v in (a, b)))
    assert abs(joint - apart) > 1e-3
    loss, _ = trades.outer(norm, x, x_adv, given, **options, joint_batch=True)
    assert loss.item() == pytest.approx(joint, rel=1e-9)
    loss, _ = trades.outer(norm, x, x_adv, given, **options, joint_batch=False)
    assert loss.item() == pytest.approx(apart, rel=1e-9)


def test_mart_by_hand():
    """The reference code's formula, written out in numpy-like steps."""
    from advkit.objectives import mart

    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).double()
    x, x_adv = torch.rand(6, 4).double(), torch.rand(6, 4).double()
    y = torch.randint(0, 3, (6,))
    onehot = torch.nn.functional.one_hot(y, 3).double()
    p, q = model(x).softmax(1), model(x_adv).softmax(1)
    rest = torch.stack(
        [max(row[c] for c in range(3) if c != t) for row, t in zip(q, y, strict=True)]
    )
    true, ce = (p * onehot).sum(1), -(q * onehot).sum(1).log()
    kl = (p * (p.log() - q.log())).sum(1)
    expected = (ce - (1.0001 - rest + 1e-12).log()).mean() + 5 * (kl * (1.0000001 - true)).mean()
    given = Given(y, onehot, lambda: model(x))
    found, seen = mart.outer(model, x, x_adv, given, beta=5.0)
    assert torch.allclose(found, expected, atol=1e-10)
    assert set(seen) == {"clean", "adversarial"}
    assert torch.allclose(mart.inner(model(x_adv), given), ce)

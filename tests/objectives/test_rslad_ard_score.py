"""RSLAD, ARD, SCORE and MLCAT's loss scaling by their golden values, and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from advkit.formulas.losses import kl_from
from advkit.objectives import Given, ard, at, rslad, score

CLEAN, ADVERSARIAL = [2.0, 1.0, 0.0, -1.0], [1.0, 1.5, 0.0, -0.5]
TEACHER = [3.0, 0.5, 0.5, -1.0]
NET = nn.Flatten()
"""The images are the logits."""


def image(logits):
    return torch.tensor([logits], dtype=torch.float64).view(1, 4, 1, 1).requires_grad_()


def given(rows, clean=None):
    return Given(
        torch.tensor([0]),
        torch.as_tensor(np.array([rows])),
        lambda: torch.tensor([clean], dtype=torch.float64),
    )


def onehot():
    return given(np.eye(4)[0], CLEAN)


def teacher(temperature=1.0):
    return given(softmax(np.array(TEACHER) / temperature))


def by_numpy(rows, logits):
    return float((rows * (np.log(rows) - log_softmax(logits))).sum())


def test_rslad():
    """Golden values of the issue's method sheet, worked out in independent code."""
    x, x_adv, t = image(CLEAN), image(ADVERSARIAL), teacher()
    assert rslad.inner(NET(x_adv), t).tolist() == pytest.approx([0.656771], abs=1e-6)
    assert kl_from(t.targets, NET(x)).tolist() == pytest.approx([0.118247], abs=1e-6)
    loss, seen = rslad.outer(NET, x, x_adv, t)
    assert loss.item() == pytest.approx(0.567017, abs=1e-6)
    assert (seen["clean"].tolist(), seen["adversarial"].tolist()) == ([CLEAN], [ADVERSARIAL])
    scaled, _ = rslad.outer(NET, x, x_adv, t, kl_weight=0.1)
    assert scaled.item() == pytest.approx(0.0567017, abs=1e-7)
    one_sided, _ = rslad.outer(NET, x, x_adv, t, adversarial_weight=1.0)
    assert one_sided.item() == pytest.approx(0.656771, abs=1e-6)


def test_a_divergence_from_a_hard_row_is_cross_entropy():
    rows = onehot().targets
    found = kl_from(rows, NET(image(ADVERSARIAL)))
    assert found.tolist() == pytest.approx([-log_softmax(ADVERSARIAL)[0]], rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 30.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ard(temperature, alpha):
    x, x_adv, t = image(CLEAN), image(ADVERSARIAL), teacher(temperature)
    options = {"adversarial_weight": alpha, "temperature": temperature, "kl_weight": 0.25}
    loss, _ = ard.outer(NET, x, x_adv, t, **options)
    rows = softmax(np.array(TEACHER) / temperature)
    robust = temperature**2 * by_numpy(rows, np.array(ADVERSARIAL) / temperature) / 4
    expected = alpha * robust - (1 - alpha) * log_softmax(CLEAN)[0]
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    hard = ard.inner(NET(x_adv), t)
    assert hard.tolist() == pytest.approx([-log_softmax(ADVERSARIAL)[0]], rel=1e-12)


def test_ard_asks_for_the_hard_label_on_clean_images_alone():
    x, x_adv = image(CLEAN), image(ADVERSARIAL)
    loss, _ = ard.outer(NET, x, x_adv, teacher(30.0), adversarial_weight=0.0)
    loss.backward()
    assert not x_adv.grad.any()
    np.testing.assert_allclose(x.grad.flatten(), softmax(CLEAN) - np.eye(4)[0], atol=1e-12)


def test_score():
    x, x_adv, hard = image(CLEAN), image(ADVERSARIAL), onehot()
    robust = score.inner(NET(x_adv), hard)
    assert robust.tolist() == pytest.approx([0.188440], abs=1e-6)
    natural, _ = score.outer(NET, x, x_adv, hard, beta=0.0)
    assert natural.item() == pytest.approx(0.191532, abs=1e-6)
    loss, seen = score.outer(NET, x, x_adv, hard, beta=4.0)
    assert loss.item() == pytest.approx(0.191532 + 4 * 0.188440, abs=5e-6)
    assert (seen["clean"].tolist(), seen["adversarial"].tolist()) == ([CLEAN], [ADVERSARIAL])


def test_score_has_gradient_on_both_sides():
    """d/dz of sum (p - t)^2 is 2 J(p)(p - t), with J(p) = diag p - p pT."""
    x, x_adv, hard = image(CLEAN), image(ADVERSARIAL), onehot()
    loss, _ = score.outer(NET, x, x_adv, hard, beta=4.0)
    loss.backward()
    p, q, t = softmax(CLEAN), softmax(ADVERSARIAL), np.eye(4)[0]

    def through(probabilities, error):
        return 2 * (np.diag(probabilities) - np.outer(probabilities, probabilities)) @ error

    np.testing.assert_allclose(x.grad.flatten(), through(p, p - t - 4 * (q - p)), atol=1e-12)
    np.testing.assert_allclose(x_adv.grad.flatten(), through(q, 4 * (q - p)), atol=1e-12)


@pytest.mark.parametrize(("own", "counted", "slope"), [(0.3, 1.5, 0.0), (2.0, 2.0, 1.0)])
def test_a_least_loss_is_a_hinge(own, counted, slope):
    """An example's loss is `own` where p_y is exp(-own): two classes, log-odds in the image."""
    odds = float(np.log(np.expm1(own)))  # CE = log(1 + exp(odds))
    x = torch.tensor([[0.0, odds]], dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
    hard = Given(torch.tensor([0]), torch.tensor([[1.0, 0.0]]).double(), lambda: x)
    loss, _ = at.outer(NET, x, x, hard, min_loss=1.5)
    plain, _ = at.outer(NET, x, x, hard)
    assert (loss.item(), plain.item()) == pytest.approx((counted, own), rel=1e-12)
    ours, theirs = (torch.autograd.grad(value, x)[0] for value in (loss, plain))
    np.testing.assert_allclose(ours, slope * theirs, atol=1e-15)
    assert theirs.any()


def test_the_attack_does_not_know_of_the_least_loss():
    found = at.inner(NET(image(CLEAN)), onehot())
    assert found.tolist() == pytest.approx([-log_softmax(CLEAN)[0]], rel=1e-12)

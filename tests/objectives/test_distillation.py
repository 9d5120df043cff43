"""Objectives with a teacher or a memory, against figures worked out from their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from advkit.errors import AdvkitError
from advkit.objectives import REMEMBERED, Given, adaad, iad, sat, te

CLEAN, ADVERSARIAL = (2.0, 1.0, 0.0, -1.0), (1.0, 1.5, 0.0, -0.5)
TAUGHT, TAUGHT_ADVERSARIAL = (3.0, 0.5, 0.5, -1.0), (1.0, 1.2, 0.2, 0.0)
X, X_ADV = torch.zeros(1, 1), torch.ones(1, 1)


def row(values):
    return torch.tensor([values], dtype=torch.float64)


def student(x):
    return row(CLEAN if x is X else ADVERSARIAL)


def given(**more):
    """One example of class 0, and a teacher that knows clean and adversarial images apart."""
    known = {
        "teachers": {"teacher": lambda x: row(TAUGHT if x is X else TAUGHT_ADVERSARIAL)},
        "index": torch.tensor([0]),
        **more,
    }
    return Given(torch.tensor([0]), row((1.0, 0, 0, 0)), lambda: row(CLEAN), **known)


def kl(p, q):
    p, q = log_softmax(p), log_softmax(q)
    return float((np.exp(p) * (p - q)).sum())


def test_iad_by_figures():
    late, _ = iad.outer(student, X, X_ADV, given(epoch=61))
    assert late.item() == pytest.approx(0.682515, abs=1e-6)
    early, _ = iad.outer(student, X, X_ADV, given(epoch=60))
    assert early.item() == pytest.approx(0.656771, abs=1e-6)
    assert softmax(TAUGHT_ADVERSARIAL)[0] ** 0.1 == pytest.approx(0.894813, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_adaad_is_a_mean_of_two_divergences(alpha):
    loss, stats = adaad.outer(student, X, X_ADV, given(), alpha=alpha)
    wanted = alpha * kl(TAUGHT_ADVERSARIAL, ADVERSARIAL) + (1 - alpha) * kl(TAUGHT, CLEAN)
    assert loss.item() == pytest.approx(wanted, abs=1e-12)
    assert ("clean" in stats) == (alpha < 1)


def test_adaad_ascends_both_sides_of_the_divergence():
    """The teacher's logits are 2x and the student's x: the slope against central differences."""
    x = row(CLEAN).requires_grad_()
    doubled = given(teachers={"teacher": lambda x: 2 * x})
    (slope,) = torch.autograd.grad(adaad.inner(x, doubled, x_adv=x).sum(), x)
    z, steps = np.array(CLEAN), 1e-5 * np.eye(4)
    wanted = [(kl(2 * (z + h), z + h) - kl(2 * (z - h), z - h)) / 2e-5 for h in steps]
    np.testing.assert_allclose(slope[0], wanted, atol=1e-9)


def test_a_teacher_that_is_not_declared():
    with pytest.raises(AdvkitError, match="natural-teacher"):
        given().natural_teacher(X)


def test_sat_by_figures():
    memory = sat.memory(torch.tensor([0]), 4)
    memory = {name: value.double() for name, value in memory.items()}
    loss, stats = sat.outer(student, X, X_ADV, given(memory=memory, epoch=70))
    sat.update(memory, torch.tensor([0]), torch.tensor([0]), stats[REMEMBERED], 70)
    t = np.array([0.964391, 0.023688, 0.008714, 0.003206])
    np.testing.assert_allclose(memory["targets"][0], t, atol=1e-6)
    assert memory["targets"].max() == pytest.approx(0.964391, abs=1e-6)
    wanted = -(t * log_softmax(CLEAN)).sum() + 6 * kl(CLEAN, ADVERSARIAL)
    assert loss.item() == pytest.approx(wanted, abs=5e-6)


def test_sat_weighs_sure_targets_more():
    """Two examples whose targets peak at 0.9 and 0.3: weights 1.5 and 0.5."""
    rows = torch.tensor([[0.9, 0.1, 0, 0], [0.3, 0.3, 0.2, 0.2]], dtype=torch.float64)
    two = Given(torch.tensor([0, 1]), torch.eye(4)[:2], lambda: None, memory={"targets": rows},
                index=torch.tensor([0, 1]), epoch=1)  # fmt: skip
    z = torch.tensor([CLEAN, ADVERSARIAL], dtype=torch.float64)
    loss, _ = sat.outer(lambda _: z, X, X_ADV, two, memory_momentum=1.0, memory_from=1)
    each = -(rows.numpy() * log_softmax(z.numpy(), axis=1)).sum(1)
    assert loss.item() == pytest.approx((1.5 * each[0] + 0.5 * each[1]) / 2, abs=1e-12)


def test_te_by_figures():
    assert [te.ramped(epoch, 90, 150) for epoch in (89, 90, 120, 150, 200)] == pytest.approx(
        [0, 0.006738, 0.286505, 1, 1], abs=1e-6
    )
    memory = {"predictions": te.memory(torch.tensor([0]), 4)["predictions"].double()}
    asked = given(memory=memory, epoch=150)
    with_term, stats = te.outer(student, X, X_ADV, asked)
    without, _ = te.outer(student, X, X_ADV, asked, ensemble_weight=0.0)
    assert (with_term - without).item() == pytest.approx(300 * 0.047110, abs=3e-4)
    te.update(memory, torch.tensor([0]), torch.tensor([0]), stats[REMEMBERED], 150)
    np.testing.assert_allclose(memory["predictions"][0], 0.1 * softmax(CLEAN), atol=1e-12)


@pytest.mark.parametrize("part", [sat, te])
def test_extra_images_have_no_memory(part):
    """Their place is -1: nothing is written, and the last example's row is not theirs."""
    memory = part.memory(torch.tensor([0, 1, 2]), 4)
    (rows,) = memory.values()
    before = rows.clone()
    told = torch.full((2, 4), 0.25)
    part.update(memory, torch.tensor([-1, 1]), torch.tensor([2, 1]), told, 200)
    changed = (rows != before).any(1)
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize(("part", "early"), [(sat, 69), (te, 89)])
def test_a_memory_stands_still_before_its_first_epoch(part, early):
    memory = part.memory(torch.tensor([0, 1]), 4)
    (rows,) = memory.values()
    before = rows.clone()
    part.update(memory, torch.tensor([0]), torch.tensor([0]), torch.full((1, 4), 0.25), early)
    assert torch.equal(rows, before)

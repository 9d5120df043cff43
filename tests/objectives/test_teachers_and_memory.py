"""Objectives with a teacher or a memory, against figures worked out from their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from advkit.errors import AdvkitError
from advkit.objectives import REMEMBERED, Given, adaad, iad, igdm, ikl, kd, saad, sat, te

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


def test_adaad_of_the_authors_code_for_cifar10():
    """A tenth of the sum over classes, and a clean pass that weighs nothing."""
    loss, stats = adaad.outer(student, X, X_ADV, given(), divergence_weight=0.1, clean_pass=True)
    assert loss.item() == pytest.approx(0.1 * kl(TAUGHT_ADVERSARIAL, ADVERSARIAL), abs=1e-12)
    assert stats.keys() == {"clean", "adversarial"}


def test_adaad_ascends_both_sides_of_the_divergence():
    """The teacher's logits are 2x and the student's x: the slope against central differences."""
    x = row(CLEAN).requires_grad_()
    doubled = given(teachers={"teacher": lambda x: 2 * x})
    (slope,) = torch.autograd.grad(adaad.inner(x, doubled, x_adv=x).sum(), x)
    z, steps = np.array(CLEAN), 1e-5 * np.eye(4)
    wanted = [(kl(2 * (z + h), z + h) - kl(2 * (z - h), z - h)) / 2e-5 for h in steps]
    np.testing.assert_allclose(slope[0], wanted, atol=1e-9)


def test_kd_by_figures():
    """T²·H of one teacher, then the sum of all three terms."""
    both = given(teachers={"teacher": lambda x: row(TAUGHT), "natural-teacher": student})
    robust, _ = kd.outer(student, X, X_ADV, both, label_weight=0, natural_weight=0, robust_weight=1)
    assert robust.item() == pytest.approx(5.256611, abs=1e-6)
    label, _ = kd.outer(student, X, X_ADV, both, label_weight=1, natural_weight=0, robust_weight=0)
    assert label.item() == pytest.approx(1.175490, abs=1e-6)
    p = log_softmax(np.array(ADVERSARIAL) / 2)
    own = -4 * (np.exp(p) * p).sum()  # the natural teacher is the student itself
    loss, _ = kd.outer(student, X, X_ADV, both)
    assert loss.item() == pytest.approx(0.3 * 1.175490 + 0.1 * own + 0.6 * 5.256611, abs=2e-6)


def test_the_entropy_of_a_teacher_by_figures():
    z = row(TAUGHT_ADVERSARIAL)
    assert saad._entropy(z, 2.0).item() == pytest.approx(1.182858, abs=1e-6)
    p = softmax(TAUGHT_ADVERSARIAL)
    assert saad._entropy(z, 1.0).item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-12)
    assert saad._entropy(z, 1.0001).item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)


def test_igdm_grows_over_the_run():
    """Half of it at half of the run; the opposite point of x_adv = 1 is -1."""
    answers = {0.0: TAUGHT, 1.0: TAUGHT_ADVERSARIAL, -1.0: (0.5, 0.5, 1.0, -2.0)}
    own = {1.0: ADVERSARIAL, -1.0: (0.0, -1.0, 0.5, 0.5)}
    asked = given(teachers={"teacher": lambda x: row(answers[x.item()])}, epoch=5, epochs=10)
    loss, _ = igdm.outer(lambda x: row(own[x.item()]), X, X_ADV, asked, gradient_weight=3.0)
    taught = np.subtract(answers[1.0], answers[-1.0])
    changed = np.subtract(own[1.0], own[-1.0])
    wanted = kl(TAUGHT_ADVERSARIAL, ADVERSARIAL) + 1.5 * kl(taught, changed)
    assert loss.item() == pytest.approx(wanted, abs=1e-12)


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


def of_class(s, **more):
    """One example of class 0, of which the student said s on average in the epoch before."""
    memory = {name: value.double() for name, value in ikl.memory(torch.tensor([0]), 4).items()}
    memory["means"][0] = torch.tensor(s)
    return given(memory=memory, **more)


S = (0.7, 0.2, 0.06, 0.04)


def test_ikl_by_figures():
    asked = of_class(S)
    square, _ = ikl.outer(student, X, X_ADV, asked, square_weight=1, entropy_weight=0)
    entropy, _ = ikl.outer(student, X, X_ADV, asked, square_weight=0, entropy_weight=1)
    natural = -log_softmax(CLEAN)[0]
    assert square.item() - natural == pytest.approx(0.211800, abs=1e-6)
    assert entropy.item() - natural == pytest.approx(1.192281, abs=1e-6)
    inner = ikl.inner(row(ADVERSARIAL), of_class(S))
    assert inner.item() == pytest.approx(0.211800 + 1.192281, abs=2e-6)
    square, _ = ikl.outer(
        student, X, X_ADV, of_class(softmax(CLEAN)), square_weight=1, entropy_weight=0
    )
    assert square.item() - natural == pytest.approx(0.225808, abs=1e-6)


def test_gkl_by_figures():
    options = {"divergence": "gkl", "square_weight": 1, "entropy_weight": 0, "gkl_power": 0.4}
    square, _ = ikl.outer(student, X, X_ADV, of_class(S), **options)
    assert square.item() + log_softmax(CLEAN)[0] == pytest.approx(0.240410, abs=1e-6)


@pytest.mark.parametrize("form", ["ikl", "gkl"])
def test_the_short_sum_is_the_sum_over_pairs(form):
    draw = np.random.default_rng(4)
    n, a = draw.normal(size=(2, 3, 7))
    means = draw.dirichlet(np.ones(7), 7)
    y = np.array([2, 0, 2])
    memory = {name: value.double() for name, value in ikl.memory(torch.arange(7), 7).items()}
    memory["means"] = torch.tensor(means)
    three = Given(torch.tensor(y), torch.eye(7)[y].double(), lambda: None, memory=memory)
    answers = iter((torch.tensor(a), torch.tensor(n)))  # adversarial images first
    loss, _ = ikl.outer(lambda _: next(answers), X, X_ADV, three, divergence=form, gkl_power=0.4,
                        square_weight=1, entropy_weight=0)  # fmt: skip
    s = means[y] ** (0.4 if form == "gkl" else 1)
    w = s[:, :, None] * s[:, None, :]
    gaps = (n[:, :, None] - n[:, None, :]) - (a[:, :, None] - a[:, None, :])
    wanted = 0.25 * (w * gaps**2).sum() / (3 if form == "ikl" else w.sum())
    natural = -log_softmax(n, axis=1)[range(3), y].mean()
    assert loss.item() == pytest.approx(wanted + natural, abs=1e-12)


def test_the_gradients_of_ikl_are_those_of_the_divergence():
    """Theorem 1, with p pᵀ for weights: ∂/∂z of KL from the square, ∂/∂z′ from the entropy."""
    n, a = row(CLEAN).requires_grad_(), row(ADVERSARIAL).requires_grad_()
    p = softmax(CLEAN)
    asked = of_class(p)
    (to_clean,) = torch.autograd.grad(ikl._square(n, a, asked, "ikl", 1.0).sum(), n)
    np.testing.assert_allclose(to_clean[0], [0.315876, -0.239120, -0.044395, -0.032361], atol=1e-6)
    (to_adversarial,) = torch.autograd.grad(ikl._entropy(n, a).sum(), a)
    np.testing.assert_allclose(to_adversarial[0], softmax(ADVERSARIAL) - p, atol=1e-12)


def test_class_means_are_those_of_the_epoch_before():
    """Two steps of epoch 1; their means hold in epoch 2, and a class without examples keeps 1/C."""
    memory = ikl.memory(torch.arange(3), 3)
    rows = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.1, 0.9, 0.0]])
    ikl.update(memory, torch.tensor([0, -1]), torch.tensor([0, 0]), rows[:2], 1)
    ikl.update(memory, torch.tensor([1]), torch.tensor([1]), rows[2:], 1)
    assert torch.equal(ikl._means(memory, 1), torch.full((3, 3), 1 / 3))
    wanted = torch.tensor([[0.7, 0.15, 0.15], [0.1, 0.9, 0.0], [1 / 3] * 3])
    torch.testing.assert_close(ikl._means(memory, 2), wanted)
    ikl.update(memory, torch.tensor([0]), torch.tensor([0]), rows[:1], 2)
    torch.testing.assert_close(ikl._means(memory, 2), wanted)
    wanted[0] = rows[0]
    torch.testing.assert_close(ikl._means(memory, 3), wanted)

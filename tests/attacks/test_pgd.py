"""PGD against a numpy loop with gradients by hand, a closed-form victim, and torchattacks."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from advkit.attacks import fgsm, none, pgd
from advkit.formulas.threat import Threat

EPS, SIZE = 0.12, 0.05
SHAPE = (6, 1, 2, 4)


class TwoLayers(nn.Module):
    """W2·tanh(W1·x): smooth, and its gradient fits on a line."""

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(5)
        self.w1 = nn.Parameter(torch.randn(8, 7, generator=rng).double())
        self.w2 = nn.Parameter(torch.randn(7, 3, generator=rng).double())

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.w1) @ self.w2

    def gradient(self, x, y):
        """∂CE/∂x of each example, by hand."""
        w1, w2 = self.w1.detach().numpy(), self.w2.detach().numpy()
        hidden = np.tanh(x @ w1)
        error = softmax(hidden @ w2, axis=1) - np.eye(3)[y]
        return (error @ w2.T * (1 - hidden**2)) @ w1.T


@pytest.fixture
def case():
    """(model, x, y), some pixels at the ends of the box."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(SHAPE, generator=rng, dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    return TwoLayers(), x, torch.tensor([0, 1, 2, 2, 1, 0])


def numpy_pgd(model, x, y, norm, start, steps):
    """Madry et al.'s loop over flat rows: every iterate, the start included."""
    path = [start]
    for _ in range(steps):
        g = model.gradient(path[-1], y)
        if norm == "linf":
            moved = path[-1] + SIZE * np.sign(g)
            delta = np.clip(moved - x, -EPS, EPS)
        else:
            moved = path[-1] + SIZE * g / np.linalg.norm(g, axis=1, keepdims=True)
            delta = moved - x
            length = np.linalg.norm(delta, axis=1, keepdims=True)
            delta = np.where(length > EPS, delta * EPS / length, delta)
        path.append(np.clip(x + delta, 0, 1))
    return path


norms = pytest.mark.parametrize("norm", ["linf", "l2"])


@norms
@pytest.mark.parametrize("start", ["none", "uniform", "normal", "positive"])
def test_every_iterate(case, norm, start):
    model, x, y = case
    threat = Threat(norm, EPS)
    first = threat.start(x, start, torch.Generator().manual_seed(4))
    path = numpy_pgd(model, x.flatten(1).numpy(), y.numpy(), norm, first.flatten(1).numpy(), 7)
    for steps, expected in enumerate(path):
        found = pgd.pgd(
            model, x, y, threat, steps=steps, step_size=SIZE,
            random_start=start, generator=torch.Generator().manual_seed(4),
        )  # fmt: skip
        np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=1e-12)


@norms
def test_default_step_is_a_quarter_of_eps(case, norm):
    model, x, y = case
    arguments = {"steps": 3, "random_start": False}
    default = pgd.pgd(model, x, y, Threat(norm, EPS), **arguments)
    assert torch.equal(
        default, pgd.pgd(model, x, y, Threat(norm, EPS), step_size=0.03, **arguments)
    )


def test_uniform_start_by_hand(case):
    _, x, _ = case
    found = Threat("linf", EPS).start(x, "uniform", torch.Generator().manual_seed(9))
    noise = torch.empty_like(x).uniform_(-EPS, EPS, generator=torch.Generator().manual_seed(9))
    np.testing.assert_allclose(found, (x + noise).clamp(0, 1), atol=1e-12)


def test_soft_targets_and_own_loss(case):
    """`loss` is what is ascended: minus a linear loss moves every pixel the other way."""
    model, x, y = case
    threat = Threat("linf", 0.01)
    up = pgd.pgd(model, x, y, threat, steps=1, random_start=False, step_size=0.01)
    down = pgd.pgd(
        model, x, y, threat, steps=1, random_start=False, step_size=0.01,
        loss=lambda z, target: (z.softmax(1).log() * torch.eye(3).double()[target]).sum(1),
    )  # fmt: skip
    inside = (x > 0.02) & (x < 0.98)
    np.testing.assert_allclose((up - x)[inside], -(down - x)[inside], atol=1e-12)
    assert float((up - x)[inside].abs().min()) == pytest.approx(0.01)


class Plane(nn.Module):
    """Two classes divided by w·x = c: the margin distance is known exactly."""

    def __init__(self, size=12):
        super().__init__()
        self.w = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(2)))

    def forward(self, x):
        f = (x.flatten(1) - 0.5) @ self.w
        return torch.stack([-f, f], 1) / 2

    def distance(self, x, norm):
        f = (x.flatten(1) - 0.5) @ self.w.detach()
        return (f.abs() / self.w.detach().norm(p=1 if norm == "linf" else 2)).numpy()


@norms
def test_closed_form_victim(norm):
    """An example falls exactly when ε exceeds its distance to the plane."""
    model = Plane()
    x = 0.5 + 0.08 * torch.randn(64, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    distance = model.distance(x, norm)
    eps = float(np.median(distance))
    found = pgd.attack(
        model, x, y, Threat(norm, eps), generator=torch.Generator().manual_seed(0), steps=40
    )
    assert float(found.min()) > 0, "the box must not matter here"
    assert float(found.max()) < 1
    fooled = (model(found).argmax(1) != y).numpy()
    clear = np.abs(distance / eps - 1) > 0.01
    assert clear.sum() >= 60
    np.testing.assert_array_equal(fooled[clear], distance[clear] < eps)


@pytest.mark.parametrize("steps", [1, 20])
def test_nothing_fools_a_constant(steps):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 1.0]]) + 0 * x.flatten(1)[:, :2]

    x, y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    found = pgd.attack(
        Constant(), x, y, Threat("linf", 0.9), generator=torch.Generator().manual_seed(0),
        steps=steps, restarts=2,
    )  # fmt: skip
    assert bool((Constant()(found).argmax(1) == y).all())
    assert bool(torch.isfinite(found).all())


def hurt(model, x_adv, y):
    """(is it misclassified, its cross-entropy) for each example."""
    z = model(x_adv).detach().double().numpy()
    rows = np.arange(len(y))
    return z.argmax(1) != y.numpy(), -log_softmax(z, axis=1)[rows, y.numpy()]


@norms
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_attack_returns_the_worst_iterate(case, norm, precision):
    """Of all iterates, start and last included: misclassified first, then highest loss."""
    model, x, _ = case
    model, x = model.to(precision), x.to(precision)
    y, threat = model(x).argmax(1), Threat(norm, 0.3)

    def seeded():
        return torch.Generator().manual_seed(3)

    worst = pgd.attack(model, x, y, threat, generator=seeded(), steps=6, step_size="0.2", loss="ce")
    iterates = [
        pgd.pgd(model, x, y, threat, generator=seeded(), steps=k, step_size=0.2) for k in range(7)
    ]
    path = [hurt(model, each, y) for each in iterates]
    fooled, loss = hurt(model, worst, y)
    some = np.any([each[0] for each in path], axis=0)
    assert some.any()
    np.testing.assert_array_equal(fooled, some)
    ranked = [np.where(wrong == some, value, -np.inf) for wrong, value in path]
    np.testing.assert_allclose(loss, np.max(ranked, axis=0), rtol=1e-5)


def test_worst_iterate_is_exact_among_fooled():
    """Losses of misclassified iterates that differ by a hundredth are still told apart."""

    class Hill(nn.Module):
        """Always wrong, and the loss has its top at x = 0.5, which the path oversteps."""

        def forward(self, x):
            height = 0.02 * (1 - (8 * (x.flatten(1)[:, :1] - 0.5)) ** 2)
            return torch.cat([torch.zeros_like(height), 1 + height], 1)

    x, y = torch.full((1, 1, 1, 1), 0.4), torch.tensor([0])
    found = pgd.attack(
        Hill(), x, y, Threat("linf", 0.2), generator=torch.Generator().manual_seed(0),
        steps=6, step_size="0.07",
    )  # fmt: skip
    assert abs(float(found) - 0.5) <= 0.035 + 1e-6


@norms
def test_restarts_keep_the_worst(case, norm):
    model, x, _ = case
    y, threat = model(x).argmax(1), Threat(norm, 0.2)
    generator = torch.Generator().manual_seed(0)
    each = [
        hurt(model, pgd.attack(model, x, y, threat, generator=generator, steps=2, loss="ce"), y)
        for _ in range(4)
    ]
    generator = torch.Generator().manual_seed(0)
    worst = pgd.attack(model, x, y, threat, generator=generator, steps=2, restarts=4, loss="ce")
    fooled, loss = hurt(model, worst, y)
    some = np.any([wrong for wrong, _ in each], axis=0)
    np.testing.assert_array_equal(fooled, some)
    ranked = [np.where(wrong == some, value, -np.inf) for wrong, value in each]
    np.testing.assert_allclose(loss, np.max(ranked, axis=0), rtol=1e-6)
    assert len({int(np.argmax(column)) for column in np.transpose(ranked)}) > 1


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )


def test_agrees_with_torchattacks():
    import torchattacks

    model, y = small_net().eval().double(), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    x = torch.rand(8, 1, 8, 8).double()  # no kink and no sign within rounding
    theirs = torchattacks.PGD(model, eps=0.1, alpha=0.03, steps=5, random_start=False)(x, y)
    ours = pgd.pgd(model, x, y, Threat("linf", 0.1), steps=5, step_size=0.03, random_start=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    single = fgsm.attack(model, x, y, Threat("linf", 0.1), generator=torch.Generator(), loss="ce")
    np.testing.assert_allclose(single, torchattacks.FGSM(model, eps=0.1)(x, y), atol=1e-12)


def test_fgsm_in_l2(case):
    model, x, y = case
    g = model.gradient(x.flatten(1).numpy(), y.numpy())
    expected = x.flatten(1).numpy() + EPS * g / np.linalg.norm(g, axis=1, keepdims=True)
    found = fgsm.attack(model, x, y, Threat("l2", EPS), generator=torch.Generator(), loss="ce")
    np.testing.assert_allclose(found.flatten(1), expected.clip(0, 1), atol=1e-12)


def test_no_attack(case):
    model, x, y = case
    found = none.attack(model, x, y, Threat("linf", EPS), generator=torch.Generator())
    assert torch.equal(found, x)
    assert found.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("training", [True, False])
def test_model_stays_as_it_was(training):
    model = small_net().train(training)
    model[0].weight.requires_grad_(False)
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    clean, wanted = x.clone(), [p.requires_grad for p in model.parameters()]
    found = pgd.pgd(model, x, y, Threat("linf", 0.1), steps=3)
    assert not found.requires_grad
    assert torch.equal(x, clean)
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training == training for module in model.modules())
    assert int(model[1].num_batches_tracked) == (3 if training else 0), "the mode is the caller's"


def test_generator_decides_everything():
    model, x, y = small_net().eval(), torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    before = torch.get_rng_state()
    a, b, c = (
        pgd.attack(model, x, y, Threat("linf", 0.1), generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)

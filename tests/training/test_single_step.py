"""Single-step training: FGSM-RS, N-FGSM and GradAlign against steps written anew, and its refusals.

The steps are in float64, from the codes of locuslab/fast_adversarial, pdejorge/N-FGSM and
tml-epfl/understanding-fast-adv-training: the net is in train mode throughout.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advkit import data
from advkit.config.resolve import resolve
from advkit.errors import UsageError
from advkit.formulas.threat import Threat
from advkit.parallel.world import World
from advkit.runtime import seeding
from advkit.training.alignment import misalignment
from advkit.training.guard import require_applicable
from tests.training.original_steps import cross_entropy, norms, statistics_held
from tests.training.test_faithful import COMMON, EPS, compare, hard
from tests.training.test_learner import trainer

SGD = {key: COMMON[key] for key in COMMON if key not in ("attack_steps", "step_size")}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


def noisy_gradient(s, delta, *, moves=True):
    """The gradient at x + δ, in train mode; BN counts the pass unless told otherwise."""
    s.o.net.train()
    delta = delta.clone().requires_grad_()
    counts = [norm.num_batches_tracked.clone() for norm in norms(s.o.net)]
    if moves:
        loss = cross_entropy(s.o.net(s.x + delta), hard(s))
    else:
        with statistics_held(s.o.net):
            loss = cross_entropy(s.o.net(s.x + delta), hard(s))
        for norm, count in zip(norms(s.o.net), counts, strict=True):
            norm.num_batches_tracked.copy_(count)
    (gradient,) = torch.autograd.grad(loss, delta)
    return gradient


def in_box(s, delta):
    return torch.max(torch.min(delta, 1 - s.x), -s.x)


def fgsm_rs(s):
    eta = in_box(s, s.uniform(-EPS, EPS))
    moved = eta + 1.25 * EPS * noisy_gradient(s, eta).sign()
    return in_box(s, moved.clamp(-EPS, EPS))


def n_fgsm(radius):
    def delta(s):
        eta = in_box(s, s.uniform(-radius * EPS, radius * EPS))
        return in_box(s, eta + EPS * noisy_gradient(s, eta).sign())

    return delta


@pytest.mark.parametrize(
    ("attack", "options", "delta"),
    [
        ("fgsm-rs", {}, fgsm_rs),
        ("n-fgsm", {}, n_fgsm(2.0)),
        ("n-fgsm", {"start_radius": 0.5}, n_fgsm(0.5)),
    ],
    ids=["fgsm-rs", "n-fgsm", "n-fgsm-half"],
)
def test_a_step(digits, attack, options, delta):
    made = trainer(digits, method="at", **SGD, train_attack=attack, **options, attack_steps=1)

    def step(s):
        s.x_adv = x_adv = s.x + delta(s)
        s.o.plain(lambda net: cross_entropy(net(x_adv), hard(s)), s.rate)
        return hard(s)

    compare(made, step, iterations=4)


def test_grad_align(digits):
    """The first gradient is a constant, zero gradients are left out, x + η is not clipped."""
    made = trainer(
        digits, method="at", **SGD, train_attack="fgsm-rs", attack_start="none", grad_align=0.2,
        attack_steps=1,
    )  # fmt: skip

    def step(s):
        noise = torch.empty_like(s.x)
        place = seeding.generator(0, "alignment", *divmod(s.t, 2))
        noise.uniform_(-EPS, EPS, generator=place)
        first = noisy_gradient(s, torch.zeros_like(s.x))
        delta = in_box(s, (1.25 * EPS * first.sign()).clamp(-EPS, EPS))
        s.x_adv = x_adv = s.x + delta

        def loss(net):
            plain = cross_entropy(net(x_adv), hard(s))
            leaf = noise.clone().requires_grad_()
            inside = cross_entropy(net(s.x + leaf), hard(s))
            (second,) = torch.autograd.grad(inside, leaf, create_graph=True)
            cosines = [
                (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())
                for a, b in zip(first, second, strict=True)
                if a.any() and b.any()
            ]
            return plain + 0.2 * (1 - sum(cosines) / len(cosines))

        s.o.plain(loss, s.rate)
        return hard(s)

    compare(made, step, iterations=4)


def test_misalignment_by_hand():
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1e-30, 0.0]])
    b = torch.tensor([[0.0, 2.0], [3.0, 3.0], [1.0, 0.0], [-1e-30, 0.0]])
    assert misalignment(a[:1], b[:1]).item() == pytest.approx(1.0)
    assert misalignment(a[1:2], b[1:2]).item() == pytest.approx(0.0, abs=1e-6)
    assert misalignment(a[3:], b[3:]).item() == pytest.approx(2.0)  # its squares are 0 in float32
    # cosines 0, 1 and -1; the third example has no first gradient
    assert misalignment(a, b).item() == pytest.approx(1.0)
    alone = b[2:3].requires_grad_()
    none = misalignment(a[2:3], alone)
    none.backward()
    assert (none.item(), alone.grad.tolist()) == (0.0, [[0.0, 0.0]])


def test_misalignment_has_a_gradient_where_an_example_has_none():
    """∂(1 − cos)/∂b is −a/|a||b| + cos·b/|b|²; with a = (1, 0), b = (0, 2): (−½, 0)."""
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]]).requires_grad_()
    misalignment(a, b).backward()
    np.testing.assert_allclose(b.grad, [[-0.5, 0], [0, 0], [0, 0]], atol=1e-7)


def test_misalignment_asks_the_device_nothing():
    """On meta tensors `bool()` and shapes that depend on the data raise."""
    a, b = torch.ones(2, 3, 4, 4, device="meta"), torch.ones(2, 3, 4, 4, device="meta")
    assert misalignment(a, b).shape == ()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("attack", "reach"), [("pgd", 1.0), ("fgsm-rs", 1.0), ("n-fgsm", 3.0)])
def test_training_images_lie_in_the_ball_that_is_promised(digits, attack, reach, norm):
    eps = {"linf": 0.1, "l2": 0.5}[norm]
    made = trainer(
        digits, method="at", train_attack=attack, norm=norm, eps=str(eps), attack_steps=1
    )
    assert made.learner.attack.reach == Threat(norm, pytest.approx(reach * eps))
    seen = []
    attacked = made.learner._attacked
    made.learner._attacked = lambda *given: seen.append(attacked(*given)) or seen[-1]
    batch = made.batches.at(made.batches.order(0), 0, 0)
    made.step(batch, 0, 0)
    far = made.learner.threat.distance(seen[0], batch.x)
    assert float(seen[0].min()) >= 0
    assert float(seen[0].max()) <= 1
    assert float(far.max()) <= reach * eps + 1e-6
    if attack == "n-fgsm":
        assert float(far.max()) > eps + 1e-3


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("fgsm-rs", {"attack_steps": 1, "step_size": "1.25*eps", "attack_start": "uniform"}),
        ("n-fgsm", {"attack_steps": 1, "step_size": "eps", "start_radius": 2.0}),
    ],
)
def test_a_name_brings_its_numbers(attack, expected):
    flags = {"data": "digits", "method": "trades", "train_attack": attack}
    found = resolve((flags, "flag")).settings
    assert {key: found.flat()[key] for key in expected} == expected
    assert (found.attack_bn, found.clip_start) == ("train", True)
    assert found.described()["train_attack"] == attack


def test_the_preset_of_the_code():
    flags = {"data": "cifar100", "arch": "preact-resnet18", "train_attack": "n-fgsm"}
    found = resolve((flags, "flag"), preset="repo").settings
    assert (found.epochs, found.lr, found.lr_schedule, found.weight_decay, found.nesterov) == (
        30, 0.2, "triangular", 5e-4, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"train_attack": "n-fgsm", "attack_steps": 2}, "n-fgsm is one step"),
        ({"train_attack": "fgsm-rs", "method": "natural"}, "attacks nothing"),
        ({"grad_align": 0.2, "method": "natural"}, "attacks nothing"),
        ({"train_attack": "free"}, "free"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, said):
    with pytest.raises(UsageError, match=said):
        resolve(({"data": "digits", **flags}, "flag"))


def test_alignment_is_for_one_process_and_no_compiler():
    for more, world in (({}, World(0, 2)), ({"compile": True}, World())):
        flags = {"data": "digits", "grad_align": 0.2, "attack_steps": 1, **more}
        settings = resolve((flags, "flag")).settings
        with pytest.raises(UsageError, match="--grad-align"):
            require_applicable(settings, torch.device("cpu"), world)


def test_the_rate_goes_up_and_down_in_straight_lines(digits):
    """PyTorch's CyclicLR with both sides half the iterations long, as the codes call it."""
    made = trainer(digits, lr=0.2, lr_schedule="triangular", epochs=4)
    total = 4 * len(made.batches)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2, momentum=0.9)
    theirs = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=0, max_lr=0.2, step_size_up=total / 2, step_size_down=total / 2
    )
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose([made.learner.rate(t) for t in range(total)], expected, atol=1e-12)

"""Steps of objectives that ask a teacher, against steps written anew: see `test_faithful`."""

from __future__ import annotations

import pytest
import torch

from advkit import data, models
from tests.training._teaching import widen, write_teacher
from tests.training.original_steps import cross_entropy, kl
from tests.training.test_faithful import COMMON, EPOCHS, compare, hard
from tests.training.test_learner import trainer

SEED = 11


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    return write_teacher(digits, tmp_path_factory.mktemp("teacher") / "t.safetensors", SEED)


def asked(path):
    """The teacher as a function, in float64."""
    net, _ = models.load(path)
    return net.double().eval().requires_grad_(False)


def rows(clean, adversarial):
    """KL(clean ‖ adversarial) of each example."""
    log_p, log_q = clean.log_softmax(1), adversarial.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def ascend_seeing(s, start, loss, steps=10, eps=8 / 255, alpha=2 / 255):
    """PGD whose loss is a function of the iterate itself."""
    x_adv = start
    for _ in range(steps):
        leaf = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        moved = leaf.detach() + alpha * gradient.sign()
        x_adv = torch.min(torch.max(moved, s.x - eps), s.x + eps).clamp(0, 1)
    s.x_adv = x_adv
    return x_adv


ADAAD = {
    "beside SAAD": {"alpha": 1.0},
    "both terms": {"alpha": 0.6},
    "the authors' for CIFAR-10": {"alpha": 1.0, "divergence_weight": 0.1, "clean_pass": True},
}


@pytest.mark.parametrize("flags", ADAAD.values(), ids=ADAAD)
def test_adaad(digits, teacher, flags):
    """The authors' code passes clean images first, and means KL over classes too."""
    taught, alpha = asked(teacher), flags["alpha"]
    classes = 10 if "divergence_weight" in flags else 1

    def step(s):
        s.o.net.eval()
        start = s.x + 0.001 * s.normal()
        x_adv = ascend_seeing(s, start, lambda x: kl(taught(x), s.o.net(x)) * len(x))

        def loss(net):
            clean = net(s.x) if alpha < 1 or "clean_pass" in flags else None
            total = alpha * kl(taught(x_adv), net(x_adv)) / classes
            return total if alpha == 1 else total + (1 - alpha) * kl(taught(s.x), clean)

        s.o.plain(loss, s.rate)
        return hard(s)

    compare(widen(trainer(digits, method="adaad", teacher=teacher, **flags, **COMMON)), step)


@pytest.mark.parametrize("first", [1, 3])
def test_iad(digits, teacher, first):
    """With two steps an epoch, the five steps lie before and after epoch 3."""
    taught = asked(teacher)

    def step(s):
        s.o.net.eval()
        targets = hard(s)
        start = s.x + s.uniform(-8 / 255, 8 / 255)
        ce = lambda z: -(targets * z.log_softmax(1)).sum()  # noqa: E731
        x_adv = s.ascend(start, ce)
        trust = taught(x_adv).softmax(1)[torch.arange(len(s.y)), s.y] ** 0.1

        def loss(net):
            adversarial, clean = net(x_adv), net(s.x)
            total = kl(taught(s.x), adversarial)
            if s.t // 2 + 1 < first:
                return total
            return total + ((1 - trust) * rows(clean, adversarial)).mean()

        s.o.plain(loss, s.rate)
        return hard(s)

    flags = {"introspect_from": first, **COMMON}
    compare(widen(trainer(digits, method="iad", teacher=teacher, **flags)), step)


def test_hat(digits, teacher):
    """The helper images leave [0, 1] where x′ is far from x."""
    taught = asked(teacher)

    def step(s):
        x_adv = s.trades_attack()
        classes = taught(x_adv).argmax(1)
        beyond = s.x + 3.5 * (x_adv - s.x)
        assert beyond.min() < 0

        def loss(net):
            clean, adversarial, helper = net(s.x), net(x_adv), net(beyond)
            total = cross_entropy(clean, hard(s)) + 2.5 * kl(clean, adversarial)
            return total + 0.5 * cross_entropy(helper, torch.eye(10).double()[classes])

        s.o.plain(loss, s.rate)
        return hard(s)

    compare(widen(trainer(digits, method="hat", natural_teacher=teacher, **COMMON)), step)


def test_kd(digits, teacher, tmp_path):
    natural = write_teacher(digits, tmp_path / "n.safetensors", SEED + 1)
    robust, standard = asked(teacher), asked(natural)

    def step(s):
        s.o.net.eval()
        start = (s.x + s.uniform(-8 / 255, 8 / 255)).clamp(0, 1)
        x_adv = s.ascend(start, lambda z: cross_entropy(z, hard(s)))

        def loss(net):
            z = net(x_adv)
            total = 0.3 * cross_entropy(z, hard(s))
            for weight, taught in ((0.1, standard), (0.6, robust)):
                total = total + weight * 4 * cross_entropy(z / 2, (taught(x_adv) / 2).softmax(1))
            return total

        s.o.plain(loss, s.rate)
        return hard(s)

    named = {"teacher": teacher, "natural_teacher": natural}
    compare(widen(trainer(digits, method="kd", **named, **COMMON)), step)


def changes(s, x_adv, taught, net, adversarial):
    """The teacher's and the student's logits there, less those at the opposite point."""
    opposite = 2 * s.x - x_adv
    return taught(x_adv) - taught(opposite), adversarial - net(opposite)


def test_igdm(digits, teacher):
    taught = asked(teacher)

    def step(s):
        s.o.net.eval()
        start = s.x + 0.001 * s.normal()
        x_adv = ascend_seeing(s, start, lambda x: kl(taught(x), s.o.net(x)) * len(x))
        rate = 3 * (s.t // 2 + 1) / EPOCHS

        def loss(net):
            adversarial = net(x_adv)
            change, own = changes(s, x_adv, taught, net, adversarial)
            return kl(taught(x_adv), adversarial) + rate * kl(change, own)

        s.o.plain(loss, s.rate)
        return hard(s)

    flags = {"gradient_weight": 3.0, **COMMON}
    compare(widen(trainer(digits, method="igdm", teacher=teacher, **flags)), step)


def test_saad(digits, teacher):
    taught = asked(teacher)

    def step(s):
        s.o.net.eval()
        start = s.x + 0.001 * s.normal()
        leaf = s.x.clone().requires_grad_()
        answer = taught(leaf)
        true = sum(row[y] for row, y in zip(answer, s.y.tolist(), strict=True))
        (slope,) = torch.autograd.grad(true, leaf)
        answer = answer.detach()

        def ascended(x):
            moved = 0.7 * torch.einsum("bchw,bchw->b", slope, x - s.x)
            target = answer + moved[:, None] * hard(s)
            return kl(target, s.o.net(x)) * len(x)

        x_adv = ascend_seeing(s, start, ascended)
        q = taught(x_adv).softmax(1)
        entropy = -(q * q.log()).sum(1)
        w = 5 * (entropy - entropy.min())
        scaled = w / (w.max() + 1e-8)
        rate = 3 * (s.t // 2 + 1) / EPOCHS

        def loss(net):
            adversarial = net(x_adv)
            change, own = changes(s, x_adv, taught, net, adversarial)
            clean = net(s.x)
            unsure = rows(taught(x_adv), adversarial) + rate * rows(change, own)
            return (w * unsure + 0.4 * (1 - scaled) * rows(answer, clean)).mean()

        s.o.plain(loss, s.rate)
        return hard(s)

    options = {"gradient_weight": 3.0, "clean_weight": 0.4, "teacher_step": 0.7}
    compare(widen(trainer(digits, method="saad", teacher=teacher, **options, **COMMON)), step)

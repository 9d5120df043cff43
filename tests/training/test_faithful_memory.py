"""Steps of objectives with a memory, against steps written anew: see `test_faithful`."""

from __future__ import annotations

import math

import pytest
import torch

from advkit import data
from tests.training._teaching import widen
from tests.training.original_steps import cross_entropy, kl
from tests.training.test_faithful import COMMON, compare, hard
from tests.training.test_learner import npz, trainer

M, BETA, CLASSES = 0.9, 6.0, 10


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


def labels_of(digits):
    return torch.eye(CLASSES, dtype=torch.float64)[digits.labels]


def own(s):
    """The examples of a batch that are no extra images."""
    return [i for i, place in enumerate(s.batch.index.tolist()) if place >= 0]


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("first", [1, 2])
def test_sat(digits, tmp_path, first, extra):
    flags = {"memory_from": first, "beta": BETA, **COMMON}
    if extra:
        flags |= {"extra_data": npz(tmp_path / "extra.npz"), "extra_fraction": 0.5}
    made = widen(trainer(digits, method="sat", **flags))
    kept = labels_of(digits)

    def step(s):
        x_adv = s.trades_attack()

        def loss(net):
            clean, adversarial = net(s.x), net(x_adv)
            if s.t // len(made.batches) + 1 < first:
                return cross_entropy(clean, hard(s)) + BETA * kl(clean, adversarial)
            targets = hard(s)
            for i in own(s):
                place = int(s.batch.index[i])
                kept[place] = M * kept[place] + (1 - M) * clean[i].detach().softmax(0)
                targets[i] = kept[place]
            w = targets.max(1).values
            w = w * len(w) / w.sum()
            own_loss = -(targets * clean.log_softmax(1)).sum(1)
            return (own_loss * w).sum() / len(w) + BETA * kl(clean, adversarial)

        s.o.plain(loss, s.rate)
        return hard(s)

    compare(made, step, rate=rate_of(made))
    found = made.learner.memory["objectives"]["targets"]
    torch.testing.assert_close(found, kept, rtol=0, atol=1e-12)


def rate_of(made):
    """The rate falls at epochs 1 and 2."""
    return lambda t: 0.1 * 0.1 ** min(t // len(made.batches), 2)


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("base", ["at", "trades"])
def test_te(digits, tmp_path, base, extra):
    """Epoch 1 without a memory, 2 at the start of the ramp, 3 within, 4 at its end."""
    flags = {"base": base, "ramp": "2:4", "beta": BETA, **COMMON}
    if extra:
        flags |= {"extra_data": npz(tmp_path / "extra.npz"), "extra_fraction": 0.5}
    made = widen(trainer(digits, method="te", **flags))
    kept = torch.zeros(len(digits.labels), CLASSES, dtype=torch.float64)

    def step(s):
        epoch = s.t // len(made.batches) + 1
        s.o.net.eval()
        with torch.no_grad():
            clean = s.o.net(s.x)
        wanted, weight = torch.zeros_like(clean), 0.0
        there = torch.zeros(len(clean), 1, dtype=torch.float64)
        if epoch >= 2:
            weight = 300 * math.exp(-5 * (1 - (epoch - 2) / 2) ** 2)
            for i in own(s):
                place = int(s.batch.index[i])
                kept[place] = M * kept[place] + (1 - M) * clean[i].softmax(0)
                wanted[i], there[i] = kept[place] / kept[place].sum(), 1

        def apart(z):
            return weight * (there * (z.softmax(1) - wanted) ** 2).mean()

        if base == "at":
            start = s.x + s.uniform(-8 / 255, 8 / 255)
            x_adv = s.ascend(start, lambda z: cross_entropy(z, hard(s)) + apart(z))
        else:
            start = s.x + 0.001 * s.normal()
            x_adv = s.ascend(start, lambda z: BETA * kl(clean, z) + apart(z))

        def loss(net):
            if base == "at":
                z = net(x_adv)
                return cross_entropy(z, hard(s)) + apart(z)
            z, adversarial = net(s.x), net(x_adv)
            return cross_entropy(z, hard(s)) + BETA * kl(z, adversarial) + apart(z)

        s.o.plain(loss, s.rate)
        return hard(s)

    compare(made, step, rate=rate_of(made), iterations=4 * len(made.batches))
    found = made.learner.memory["objectives"]["predictions"]
    torch.testing.assert_close(found, kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["ikl", "gkl"])
def test_ikl(digits, form):
    """Five steps of two an epoch: uniform class means first, then those of the epoch before."""
    options = {"square_weight": 20.0, "entropy_weight": 4.0, "class_temperature": 3.0}
    flags = {"divergence": form, "gkl_power": 0.4, **options, **COMMON}
    made = widen(trainer(digits, method="ikl", **flags))
    uniform = torch.full((CLASSES, CLASSES), 1 / CLASSES, dtype=torch.float64)
    made.learner.memory["objectives"]["means"].copy_(uniform)  # a tenth has no float32
    books = {"means": uniform, "sums": torch.zeros_like(uniform)}

    def square(clean, adversarial, s, power):
        total, weight = 0.0, 0.0
        for n, a, prior in zip(clean, adversarial, s, strict=True):
            if form == "gkl":
                prior = prior**power
            w = prior[:, None] * prior[None, :]
            gaps = (n[:, None] - n[None, :]) - (a[:, None] - a[None, :])
            total, weight = total + 0.25 * (w * gaps**2).sum(), weight + w.sum()
        return total / (len(clean) if form == "ikl" else weight)

    def step(s):
        if s.t and s.t % len(made.batches) == 0:
            seen = books["sums"].sum(1, keepdim=True) > 0
            new = books["sums"] / books["sums"].sum(1, keepdim=True).clamp(min=1e-300)
            books["means"] = torch.where(seen, new, books["means"])
            books["sums"] = torch.zeros_like(uniform)
        prior = books["means"][s.y]
        s.o.net.eval()
        with torch.no_grad():
            fixed = s.o.net(s.x)

        def entropy(clean, adversarial):
            return cross_entropy(adversarial, clean.detach().softmax(1))

        start = s.x + 0.001 * s.normal()
        x_adv = s.ascend(start, lambda z: square(fixed, z, prior, 1.0) + entropy(fixed, z))

        def loss(net):
            adversarial, clean = net(x_adv), net(s.x)
            said = (clean.detach() / 3).softmax(1)
            for true, row in zip(s.y.tolist(), said, strict=True):
                books["sums"][true] += row
            total = cross_entropy(clean, hard(s)) + 20 * square(clean, adversarial, prior, 0.4)
            return total + 4 * entropy(clean, adversarial)

        s.o.plain(loss, s.rate)
        return hard(s)

    compare(made, step)

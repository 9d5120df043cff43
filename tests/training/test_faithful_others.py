"""Steps of RSLAD, ARD, SCORE and MLCAT's loss scaling against steps written anew.

As `test_faithful`, on which these build: in float64, from descriptions of the codes.
"""

from __future__ import annotations

import pytest
import torch

from advkit import data
from tests.training import original_steps as originals
from tests.training.original_steps import ascend, cross_entropy
from tests.training.test_faithful import (
    COMMON,
    EPS,
    LINF,
    STEPS,
    compare,
    hard,
    planted,
    written_labels,
)
from tests.training.test_learner import trainer


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def labels_file(digits, tmp_path_factory):
    return written_labels(digits, tmp_path_factory.mktemp("labels") / "labels.h5")


def divergence(rows, logits, temperature=1.0):
    """KL from rows to softmax(z/T), example by example in plain sums; mean over the batch."""
    total = 0.0
    for row, z in zip(rows, logits / temperature, strict=True):
        powers = z.exp()
        p = powers / powers.sum()
        total = total + sum(r * (r.log() - s.log()) for r, s in zip(row, p, strict=True))
    return total / len(rows)


@pytest.mark.parametrize(("weight", "scale"), [(5 / 6, 1.0), (0.5, 0.1)])
def test_rslad(digits, labels_file, weight, scale):
    """Eval mode and TRADES' start in the attack; adversarial images pass first."""
    flags = {"method": "rslad", **COMMON, "nesterov": False, "soft_labels": labels_file}
    if scale != 1:
        flags |= {"adversarial_weight": weight, "kl_weight": scale}
    made = trainer(digits, **flags)
    assert made.settings.flat()["temperature"] == 1
    given = planted(made, 1.0)

    def step(s):
        rows = given(s)
        s.o.net.eval()
        start = s.x + 0.001 * s.normal()
        x_adv = s.ascend(start, lambda z: divergence(rows, z))

        def loss(net):
            robust = divergence(rows, net(x_adv))
            return scale * (weight * robust + (1 - weight) * divergence(rows, net(s.x)))

        s.o.plain(loss, s.rate)
        return rows

    compare(made, step, iterations=3)


@pytest.mark.parametrize(("alpha", "scale", "attack_bn"), [(1.0, 1.0, "eval"), (0.7, 0.1, "train")])
def test_ard(digits, labels_file, alpha, scale, attack_bn):
    """The clean pass moves BN also where it has no weight."""
    flags = {"method": "ard", **COMMON, "nesterov": False, "soft_labels": labels_file,
             "adversarial_weight": alpha, "kl_weight": scale, "attack_bn": attack_bn}  # fmt: skip
    made = trainer(digits, **flags)
    assert made.settings.flat()["temperature"] == 30
    given = planted(made, 30.0)

    def step(s):
        rows = given(s)
        s.o.net.train(attack_bn == "train")
        start = s.x + s.uniform(-EPS, EPS)
        x_adv = s.ascend(start, lambda z: cross_entropy(z, hard(s)))

        def loss(net):
            robust = 30**2 * scale * divergence(rows, net(x_adv), 30)
            return alpha * robust + (1 - alpha) * cross_entropy(net(s.x), hard(s))

        s.o.plain(loss, s.rate)
        return rows

    compare(made, step, iterations=3)


def test_score(digits):
    """Batch statistics in the attack, whose clean pass has them too; running ones stay."""
    flags = {"method": "score-wa", **COMMON, "beta": 4.0, "ema_decay": 0.995}

    def squared(a, b):
        return sum(((p - q) ** 2).sum() for p, q in zip(a, b, strict=True)) / len(a)

    def step(s):
        s.o.net.train()
        with originals.statistics_held(s.o.net):
            counted = [norm.num_batches_tracked.clone() for norm in originals.norms(s.o.net)]
            with torch.no_grad():
                clean = s.o.net(s.x).softmax(1)
            start = (s.x + s.uniform(-EPS, EPS)).clamp(0, 1)
            x_adv = s.ascend(start, lambda z: squared(z.softmax(1), clean))
            for norm, count in zip(originals.norms(s.o.net), counted, strict=True):
                norm.num_batches_tracked.copy_(count)

        def loss(net):
            p, q = net(s.x).softmax(1), net(x_adv).softmax(1)
            return squared(p, hard(s)) + 4.0 * squared(q, p)

        s.o.plain(loss, s.rate)
        s.o.follow(0.995)
        return hard(s)

    compare(trainer(digits, **flags), step, iterations=3)


def test_at_with_a_least_loss(digits):
    """As the code has it: each loss times max(1, m/loss), the factor not detached."""
    flags = {"method": "at", **COMMON, "min_loss": 2.3}

    def step(s):
        s.o.net.eval()
        start = (s.x + s.uniform(-EPS, EPS)).clamp(0, 1)
        s.x_adv = ascend(s.o.net, s.x, start, lambda z: cross_entropy(z, hard(s)), LINF, STEPS)

        def loss(net):
            each = -(hard(s) * net(s.x_adv).log_softmax(1)).sum(1)
            assert (each < 2.3).any()
            assert (each > 2.3).any()
            return (each * (2.3 / each).clamp_min(1)).mean()

        s.o.plain(loss, s.rate)
        return hard(s)

    compare(trainer(digits, **flags), step, iterations=3)

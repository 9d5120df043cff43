"""The training step against the original codes' steps, written anew in `original_steps`.

Both run in float64 on the same images and noise; images have pixels at exactly 0 and 1. Compared to
1e-12 after each of five iterations: adversarial images, parameters, BN's statistics, the average.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from advkit import data, models
from advkit.runtime import seeding
from advkit.softlabels.labelling import Labelling
from tests.artifacts.test_soft_labels import INFO
from tests.training import original_steps as originals
from tests.training.original_steps import Original, annealed, ascend, cross_entropy, kl, one_hot
from tests.training.test_learner import npz, trainer

EPS, ALPHA, STEPS, BETA = 8 / 255, 2 / 255, 10, 6.0
LINF = originals.linf(EPS, ALPHA)
EPOCHS, LENGTH, ITERATIONS = 4, 2, 5
TEMPERATURE = 3.0

COMMON = {
    "limit": 60, "epochs": EPOCHS, "batch_size": 20, "lr": 0.1, "lr_drops": [1, 2],
    "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "norm": "linf", "eps": "8/255",
    "step_size": "2/255", "attack_steps": STEPS,
}  # fmt: skip
"""Two iterations an epoch, and the rate falls within the five iterations that are compared."""
ADR = {
    "attack_bn": "train", "tau": "2.5:2.0", "lambda": "0.7:0.95", "anneal": "cosine",
    "ema_decay": 0.995,
}  # fmt: skip
ADR_TRADES = {
    **ADR, "attack_start": "positive", "clip_start": False, "joint_batch": True, "beta": BETA,
}  # fmt: skip
TRADES = {"beta": BETA, "ema_decay": 0.995}
"""The order of BN's passes and the start are the methods' own: nothing has to be typed."""


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


class Side:
    """One step of an original: what it is given, and what it answers."""

    def __init__(self, original, x, y, draw, t, rate, batch):
        self.o, self.x, self.y, self.t, self.rate, self.batch = original, x, y, t, rate, batch
        self.draw, self.x_adv = draw, x

    def ascend(self, start, loss):
        self.x_adv = ascend(self.o.net, self.x, start, loss, LINF, STEPS)
        return self.x_adv

    def uniform(self, low, high):
        noise = torch.empty_like(self.x)
        return noise.uniform_(low, high, generator=self.draw)

    def normal(self):
        return torch.empty_like(self.x).normal_(generator=self.draw)

    def adr_labels(self, tau=(2.5, 2.0), trust=(0.7, 0.95), total=EPOCHS * LENGTH):
        tau, trust = annealed(*tau, self.t, total), annealed(*trust, self.t, total)
        return originals.rectified(self.o.average, self.x, self.y, tau, trust)

    def pgd(self, targets):
        """ADR's attack: train mode, so that every pass moves BN's statistics."""
        self.o.net.train()
        start = (self.x + self.uniform(-EPS, EPS)).clamp(0, 1)
        return self.ascend(start, lambda z: cross_entropy(z, targets))

    def kl_attack(self, start):
        with torch.no_grad():
            clean = self.o.net(self.x)
        return self.ascend(start, lambda z: kl(clean, z))

    def adr_trades_attack(self):
        self.o.net.train()
        return self.kl_attack(self.x + self.uniform(0, 0.001))

    def trades_attack(self):
        self.o.net.eval()
        return self.kl_attack(self.x + 0.001 * self.normal())

    def ce_attack(self):
        self.o.net.eval()
        hard, start = one_hot(self.y, 10), self.x + 0.001 * self.normal()
        return self.ascend(start, lambda z: cross_entropy(z, hard))


def drops(t):
    epoch = t // LENGTH
    return 0.1 * 0.1 ** ((epoch >= 1) + (epoch >= 2))


def compare(made, step, *, rate=drops, iterations=ITERATIONS, counts=True):
    """Run both and compare all they hold after every iteration.

    `counts` tells whether BN's counters are compared (ADR's AWP counts passes at momentum 0).
    """
    settings, learner = made.settings, made.learner
    learner.model.double()
    averaged = learner.average is not None
    if averaged:
        learner.average.double()
    net = copy.deepcopy(learner.model)
    original = Original(
        net, copy.deepcopy(net).eval() if averaged else None, settings.momentum,
        settings.nesterov, settings.weight_decay, settings.norm_decay,
    )  # fmt: skip
    attacked, found = learner._attacked, []
    learner._attacked = lambda *given: found.append(attacked(*given)) or found[-1]
    for t in range(iterations):
        epoch, place = divmod(t, len(made.batches))
        batch = made.batches.at(made.batches.order(epoch), epoch, place)
        batch = dataclasses.replace(batch, x=batch.x.double())
        assert (batch.x == 0).any()
        assert (batch.x == 1).any()
        draw = seeding.generator(settings.seed, "attack", epoch, place)
        output = learner.learn(batch, epoch, place)
        side = Side(original, batch.x, batch.y, draw, t, rate(t), batch)
        targets = step(side)
        near(found[-1], side.x_adv, f"iteration {t}, adversarial images")
        torch.testing.assert_close(output.targets.double(), targets, rtol=0, atol=1e-12)
        rates = [group["lr"] for group in learner.optimizer.param_groups]
        assert rates == pytest.approx([rate(t)] * len(rates), rel=1e-14)
        same(learner.model, original.net, f"iteration {t}, student", counts)
        if averaged:
            same(learner.average, original.average, f"iteration {t}, average", False)
    return original


def same(found, expected, where, counts):
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if value.dtype == torch.int64:
            assert not counts or torch.equal(ours[name], value), f"{where}: {name}"
        else:
            near(ours[name], value, f"{where}: {name}")


def near(found, expected, where):
    assert found.dtype == torch.float64
    apart = float((found - expected).detach().abs().max())
    assert apart <= 1e-12, f"{where}: {apart:.1e} apart"


# --- the description's own figures ---


@pytest.mark.parametrize(
    ("logits", "y", "tau", "trust", "row"),
    [
        ((2, 1, 0, -1), 0, 2, 0.8, (0.564043, 0.220803, 0.133924, 0.081229)),
        ((2, 1, 0, -1), 2, 2, 0.8, (0.233147, 0.141411, 0.573419, 0.052022)),
        ((8, 0, 0, 0), 3, 1, 0.7, (0, 0, 0, 1)),
        ((0, 0, 0, 0), 1, 2.5, 0.7, (0.175, 0.475, 0.175, 0.175)),
    ],
)
def test_the_rewritten_labels_by_figures(logits, y, tau, trust, row):
    x = torch.tensor([logits], dtype=torch.float64)
    found = originals.rectified(torch.nn.Identity(), x, torch.tensor([y]), tau, trust)
    torch.testing.assert_close(found, torch.tensor([row]).double(), rtol=0, atol=1e-6)


def test_the_rewritten_schedule_by_figures():
    times = [t * 390 for t in (0, 50, 100, 150)]
    tau = [annealed(2.5, 2.0, t, 200 * 390) for t in times]
    trust = [annealed(0.7, 0.95, t, 200 * 390) for t in times]
    assert tau == pytest.approx([2.5, 2.4267767, 2.25, 2.0732233], abs=1e-7)
    assert trust == pytest.approx([0.7, 0.73661165, 0.825, 0.91338835], abs=1e-8)


# --- ADR's code ---


@pytest.mark.parametrize("awp", [False, True])
def test_adr(digits, awp):
    flags = {"method": "adr", **COMMON, **ADR}
    if awp:
        flags.update(method="adr-awp", awp=0.005, awp_form="adr", awp_warmup=0, nesterov=False)

    def step(s):
        targets = s.adr_labels()
        x_adv = s.pgd(targets)

        def loss(net):
            return cross_entropy(net(x_adv), targets)

        s.o.adr_awp(loss, s.rate, 0.005) if awp else s.o.plain(loss, s.rate)
        s.o.follow(0.995)
        return targets

    compare(trainer(digits, **flags), step, counts=not awp)


@pytest.mark.parametrize("awp", [False, True])
def test_trades_adr(digits, awp):
    flags = {"method": "trades-adr", **COMMON, **ADR_TRADES}
    if awp:
        flags.update(method="trades-adr-awp", awp=0.005, awp_form="adr", nesterov=False)

    def step(s):
        targets = s.adr_labels()
        x_adv = s.adr_trades_attack()

        def loss(net):
            return originals.trades_joint(net, s.x, x_adv, targets, BETA)

        s.o.adr_awp(loss, s.rate, 0.005) if awp else s.o.plain(loss, s.rate)
        s.o.follow(0.995)
        return targets

    compare(trainer(digits, **flags), step, counts=not awp)


# --- AT-AWP ---


@pytest.mark.parametrize("logging_pass", [False, True])
def test_at_awp(digits, logging_pass):
    """AWP's script for AT, which logs with one more clean pass in train mode."""
    flags = {
        "method": "at-awp-wa", **COMMON, "attack_bn": "train", "awp": 0.01, "nesterov": False,
        "logging_pass": logging_pass, "ema_decay": 0.995,
    }  # fmt: skip

    def step(s):
        x_adv = s.pgd(hard(s))
        s.o.awp(lambda net: cross_entropy(net(x_adv), hard(s)), s.rate, 0.01)
        if logging_pass:
            s.o.net(s.x)
        s.o.follow(0.995)
        return hard(s)

    compare(trainer(digits, **flags), step)


# --- TRADES, AWP and LTD ---


def trades_step(attack, labels, passes, awp_from):
    """Return a step; `awp_from` is the first epoch with AWP, from 1, None for never."""

    def step(s):
        targets = labels(s)
        x_adv = getattr(s, attack)()

        def loss(net):
            return originals.trades_separate(net, s.x, x_adv, targets, BETA, passes)

        if awp_from is not None and s.t // LENGTH + 1 >= awp_from:
            s.o.awp(loss, s.rate, 0.005)
        else:
            s.o.plain(loss, s.rate)
        s.o.follow(0.995)
        return targets

    return step


def hard(s):
    return one_hot(s.y, 10)


@pytest.mark.parametrize(("warmup", "passes"), [(None, "cac"), (1, "acc"), (2, "acc")])
def test_trades_and_awp(digits, warmup, passes):
    flags = {"method": "trades-wa", **COMMON, **TRADES, "nesterov": False}
    if warmup is not None:
        flags.update(method="trades-awp-wa", awp=0.005, awp_warmup=warmup)
    step = trades_step("trades_attack", hard, passes, warmup)
    compare(trainer(digits, **flags), step)


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
@pytest.mark.parametrize("passes", ["ca", "cac", "acc"])
def test_passes_that_bn_counts(digits, passes, attack_bn):
    """Also where the attack moves BN, and without AWP."""
    flags = {"method": "trades-wa", **COMMON, **TRADES, "bn_passes": passes, "attack_bn": attack_bn}

    def attack(s):
        start = s.x + 0.001 * s.normal()
        s.o.net.train(attack_bn == "train")
        return s.kl_attack(start)

    plain = trades_step("trades_attack", hard, passes, None)

    def step(s):
        s.trades_attack = lambda: attack(s)
        return plain(s)

    compare(trainer(digits, **flags), step, iterations=3)


def test_a_clipped_start(digits):
    flags = {"method": "trades-wa", **COMMON, **TRADES, "clip_start": True}
    plain = trades_step("trades_attack", hard, "cac", None)

    def step(s):
        def attack():
            s.o.net.eval()
            return s.kl_attack((s.x + 0.001 * s.normal()).clamp(0, 1))

        s.trades_attack = attack
        return plain(s)

    compare(trainer(digits, **flags), step, iterations=3)


@pytest.fixture(scope="module")
def labels_file(digits, tmp_path_factory):
    return written_labels(digits, tmp_path_factory.mktemp("labels") / "labels.h5")


def written_labels(digits, path):
    """A labels file of two views an image; `planted` has what a test compares with."""
    net = models.build("small-cnn", 10, channels=1, statistics=([0.3], [0.4]), seed=1, width=4)
    info = {**INFO, "data": {"name": "digits", "classes": list(digits.classes)}}
    plan = {"views": "2", "dtype": "float32", "top_k": None, "seed": 0, "batch_size": 500}
    here = {"device": "cpu", "threads": 1}
    Labelling(net.eval(), info, digits, **plan, environment=here).write(path)
    return str(path)


def planted(made, temperature):
    """Put float64 logits in the place of the file's; return a step's rows at a temperature."""
    shape = made.soft.labels.logits.shape
    logits = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(2)).double()
    made.soft.labels = dataclasses.replace(made.soft.labels, logits=logits)

    def given(s):
        z = logits[s.batch.index, s.batch.view]
        powers = (z / temperature).exp()
        return powers / powers.sum(1, keepdim=True)

    return given


@pytest.mark.parametrize("inner", ["ce", "kl"])
@pytest.mark.parametrize("awp", [False, True])
def test_ltd(digits, labels_file, inner, awp):
    flags = {"method": "ltd-wa", **COMMON, **TRADES, "inner": inner, "temperature": TEMPERATURE,
             "soft_labels": labels_file}  # fmt: skip
    if awp:
        flags.update(method="ltd-awp-wa", awp=0.005, awp_warmup=2)
    made = trainer(digits, **flags)
    given = planted(made, TEMPERATURE)
    attack = {"ce": "ce_attack", "kl": "trades_attack"}[inner]
    compare(made, trades_step(attack, given, "acc", 2 if awp else None))


# --- MART ---


def test_mart(digits):
    flags = {"method": "mart", **COMMON, "beta": BETA}

    def step(s):
        x_adv = s.ce_attack()
        s.o.plain(lambda net: originals.mart(net, s.x, x_adv, s.y, BETA), s.rate)
        return hard(s)

    compare(trainer(digits, **flags), step)


# --- other norms ---


@pytest.mark.parametrize(
    ("norm", "attack_bn"), [("l2", "eval"), ("l2", "frozen"), ("l2", "train"), ("l1", "train")]
)
def test_other_norms(digits, norm, attack_bn):
    eps, alpha = {"l2": (0.5, 0.1), "l1": (3.0, 0.75)}[norm]
    flags = {"method": "at", **COMMON, "norm": norm, "eps": str(eps), "step_size": str(alpha),
             "attack_bn": attack_bn, "attack_start": "uniform"}  # fmt: skip
    move = {"l2": originals.l2, "l1": originals.l1}[norm](eps, alpha)

    def start(s):
        """A random direction, a uniform radius."""
        noise = s.normal()
        if norm == "l1":
            noise = noise.sign() * torch.empty_like(noise).exponential_(generator=s.draw)
        radius = torch.empty(len(noise), dtype=noise.dtype).uniform_(0, eps, generator=s.draw)
        sizes = [float(n.norm() if norm == "l2" else n.abs().sum()) for n in noise]
        far = [x + n / size * r for x, n, size, r in zip(s.x, noise, sizes, radius, strict=True)]
        far = torch.stack(far)
        return originals.project_l1(far, s.x, eps) if norm == "l1" else far.clamp(0, 1)

    def step(s):
        s.o.net.train(attack_bn != "eval")
        buffers = [b.clone() for b in s.o.net.buffers()]
        loss = lambda z: cross_entropy(z, hard(s))  # noqa: E731
        s.x_adv = x_adv = ascend(s.o.net, s.x, start(s), loss, move, STEPS)
        if attack_bn == "frozen":
            for now, before in zip(s.o.net.buffers(), buffers, strict=True):
                now.copy_(before)
        s.o.plain(lambda net: cross_entropy(net(x_adv), hard(s)), s.rate)
        return hard(s)

    compare(trainer(digits, **flags), step)


# --- extra data ---


def test_extra_data(digits, tmp_path):
    path = npz(tmp_path / "extra.npz")
    flags = {
        "method": "adr-awp-wa", **COMMON, **ADR, "extra_data": path, "extra_fraction": 0.5,
        "bn_momentum": 0.01, "norm_decay": False, "lr": 0.4, "lr_schedule": "cyclic",
        "warmup_epochs": 0.5, "awp": 0.005, "awp_form": "adr", "nesterov": False,
    }  # fmt: skip
    made = trainer(digits, **flags)
    total = EPOCHS * len(made.batches)

    def rate(t):
        warm = 0.5 * len(made.batches)
        if t < warm:
            return 1e-6 + (0.4 - 1e-6) * t / warm
        return annealed(0.4, 0.0, t, total)

    def step(s):
        if s.t in (0, 1):
            for each in originals.norms(s.o.net):
                each.momentum = (1.0, 0.01)[s.t]
        targets = s.adr_labels(total=total)
        x_adv = s.pgd(targets)
        s.o.adr_awp(lambda net: cross_entropy(net(x_adv), targets), s.rate, 0.005)
        s.o.follow(0.995)
        return targets

    compare(made, step, rate=rate, counts=False)

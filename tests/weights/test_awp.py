"""Adversarial weight perturbation: sizes, restoring, and one step of each form by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from advkit import data
from advkit.config import resolve
from advkit.runtime.reporting import Reporter
from advkit.training.trainer import Trainer
from advkit.weights import awp

RHO = 0.1


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()


def gradients_of(model, names):
    torch.manual_seed(1)
    return {name: torch.randn_like(dict(model.named_parameters())[name]) for name in names}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_sizes():
    model = net()
    gradients = gradients_of(model, awp.chosen(model, "adr"))
    before = weights(model)
    with awp.perturbed(model, gradients, RHO):
        for name, now in weights(model).items():
            g, w = gradients[name], before[name]
            expected = w + RHO * w.norm() * g / (g.norm() + 1e-20)
            assert torch.allclose(now, expected, atol=1e-12, rtol=0)


def test_which_tensors():
    model = net()
    assert set(awp.chosen(model, "original")) == {"0.weight", "3.weight"}
    assert set(awp.chosen(model, "adr")) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("fails", [False, True])
def test_weights_come_back_bit_for_bit(fails):
    model = net()
    before = weights(model)
    try:
        with awp.perturbed(model, gradients_of(model, before), RHO):
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert all(torch.equal(before[name], now) for name, now in weights(model).items())


def test_zero_norm_stays():
    model = net()
    nn.init.zeros_(model[0].bias)
    with awp.perturbed(model, gradients_of(model, ["0.bias"]), RHO):
        assert not model[0].bias.any()


def trainer(form):
    flags = {
        "data": "digits", "method": "at-awp", "awp": RHO, "awp_form": form, "limit": 100,
        "batch_size": 16, "width": 4, "lr": 0.1, "attack_steps": 1,
    }  # fmt: skip
    resolved = resolve.resolve((flags, "test"))
    made = Trainer(
        resolved.settings, data.load("digits", "train"), device=torch.device("cpu"), threads=1,
        reporter=Reporter(),
    )  # fmt: skip
    made.learner.model.double()
    return made


@pytest.mark.parametrize("form", awp.FORMS)
def test_one_step_by_hand(form):
    """SGD with Nesterov momentum's first step is -lr·(1 + m)·(g + wd·w)."""
    made = trainer(form)
    x, y = torch.rand(16, 1, 8, 8).double(), torch.randint(0, 10, (16,))
    hand = copy.deepcopy(made.learner.model)
    loss_of = nn.CrossEntropyLoss()

    def outer():
        logits = made.learner.model(x)
        return loss_of(logits, y), {"adversarial": logits.detach()}

    made.learner.model.train()
    made.learner._perturbed_step(lambda _: outer(), 0, 0)

    hand.train()
    named = dict(hand.named_parameters())
    names = [n for n, p in named.items() if form == "adr" or ("weight" in n and p.dim() > 1)]
    first = torch.autograd.grad(loss_of(hand(x), y), [named[n] for n in names])
    before = weights(hand)
    with torch.no_grad():
        for n, g in zip(names, first, strict=True):
            named[n] += RHO * before[n].norm() * g / g.norm()
    moved = weights(hand)
    second = torch.autograd.grad(loss_of(hand(x), y), list(named.values()))
    for (n, now), g in zip(made.learner.model.named_parameters(), second, strict=True):
        at = moved[n] if form == "original" else before[n]
        step = 0.1 * (1 + 0.9) * (g + 5e-4 * at)
        assert torch.allclose(now, before[n] - step, atol=1e-9), n


@pytest.mark.parametrize("form", awp.FORMS)
def test_batch_statistics_move_once(form):
    made = trainer(form)
    x, y = torch.rand(16, 1, 8, 8).double(), torch.randint(0, 10, (16,))
    made.learner.model.train()
    made.learner._perturbed_step(
        lambda _: (nn.functional.cross_entropy(made.learner.model(x), y), {}), 0, 0
    )
    assert int(made.learner.model.bn1.num_batches_tracked) == 1


def test_warm_up_and_name():
    made = resolve.resolve(({"data": "digits", "method": "ltd-awp-wa"}, "t")).settings
    assert (made.awp, made.wa, made.method) == (0.005, True, "ltd-awp-wa")
    plain = resolve.resolve(({"data": "digits", "method": "trades", "awp": 0.01}, "t")).settings
    assert plain.method == "trades-awp"

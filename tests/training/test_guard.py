"""What the guard refuses, when it looks, and what it says."""

from __future__ import annotations

import pytest
import torch

from advkit.config.resolve import resolve
from advkit.errors import NumericalError, UsageError
from advkit.parallel.world import World
from advkit.training.guard import Guard, require_applicable

CPU = torch.device("cpu")
LOGITS = {"clean": torch.ones(2, 3), "adversarial": torch.full((2, 3), torch.nan)}


@pytest.fixture
def guard():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.25)
    return Guard(optimizer, CPU, World())


def test_finite_values_pass(guard):
    guard.check(torch.tensor(1.0), "loss", {}, 0, 0)
    guard.agree()


def test_a_value_that_is_not_finite_is_named_with_its_place_and_rate(guard):
    expected = (
        r"the loss is inf at epoch 3, step 5 \(adversarial logits are not finite\), "
        r"learning rate 0\.25"
    )
    with pytest.raises(NumericalError, match=expected):
        guard.check(torch.tensor(torch.inf), "loss", LOGITS, 2, 4)


def test_what_was_seen_once_is_not_forgotten(guard):
    with pytest.raises(NumericalError):
        guard.check(torch.tensor(torch.nan), "loss", {}, 0, 0)
    with pytest.raises(NumericalError, match="all logits are finite"):
        guard.check(torch.tensor(1.0), "loss", {}, 0, 1)
    with pytest.raises(NumericalError, match="a loss since the last look"):
        guard.agree()


@pytest.mark.parametrize(
    ("options", "what"),
    [({"sync_bn": True}, "--sync-bn needs several processes"), ({}, None)],
)
def test_what_cannot_be_applied(options, what):
    flags = {"data": "digits", "method": "at", **options}
    settings = resolve((flags, "test")).settings
    if what is None:
        require_applicable(settings, CPU, World())
        return
    with pytest.raises(UsageError, match=what):
        require_applicable(settings, CPU, World())

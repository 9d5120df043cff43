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


FINE = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_distributions_pass(guard, dtype):
    guard.check_targets(FINE.to(dtype), (2, 3), "adr", 0, 0)


@pytest.mark.parametrize(
    ("targets", "what"),
    [
        (FINE * 0.9, "row 0 of the targets sums to 0.9, not 1"),
        (torch.tensor([[0.5, 0.5, 0.0], [1.25, -0.25, 0.0]]), "row 1 .* negative entry, -0.25"),
        (torch.tensor([[torch.nan, 1.0, 0.0], [1.0, 0.0, 0.0]]), "row 0 .* is not finite"),
        (torch.tensor([[torch.inf, 0.0, 0.0], [1.0, 0.0, 0.0]]), "row 0 .* is not finite"),
        (FINE[:, :2], r"targets of shape \(2, 2\), not \(2, 3\)"),
        (FINE[0], r"targets of shape \(3,\), not \(2, 3\)"),
    ],
)
def test_targets_that_are_no_distributions_name_their_source(guard, targets, what):
    with pytest.raises(NumericalError, match=rf"label source 'soft', epoch 3, step 5: {what}"):
        guard.check_targets(targets, (2, 3), "soft", 2, 4)


def test_on_a_gpu_targets_are_looked_at_now_and_then(guard):
    guard.device = torch.device("cuda")
    guard.check_targets(FINE * 2, (2, 3), "soft", 0, 1)
    with pytest.raises(NumericalError, match="since the last look"):
        guard.check_targets(FINE, (2, 3), "soft", 0, 20)
    with pytest.raises(NumericalError, match="targets: since the last look"):  # an epoch's end
        guard.agree()

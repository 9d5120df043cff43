"""The sums of an epoch by hand, also those of an earlier version."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from advkit.training import books
from advkit.training.learner import StepOutput
from advkit.training.state import unpack

Y = torch.tensor([0, 1, 1])
RIGHT, WRONG = [0.0, 2.0], [2.0, 0.0]


def output(still=None, **logits):
    targets = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    return StepOutput(
        targets, torch.tensor(0.25), {k: torch.tensor(v) for k, v in logits.items()}, still
    )


def test_two_batches_by_hand():
    first = output(clean=[WRONG, RIGHT, RIGHT], adversarial=[RIGHT, RIGHT, WRONG])
    second = output(adversarial=[WRONG, WRONG, WRONG])
    sums = books.no_sums()
    for step in (first, second):
        sums = books.add(sums, step, Y)
    entropy = 2 * math.log(2)
    assert sums.tolist() == pytest.approx([6, 1.5, entropy, 3, 2, 3, 6, 5, 6, 0, 0])
    assert books.averages(sums) == pytest.approx({
        "n": 6, "loss": 0.25, "target_entropy": entropy / 6, "train_clean_accuracy": 1.0,
        "train_robust_accuracy": 1 / 3, "target_mass": 5 / 6,
    })  # fmt: skip


def test_logits_that_no_objective_showed_have_no_accuracy():
    sums = books.add(books.no_sums(), output(clean=[RIGHT, RIGHT, RIGHT]), Y)
    assert "train_robust_accuracy" not in books.averages(sums)


def test_an_epoch_without_examples_divides_by_nothing():
    assert books.averages(books.no_sums()) == {"n": 0, "loss": 0, "target_entropy": 0}


def test_examples_without_a_gradient_are_counted_where_there_is_an_attack():
    sums = books.no_sums()
    for still in ([True, False, False], [True, True, False]):
        sums = books.add(sums, output(torch.tensor(still), adversarial=[RIGHT] * 3), Y)
    assert books.averages(sums)["zero_gradient"] == 0.5
    assert "zero_gradient" not in books.averages(books.add(books.no_sums(), output(), Y))


def test_sums_of_an_earlier_version_average_what_was_counted_since():
    """Its state has seven sums: of the other figures only later batches tell."""
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    kept = {f"model.{name}": value for name, value in net.state_dict().items()}
    before = torch.tensor([3.0, 0.75, 0.5, 1, 2, 3, 3], dtype=torch.float64)
    sums = unpack({**kept, "sums": before}, net, None, optimizer)
    assert sums.tolist() == [*before.tolist(), 0, 0, 0, 0]
    assert "target_mass" not in books.averages(sums)
    later = books.averages(books.add(sums, output(), Y))
    assert (later["n"], later["target_mass"]) == (6, pytest.approx(2.5 / 3))

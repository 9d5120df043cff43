"""The sums of an epoch by hand, and when the alarm of masking rings."""

from __future__ import annotations

import math

import pytest
import torch

from advkit.training import books
from advkit.training.learner import StepOutput

Y = torch.tensor([0, 1, 1])
RIGHT, WRONG = [0.0, 2.0], [2.0, 0.0]


def output(**logits):
    targets = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    return StepOutput(targets, torch.tensor(0.25), {k: torch.tensor(v) for k, v in logits.items()})


def test_two_batches_by_hand():
    first = output(clean=[WRONG, RIGHT, RIGHT], adversarial=[RIGHT, RIGHT, WRONG])
    second = output(adversarial=[WRONG, WRONG, WRONG])
    sums = books.no_sums()
    for step in (first, second):
        sums = books.add(sums, step, Y)
    entropy = 2 * math.log(2)
    assert sums.tolist() == pytest.approx([6, 1.5, entropy, 3, 2, 3, 6])
    assert books.averages(sums) == pytest.approx({
        "n": 6, "loss": 0.25, "target_entropy": entropy / 6, "train_clean_accuracy": 1.0,
        "train_robust_accuracy": 1 / 3,
    })  # fmt: skip


def test_logits_that_no_objective_showed_have_no_accuracy():
    sums = books.add(books.no_sums(), output(clean=[RIGHT, RIGHT, RIGHT]), Y)
    assert "train_robust_accuracy" not in books.averages(sums)


def test_an_epoch_without_examples_divides_by_nothing():
    assert books.averages(books.no_sums()) == {"n": 0, "loss": 0, "target_entropy": 0}


@pytest.mark.parametrize(
    ("robust", "share", "rings"),
    [(0.98, 0.91, True), (0.97, 0.91, False), (0.98, 0.9, False), (None, 1.0, False)],
)
def test_masking_needs_both_signs(robust, share, rings):
    row = {"target_entropy": share * math.log(10)}
    if robust is not None:
        row["train_robust_accuracy"] = robust
    text = books.masking(row, 10)
    assert (text is not None) is rings
    if text is not None:
        assert "0.980" in text
        assert "2.10 of 2.30" in text

"""Validation split and limits: sizes, balance, and what they depend on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advkit.errors import UsageError
from advkit.images.split import first, quotas, validation

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(torch.tensor)


def balanced(chosen: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether each class's share is its exact one, rounded up or down."""
    counts = torch.bincount(chosen, minlength=5).double()
    exact = torch.bincount(whole, minlength=5).double() * len(chosen) / len(whole)
    return bool(((counts - exact).abs() < 1).all())


@pytest.mark.parametrize(
    ("counts", "total", "shares"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([50, 30, 20], 7, [4, 2, 1]),  # 3.5, 2.1, 1.4
        ([1, 1, 1], 2, [1, 1, 0]),  # ties go to the first
        ([0, 3], 2, [0, 2]),
    ],
)
def test_quotas_by_hand(counts, total, shares):
    assert quotas(torch.tensor(counts), total).tolist() == shares


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20).filter(any), st.data())
def test_quotas_add_up_and_never_exceed_their_class(counts, draw):
    total = draw.draw(st.integers(0, sum(counts)))
    share = quotas(torch.tensor(counts), total).tolist()
    assert sum(share) == total
    assert all(0 <= part <= count for part, count in zip(share, counts, strict=True))


@given(LABELS, st.data())
def test_the_validation_split_is_a_balanced_partition(labels, draw):
    size = draw.draw(st.integers(1, len(labels) - 1))
    train, held = validation(labels, size, seed=3)
    assert len(held) == size
    assert torch.equal(torch.cat([train, held]).sort().values, torch.arange(len(labels)))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(held, held.sort().values)
    assert balanced(labels[held], labels)


def test_the_validation_split_depends_on_its_seed_alone():
    labels = torch.arange(200) % 5
    torch.manual_seed(1)
    first_time = validation(labels, 40, seed=0)[1]
    torch.manual_seed(2)
    assert torch.equal(validation(labels, 40, seed=0)[1], first_time)
    assert not torch.equal(validation(labels, 40, seed=1)[1], first_time)


def test_the_validation_split_is_not_simply_the_first_examples():
    held = validation(torch.zeros(1000).long(), 100, seed=0)[1]
    assert 300 < held.double().mean() < 700


@pytest.mark.parametrize("size", [-1, 4, 5])
def test_a_split_that_leaves_nothing_is_a_usage_error(size):
    with pytest.raises(UsageError, match=rf"--val-size {size}: the training split has 4 examples"):
        validation(torch.tensor([0, 1, 0, 1]), size, seed=0)


def test_a_share_that_rounds_to_nothing_is_no_option_of_anybody():
    with pytest.raises(UsageError, match=r"^4 training examples are too few to set some aside"):
        validation(torch.tensor([0, 1, 0, 1]), 0, seed=0)


@given(LABELS, st.integers(1, 80))
def test_a_limit_takes_the_first_of_each_class(labels, n):
    chosen = first(labels, n)
    assert len(chosen) == min(n, len(labels))
    assert torch.equal(chosen, chosen.sort().values)
    assert balanced(labels[chosen], labels)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        taken = chosen[labels[chosen] == label]
        assert torch.equal(taken, members[: len(taken)])


def test_no_limit_is_everything():
    assert first(torch.tensor([1, 0]), None).tolist() == [0, 1]


@pytest.mark.parametrize("n", [0, -3])
def test_a_limit_of_nothing_is_a_usage_error(n):
    with pytest.raises(UsageError, match=rf"--limit {n}: at least one"):
        first(torch.tensor([1, 0]), n)

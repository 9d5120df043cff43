"""Batches are functions of (seed, epoch, step)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advkit.errors import UsageError
from advkit.images.augment import apply_views
from advkit.images.batches import Batch, Batches
from advkit.images.image_set import Images

COUNT = 23


def source(pad: int = 1, flip: bool = True) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 4, 4), dtype=np.uint8)
    labels = torch.arange(COUNT) % 4
    return Images("x", "train", torch.from_numpy(pixels), labels, tuple("abcd"), pad, flip)


def batches(size: int = 5, seed: int = 0, positions: torch.Tensor | None = None) -> Batches:
    chosen = torch.arange(COUNT) if positions is None else positions
    return Batches(source(), chosen, size, seed, torch.device("cpu"))


def equal(first: Batch, second: Batch) -> bool:
    names = ("index", "x", "y", "views", "view")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


@given(st.integers(1, COUNT), st.integers(0, 2**40), st.integers(0, 300))
def test_an_epoch_visits_no_example_twice_and_drops_the_rest(size, seed, epoch):
    whole = batches(size, seed)
    order = whole.order(epoch)
    assert len(order) == len(whole) * size == COUNT // size * size
    assert len(order.unique()) == len(order)
    joined = torch.cat([whole.at(order, epoch, step).index for step in range(len(whole))])
    assert torch.equal(joined, order)


def test_only_the_given_positions_are_drawn():
    chosen = torch.tensor([2, 3, 5, 7, 11, 13])
    order = batches(2, positions=chosen).order(0)
    assert torch.equal(order.sort().values, chosen)


def test_a_batch_depends_on_nothing_before_it():
    first, second = batches(), batches()
    for epoch in range(3):
        order = first.order(epoch)
        for step in range(len(first)):
            first.at(order, epoch, step)
    torch.manual_seed(7)
    assert equal(second.at(second.order(2), 2, 3), first.at(first.order(2), 2, 3))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_seed_and_epoch_change_order_and_views(other):
    seed, epoch = other.get("seed", 0), other.get("epoch", 0)
    first, second = batches(), batches(seed=seed)
    assert not torch.equal(first.order(0), second.order(epoch))
    same = torch.arange(5)
    assert not torch.equal(first.at(same, 0, 0).views, second.at(same, epoch, 0).views)


def test_steps_have_views_of_their_own():
    whole, same = batches(), torch.arange(5).repeat(4)
    views = {tuple(whole.at(same, 0, step).views.flatten().tolist()) for step in range(4)}
    assert len(views) == 4


def test_a_batch_is_pixels_labels_and_views_of_its_examples():
    whole = batches()
    batch = whole.at(whole.order(0), 0, 1)
    plain = whole.images.images[batch.index]
    expected = apply_views(plain, batch.views, 1).numpy().astype(np.float32) / 255
    np.testing.assert_allclose(batch.x.numpy(), expected, rtol=1e-6)
    assert torch.equal(batch.y, batch.index % 4)
    assert batch.x.dtype == torch.float32
    assert batch.views.shape == (5, 3)


def test_from_a_table_only_its_views_are_drawn_and_named():
    table = torch.randint(0, 2, (COUNT, 3, 3), generator=torch.Generator().manual_seed(0))
    plain = batches()
    whole = Batches(plain.images, plain.positions, 5, 0, plain.device, table.to(torch.uint8))
    drawn = set()
    for epoch in range(5):
        batch = whole.at(whole.order(epoch), epoch, 0)
        assert torch.equal(batch.views.long(), table[batch.index, batch.view])
        expected = apply_views(plain.images.images[batch.index], batch.views, 1)
        torch.testing.assert_close(batch.x, expected / 255)
        drawn |= set(batch.view.tolist())
    assert drawn == {0, 1, 2}


def test_over_many_epochs_every_example_comes_up():
    whole = batches(10)
    seen = torch.cat([whole.order(epoch) for epoch in range(30)])
    assert len(seen.unique()) == COUNT


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    whole = batches()
    whole.at(whole.order(0), 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [0, -1, COUNT + 1])
def test_an_impossible_batch_size_is_a_usage_error(size):
    with pytest.raises(UsageError, match=rf"--batch-size {size}: there are {COUNT} training"):
        batches(size)


# --- the last batch ---


@given(st.integers(2, COUNT + 5), st.integers(0, 2**40))
def test_a_last_batch_that_is_kept_holds_the_rest(size, epoch):
    plain = batches(5)
    if COUNT % size == 1:
        return
    whole = Batches(plain.images, plain.positions, size, 0, plain.device, keep=True)
    order = whole.order(epoch)
    seen = [whole.at(order, epoch, step) for step in range(len(whole))]
    assert [len(batch.y) for batch in seen[:-1]] == [size] * (len(whole) - 1)
    assert torch.equal(torch.cat([batch.index for batch in seen]).sort().values, plain.positions)


def test_full_batches_are_those_of_a_run_that_drops_the_last():
    plain = batches(5)
    whole = Batches(plain.images, plain.positions, 5, 0, plain.device, keep=True)
    for step in range(len(plain)):
        assert equal(plain.at(plain.order(1), 1, step), whole.at(whole.order(1), 1, step))


def test_processes_share_the_last_batch_too():
    plain, more = batches(5), {"keep": True, "world": 3}
    shares = [Batches(plain.images, torch.arange(21), 9, 0, plain.device, rank=rank, **more)
              for rank in range(3)]  # fmt: skip
    last = [share.at(share.order(0), 0, 2) for share in shares]
    assert [batch.rows.tolist() for batch in last] == [[0], [1], [2]]
    assert [batch.total for batch in last] == [3, 3, 3]
    assert torch.equal(torch.cat([batch.index for batch in last]), shares[0].order(0)[18:])


@pytest.mark.parametrize(
    ("size", "world", "message"),
    [
        (11, 1, "--last-batch keep: --batch-size 11 leaves one of 23 images"),
        (10, 2, "--batch-size 10: 3 images cannot be shared evenly by 2 processes"),
    ],
)
def test_a_last_batch_that_cannot_be_trained_on(size, world, message):
    plain = batches(5)
    with pytest.raises(UsageError, match=message):
        Batches(plain.images, plain.positions, size, 0, plain.device, world=world, keep=True)

"""Named random streams: functions of their names alone."""

from __future__ import annotations

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from advkit.runtime import seeding

WORDS = st.lists(st.one_of(st.integers(0, 9), st.sampled_from("ab")), max_size=3)


def test_derived_seeds_are_the_documented_hash():
    digest = hashlib.sha256(b"7/order/3").digest()
    assert seeding.derive(7, "order", 3) == int.from_bytes(digest[:8], "big") // 2


@given(st.integers(0, 2**40), WORDS)
def test_seeds_fit_a_torch_generator(seed, names):
    value = seeding.derive(seed, *names)
    assert 0 <= value < 2**63
    assert seeding.generator(seed, *names).initial_seed() == value


@given(st.tuples(st.integers(0, 99), WORDS), st.tuples(st.integers(0, 99), WORDS))
def test_different_names_are_different_streams(first, second):
    (one, names), (two, others) = first, second
    same = (one, *map(str, names)) == (two, *map(str, others))
    assert (seeding.derive(one, *names) == seeding.derive(two, *others)) is same


def test_streams_repeat_and_do_not_share_state():
    first, second = seeding.generator(0, "a"), seeding.generator(0, "a")
    torch.rand(100, generator=first)
    again = torch.rand(5, generator=second)
    assert torch.equal(again, torch.rand(5, generator=seeding.generator(0, "a")))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=seeding.generator(0, "a"))
    assert torch.equal(torch.get_rng_state(), before)

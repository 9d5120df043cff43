"""Crops and flips against a slow reference, one example at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from advkit.images.augment import apply_views, draw_views


def slow(image: torch.Tensor, dy: int, dx: int, flip: int, pad: int) -> torch.Tensor:
    """Pad, crop, then flip one image (C, H, W)."""
    _, height, width = image.shape
    crop = F.pad(image, (pad, pad, pad, pad))[:, dy : dy + height, dx : dx + width]
    return crop.flip(2) if flip else crop


@given(
    st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from([torch.uint8, torch.float32]),
    st.integers(0, 2**32),
)
def test_views_are_the_slow_crops_and_flips(shape, pad, flip, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, shape, generator=draw).to(dtype)
    views = draw_views(shape[0], pad, flip, draw)
    found = apply_views(images, views, pad)
    each = zip(images, views.tolist(), strict=True)
    expected = torch.stack([slow(image, *view, pad) for image, view in each])
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_the_middle_view_is_the_plain_image(pad):
    images = torch.rand(3, 3, 5, 5)
    views = torch.tensor([[pad, pad, 0]] * 3, dtype=torch.uint8)
    assert torch.equal(apply_views(images, views, pad), images)


def test_a_view_by_hand():
    image = torch.tensor([[[[1, 2], [3, 4]]]])
    # offset (0, 1) of the padded image: one empty row above
    assert apply_views(image, torch.tensor([[0, 1, 0]]), 1).tolist() == [[[[0, 0], [1, 2]]]]
    assert apply_views(image, torch.tensor([[1, 2, 0]]), 1).tolist() == [[[[2, 0], [4, 0]]]]
    assert apply_views(image, torch.tensor([[1, 2, 1]]), 1).tolist() == [[[[0, 2], [0, 4]]]]


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (0, True), (1, False), (2, True)])
def test_every_view_is_equally_likely(pad, flip):
    from scipy import stats

    kinds = (2 * pad + 1) ** 2 * (1 + flip)
    views = draw_views(200 * kinds, pad, flip, torch.Generator().manual_seed(0))
    found, counts = views.unique(dim=0, return_counts=True)
    assert views.dtype == torch.uint8
    assert len(found) == kinds
    assert found.amax(0).tolist() == [2 * pad, 2 * pad, int(flip)]
    assert kinds == 1 or stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_views_repeat_with_their_generator_and_spare_the_global_one():
    before = torch.get_rng_state()
    first, second = (draw_views(9, 4, True, torch.Generator().manual_seed(5)) for _ in "ab")
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)

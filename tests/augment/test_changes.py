"""What each augmentation does, worked out by hand, and how its draws are distributed."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from advkit.augment import autoaugment, crop_flip, cropshift, cutmix, cutout, idbh
from advkit.augment import none as plain
from advkit.errors import UsageError

N = 20_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grid(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def uniform(values: torch.Tensor, count: int) -> bool:
    """Whether whole numbers fit the uniform distribution over 0..count − 1: p over 0.001."""
    counts = torch.bincount(values.long(), minlength=count)
    return len(counts) == count and stats.chisquare(counts.numpy()).pvalue > 1e-3


NINE = grid([1, 2, 3], [4, 5, 6], [7, 8, 9])


def test_crop_flip_draws_views():
    rows = crop_flip.draw(N, (3, 8, 8), generator=generator(), pad=1, flip=True)
    assert rows.dtype == torch.uint8
    assert uniform(rows[:, 0].long() * 6 + rows[:, 1].long() * 2 + rows[:, 2].long(), 18)
    shifted = crop_flip.apply(NINE, torch.tensor([[0, 2, 1]], dtype=torch.uint8), pad=1)
    assert torch.equal(shifted, grid([0, 0, 0], [0, 3, 2], [0, 6, 5]))


def test_none_draws_the_plain_view():
    rows = plain.draw(2, (1, 3, 3), pad=2)
    assert rows.tolist() == [[2, 2, 0]] * 2
    assert torch.equal(plain.apply(NINE, rows[:1]), NINE)
    assert torch.equal(crop_flip.apply(NINE, rows[:1], pad=2), NINE)


@pytest.mark.parametrize(
    ("centre", "hole", "expected"),
    [
        ([1, 1], 1, grid([1, 2, 3], [4, 0, 6], [7, 8, 9])),
        ([1, 1], 2, grid([0, 0, 3], [0, 0, 6], [7, 8, 9])),
        ([0, 2], 3, grid([1, 0, 0], [4, 0, 0], [7, 8, 9])),  # half of it lies outside
        ([2, 0], None, grid([1, 2, 3], [4, 5, 6], [0, 8, 9])),  # half of 3 is 1
        ([1, 1], 9, grid([0] * 3, [0] * 3, [0] * 3)),
    ],
)
def test_cutout_blackens_a_square(centre, hole, expected):
    assert torch.equal(cutout.apply(NINE, torch.tensor([centre]), hole=hole), expected)


def test_cutout_centres_are_uniform_over_the_pixels():
    rows = cutout.draw(N, (1, 3, 5), generator=generator())
    assert uniform(rows[:, 0] * 5 + rows[:, 1], 15)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 0, 0, 0, 0, 0, 0], NINE),
        ([1, 0, 0, 0, 0, 0, 0], grid([3, 2, 1], [6, 5, 4], [9, 8, 7])),
        # The lower two rows and the right column, put at the top and in the middle.
        ([0, 1, 2, 1, 2, 0, 1], grid([0, 6, 0], [0, 9, 0], [0, 0, 0])),
        # One row lost: the upper two of the flipped image go down.
        ([1, 1, 0, 0, 0, 1, 0], grid([0, 0, 0], [3, 2, 1], [6, 5, 4])),
    ],
)
def test_cropshift_puts_a_part_elsewhere(row, expected):
    assert torch.equal(cropshift.apply(NINE, torch.tensor([row])), expected)


def test_cropshift_draws_as_the_paper_says():
    rows = cropshift.draw(N, (3, 32, 32), generator=generator(), flip=True)
    flipped, lost_rows, lost_columns, *places = rows.unbind(1)
    strength = lost_rows + lost_columns
    assert uniform(flipped, 2)
    assert uniform(strength, 11)
    assert uniform(lost_columns[strength == 7], 8)
    for place, lost in zip(places, (lost_rows, lost_columns) * 2, strict=True):
        assert bool(((place >= 0) & (place <= lost)).all())
        assert uniform(place[lost == 3], 4)
    narrow = cropshift.draw(
        N, (1, 8, 8), generator=generator(), flip=False, shift_least=2, shift_most=4
    )
    assert uniform(narrow[:, 1] + narrow[:, 2] - 2, 3)


def test_autoaugment_is_torchvisions_operations():
    """The first pair of CIFAR-10's policy: invert with chance 0.1, contrast 6 with chance 0.2."""
    images = torch.tensor([[[[0, 100], [200, 255]]]], dtype=torch.uint8)
    nothing = torch.tensor([[0, 0.9, 0.9, 0, 0]], dtype=torch.float64)
    assert torch.equal(autoaugment.apply(images, nothing), images)
    inverted = torch.tensor([[0, 0.05, 0.9, 0, 0]], dtype=torch.float64)
    assert autoaugment.apply(images, inverted).flatten().tolist() == [255, 155, 55, 0]


@pytest.mark.parametrize("policy", ["cifar10", "svhn", "imagenet"])
def test_a_policy_has_the_pairs_that_are_drawn(policy):
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    assert len(AutoAugment(AutoAugmentPolicy(policy)).policies) == autoaugment._PAIRS


def test_autoaugment_draws_pairs_chances_and_signs():
    pair, *chances, one, other = autoaugment.draw(N, (3, 8, 8), generator=generator()).unbind(1)
    assert uniform(pair, 25)
    assert uniform(one * 2 + other, 4)
    assert all(stats.kstest(chance.numpy(), "uniform").pvalue > 1e-3 for chance in chances)


CHANGED = torch.tensor([[[[10, 20], [30, 40]]] * 3], dtype=torch.uint8)


def idbh_row(kind: int, strength: float, axis: int = 0, hole=(0, 0, 0, 0)) -> torch.Tensor:
    return torch.tensor([[0.0] * 7 + [kind, strength, axis, *hole]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (idbh_row(0, 0.3), [10, 20, 30, 40]),  # grey has no saturation to change
        (idbh_row(1, 0.5), [5, 10, 15, 20]),
        (idbh_row(1, 1.9), [19, 38, 57, 76]),
        (idbh_row(2, 0.5), [17, 22, 27, 32]),  # half-way to the mean of 25
        (idbh_row(4, 0.0), [0, 85, 170, 255]),
        (idbh_row(1, 1.0, hole=(0, 1, 1, 1)), [10, 0, 30, 40]),
        (idbh_row(1, 1.0, hole=(1, 0, 1, 1)), [10, 20, 0, 40]),
    ],
)
def test_idbh_changes_colour_and_erases(row, expected):
    changed = idbh.apply(CHANGED, row)[0].flatten(1).int()
    # Torchvision cuts what it computes in float32 to whole numbers: one level below is right.
    below = torch.tensor(expected) - changed
    assert bool(((below == 0) | (below == 1)).all())


def test_idbh_shears_and_turns_about_the_middle():
    """A shear by 45° moves the rows of three by −1, 0, 1; what comes in is black."""
    sheared = idbh.apply(NINE, idbh_row(6, torch.pi / 4))
    rows = sorted(row.tolist() for row in sheared[0, 0])
    assert [4, 5, 6] in rows
    assert sum(0 in row for row in rows) == 2
    turned = idbh.apply(NINE, idbh_row(7, 90))
    assert torch.equal(turned, grid([3, 6, 9], [2, 5, 8], [1, 4, 7]))


@pytest.mark.parametrize("changes", ["color", "shape"])
def test_idbh_draws_kinds_by_their_chances(changes):
    rows = idbh.draw(N, (3, 32, 32), generator=generator(), flip=True, changes=changes)
    kind, strength, axis = rows[:, 7:10].unbind(1)
    counts = torch.bincount(kind.long(), minlength=8).numpy()
    published = {
        "color": [1 / 8] * 8,
        "shape": [0.08, 0.08, 0.04, 0.08, 0.04, 0.08, 0.3, 0.3],
    }[changes]
    expected = torch.tensor(published, dtype=torch.float64) * N
    assert stats.chisquare(counts, expected.numpy()).pvalue > 1e-3
    most = {"color": (0.15, 10), "shape": (0.35, 30)}[changes]
    shear, turn = strength[kind == 6], strength[kind == 7]
    assert uniform(axis[kind == 6], 2)
    assert uniform(shear > 0, 2)
    width = most[0] - 0.05
    assert stats.kstest(((shear.abs() - 0.05) / width).numpy(), "uniform").pvalue > 1e-3
    assert uniform(turn.abs() - 1, most[1])
    assert uniform(turn > 0, 2)
    for number, least in enumerate((0.1, 0.5, 0.5, 0.1)):
        share = (strength[kind == number] - least) / (1.9 - least)
        assert stats.kstest(share.numpy(), "uniform").pvalue > 1e-3
    assert uniform(rows[:, 1] + rows[:, 2], {"color": 11, "shape": 9}[changes])


@pytest.mark.parametrize(("erasing", "chance"), [("weak", 0.5), ("strong", 1.0)])
@pytest.mark.parametrize(("changes", "most"), [("color", 0.33), ("shape", 0.5)])
def test_idbh_erases_as_often_and_as_much_as_published(erasing, chance, changes, most):
    rows = idbh.draw(
        N, (3, 32, 32), generator=generator(), flip=True, changes=changes, erasing=erasing
    )
    top, left, tall, wide = rows[:, 10:].unbind(1)
    erased = tall > 0
    if chance == 1:
        assert bool(erased.all())
    else:
        assert stats.binomtest(int(erased.sum()), N, chance).pvalue > 1e-3
    area = (tall * wide)[erased] / 1024
    # Sides are rounded to whole pixels, by half a pixel each.
    slack = 0.5 * (tall + wide)[erased] / 1024 + 1e-3
    assert bool((area > 0.02 - slack).all())
    assert bool((area < most + slack).all())
    assert bool((tall < 32).all() and (wide < 32).all())
    assert bool(((top + tall <= 32) & (left + wide <= 32) & (top >= 0) & (left >= 0)).all())


def test_cutmix_takes_a_box_of_the_partner():
    images = torch.cat([NINE, NINE * 10])
    rows = torch.tensor([[1, 0, 1, 2, 2], [0, 1, 1, 0, 0]])
    changed = cutmix.apply(images, rows)
    assert torch.equal(changed[:1], grid([1, 20, 30], [4, 50, 60], [7, 8, 9]))
    assert torch.equal(changed[1:], images[1:])
    partner, weight = cutmix.mixed(rows, (1, 3, 3))
    assert partner.tolist() == [1, 0]
    assert weight.tolist() == [1 - 4 / 9, 1.0]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_cutmix_boxes_have_the_area_of_a_beta(alpha):
    side = 1000  # so that whole pixels are as good as real numbers
    rows = cutmix.draw(2000, (1, side, side), generator=generator(), mix_alpha=alpha)
    partner, y, x, tall, wide = rows.unbind(1)
    assert sorted(partner.tolist()) == list(range(2000))
    assert torch.equal(tall, wide)
    kept = 1 - (tall * wide).double() / side**2
    assert stats.kstest(kept.numpy(), "beta", args=(alpha, alpha)).pvalue > 1e-3
    assert bool(((y >= 0) & (x >= 0) & (y + tall <= side) & (x + wide <= side)).all())


def test_cutmix_window_is_fixed_and_lies_at_each_place_alike():
    rows = cutmix.draw(N, (3, 32, 32), generator=generator(), mix_window=20)
    assert set(rows[:, 3:].flatten().tolist()) == {20}
    assert uniform(rows[:, 1], 13)
    assert uniform(rows[:, 2], 13)
    with pytest.raises(UsageError, match=r"--mix-window 33: the images have 32 × 32 pixels"):
        cutmix.draw(0, (3, 32, 32), generator=generator(), mix_window=33)

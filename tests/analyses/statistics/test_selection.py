"""Risk, coverage and AURC: by hand, and against a count over every order of the ties."""

import itertools

import numpy as np
import pytest

from advkit.analyses.statistics.selection import area, least_area, resampled_area, risks, tied


def plain(wrong):
    """Risks of answers in the order of their confidence: cumulative counts."""
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


def test_by_hand():
    """Answers .9 right, .8 wrong, .7 right, .6 wrong: risks 0, 1/2, 1/3, 1/2."""
    groups = tied([0.7, 0.9, 0.6, 0.8], [0, 0, 1, 1])
    assert groups[0].tolist() == [0.9, 0.8, 0.7, 0.6]
    assert risks(*groups[1:]) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert area(*groups[1:]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # The wrong ones last: 0, 0, 1/3, 1/2.
    assert least_area(4, 2) == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_ties_are_the_mean_over_their_orders():
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2])
    wrong = np.array([1, 0, 1, 0, 1, 1, 0])
    curves = [
        plain(wrong[[0, *four, *two]])
        for four in itertools.permutations([1, 2, 3, 4])
        for two in itertools.permutations([5, 6])
    ]
    _, count, errors = tied(confidence, wrong)
    assert risks(count, errors) == pytest.approx(np.mean(curves, axis=0))
    assert area(count, errors) == pytest.approx(np.mean(curves))


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_it_is_the_plain_mean_of_risks(seed):
    rng = np.random.default_rng(seed)
    confidence, wrong = rng.random(200), rng.random(200) < 0.3
    expected = plain(wrong[np.argsort(-confidence)])
    _, count, errors = tied(confidence, wrong)
    assert risks(count, errors) == pytest.approx(expected)
    assert area(count, errors) == pytest.approx(expected.mean())
    assert least_area(200, int(wrong.sum())) == pytest.approx(plain(np.sort(wrong)).mean())


@pytest.mark.parametrize(("wrong", "expected"), [([0, 0, 0], 0), ([1, 1, 1], 1)])
def test_all_right_and_all_wrong(wrong, expected):
    _, count, errors = tied([0.5, 0.5, 0.9], wrong)
    assert area(count, errors) == expected
    assert least_area(3, sum(wrong)) == expected


def test_one_confidence_is_the_share_wrong():
    _, count, errors = tied([0.5] * 8, [1, 0, 0, 0, 1, 0, 0, 0])
    assert area(count, errors) == pytest.approx(0.25)


def test_groups_may_be_empty():
    """As they are where a resample misses them."""
    assert area(np.array([1, 0, 2]), np.array([0, 0, 1])) == area(
        np.array([1, 2]), np.array([0, 1])
    )


def test_resamples_are_those_of_plain_rows():
    """The spread over resamples, against resampling rows and counting them one by one."""
    rng = np.random.default_rng(0)
    confidence, wrong = rng.random(60).round(1), rng.random(60) < 0.4
    drawn = resampled_area(confidence, wrong, np.random.default_rng(1), 2000)
    rows = np.random.default_rng(2).integers(60, size=(2000, 60))
    slow = [area(*tied(confidence[row], wrong[row])[1:]) for row in rows]
    assert drawn.mean() == pytest.approx(np.mean(slow), abs=4 * np.std(slow) * (2 / 2000) ** 0.5)
    assert drawn.std() == pytest.approx(np.std(slow), rel=0.15)
    shuffled = rng.permutation(60)
    again = resampled_area(confidence[shuffled], wrong[shuffled], np.random.default_rng(1), 2000)
    assert (again == drawn).all()

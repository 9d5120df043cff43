"""Annealing and learning rates: hand-worked values and properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advkit.errors import UsageError
from advkit.formulas.schedules import (
    CYCLED,
    PEAKS,
    SHAPES,
    anneal,
    learning_rate,
    one_cycle,
    parse_span,
)

VALUE = st.floats(-10, 10)


@pytest.mark.parametrize(
    ("text", "span"), [("2.5:2.0", (2.5, 2.0)), ("0.7", (0.7, 0.7)), ("1:1e-1", (1, 0.1))]
)
def test_spans(text, span):
    assert parse_span(text) == span


@given(VALUE, VALUE)
def test_spans_read_back_what_was_written(start, end):
    assert parse_span(f"{start!r}:{end!r}") == (start, end)


@pytest.mark.parametrize("text", ["", ":", "1:", "a:b", "1:2:3", "nan", "1:inf", "2.5-2.0"])
def test_other_spans_are_refused(text):
    with pytest.raises(UsageError, match="is not a range: write START:END"):
        parse_span(text)


@pytest.mark.parametrize(
    ("shape", "quarter", "half", "three_quarters"),
    [
        # cosine: 2 + ¼(1 + cos(π·p)), by hand at 45°, 90° and 135°
        ("cosine", 2 + (1 + math.sqrt(0.5)) / 4, 2.25, 2 + (1 - math.sqrt(0.5)) / 4),
        ("linear", 2.375, 2.25, 2.125),
        ("step", 2.5, 2.0, 2.0),
        ("constant", 2.5, 2.5, 2.5),
    ],
)
def test_annealing_by_hand(shape, quarter, half, three_quarters):
    found = [anneal(2.5, 2.0, progress, shape) for progress in (0, 0.25, 0.5, 0.75)]
    assert found == pytest.approx([2.5, quarter, half, three_quarters], rel=1e-15)


@given(VALUE, VALUE, st.lists(st.floats(0, 1, exclude_max=True)), st.sampled_from(SHAPES))
def test_annealing_goes_one_way_between_its_ends(start, end, times, shape):
    values = [anneal(start, end, progress, shape) for progress in sorted(times)]
    ordered = values if start <= end else values[::-1]
    for first, second in itertools.pairwise(ordered):
        assert first <= second + 1e-12
    assert all(min(start, end) - 1e-12 <= value <= max(start, end) + 1e-12 for value in values)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_annealing_ends_at_its_end_in_the_limit(shape):
    assert anneal(2.5, 2.0, 1 - 1e-9, shape) == pytest.approx(2.0, abs=1e-8)


def test_multistep_divides_by_ten_from_the_first_step_of_a_drop():
    rates = [learning_rate("multistep", 0.1, t, 3, 8, (2, 5)) for t in (0, 5, 6, 14, 15, 23)]
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]


def test_multistep_at_the_papers_drops():
    at = {epoch: learning_rate("multistep", 0.1, epoch * 7, 7, 200, (100, 150)) for epoch in
          (0, 99, 100, 149, 150, 199)}  # fmt: skip
    assert at == {0: 0.1, 99: 0.1, 100: 0.01, 149: 0.01, 150: 0.001, 199: 0.001}


def test_cosine_rate_by_hand():
    rates = [learning_rate("cosine", 0.2, t, 4, 3, ()) for t in (0, 3, 6, 9)]
    half = 0.1 * math.sqrt(0.5)
    assert rates == pytest.approx([0.2, 0.1 + half, 0.1, 0.1 - half])


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: anneal(1, 0, 0.5, "cosin"), "unknown annealing shape 'cosin'.*'cosine'"),
        (lambda: learning_rate("step", 0.1, 0, 1, 1, ()), "unknown learning-rate schedule 'step'"),
    ],
)
def test_unknown_shapes_are_refused(call, what):
    with pytest.raises(UsageError, match=what):
        call()


def theirs(total, peak, lr):
    """Return rate and momentum of each step of PyTorch's OneCycleLR."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, pct_start=peak, total_steps=total
    )
    told = []
    for _ in range(total):
        told.append([optimizer.param_groups[0][key] for key in ("lr", "momentum")])
        optimizer.step()
        schedule.step()
    return np.array(told).T


@pytest.mark.parametrize(("epochs", "steps", "peak"), [(50, 4, 0.25), (400, 1, 0.025), (3, 7, 0.3)])
def test_one_cycle_is_pytorch_s(epochs, steps, peak):
    total = epochs * steps
    expected = theirs(total, peak, 0.21)
    given = None if peak == PEAKS["onecycle"] else peak
    found = [
        learning_rate("onecycle", 0.21, t, steps, epochs, (), 5, peak=given) for t in range(total)
    ]
    np.testing.assert_allclose(found, expected[0], rtol=1e-12)
    high, low = CYCLED
    found = [one_cycle(high, low, high, t, total, peak) for t in range(total)]
    np.testing.assert_allclose(found, expected[1], rtol=1e-12)


def test_a_held_one_cycle_is_pytorch_s_moved_once_an_epoch():
    """SCORE's code steps its schedule of 400 steps after each of 98 iterations."""
    expected = theirs(400, 0.025, 0.2)[0]
    found = [learning_rate("onecycle", 0.2, t, 318, 123, (), peak=0.025, hold=98)
             for t in range(123 * 318)]  # fmt: skip
    np.testing.assert_allclose(found, expected.repeat(98)[: len(found)], rtol=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("peak", [1e-6, 0.3, 0.5, 0.999999])
def test_a_short_one_cycle_stays_in_its_bounds(total, peak):
    for t in range(total):
        assert 0 < learning_rate("onecycle", 0.1, t, 1, total, (), peak=peak) <= 0.1


@pytest.mark.parametrize("peak", [None, 0.4])
def test_triangular_goes_up_to_its_peak_and_down(peak):
    at = 0.5 if peak is None else peak
    found = [learning_rate("triangular", 0.3, t, 10, 3, (), peak=peak) for t in range(30)]
    np.testing.assert_allclose(
        found, np.interp(range(30), [0, at * 30, 30], [0, 0.3, 0]), atol=1e-15
    )


def test_a_held_cosine_moves_by_its_hold():
    found = [learning_rate("cosine", 1.0, t, 3, 2, (), hold=2) for t in range(6)]
    assert found == pytest.approx([1, 1, 0.75, 0.75, 0.25, 0.25])

"""Schedules against the published values of a 200-epoch run of 390 iterations an epoch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advkit.errors import UsageError
from advkit.formulas.schedules import anneal, learning_rate, parse_span

STEPS, EPOCHS = 390, 200
N = STEPS * EPOCHS

GOLDEN = [
    (0, 2.5, 0.7),
    (19_500, 2.4267767, 0.73661165),
    (39_000, 2.25, 0.825),
    (58_500, 2.0732233, 0.91338835),
]
"""Iteration, τ from 2.5 to 2.0, λ from 0.7 to 0.95."""


@pytest.mark.parametrize(("t", "tau", "lam"), GOLDEN)
def test_golden(t, tau, lam):
    assert anneal(2.5, 2.0, t / N) == pytest.approx(tau, abs=5e-8)
    assert anneal(0.7, 0.95, t / N) == pytest.approx(lam, abs=5e-9)


def test_end_is_only_the_limit():
    last = anneal(2.5, 2.0, (N - 1) / N)
    assert 2.0 < last < 2.0 + 1e-6


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("linear", (1.0, 1.5, 2.0, 2.5)),
        ("step", (1.0, 1.0, 3.0, 3.0)),
        ("constant", (1.0, 1.0, 1.0, 1.0)),
    ],
)
def test_other_shapes(shape, values):
    found = [anneal(1.0, 3.0, t / 4, shape) for t in range(4)]
    assert found == pytest.approx(values)


def test_unknown_shape():
    with pytest.raises(UsageError, match="did you mean 'cosine'"):
        anneal(1.0, 0.0, 0.5, "cosinus")


@given(st.floats(-9, 9), st.floats(-9, 9), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_cosine_is_monotone_between_its_ends(start, end, places):
    early, late = (anneal(start, end, place) for place in sorted(places))
    low, high = sorted((start, end))
    assert low - 1e-9 <= min(early, late)
    assert max(early, late) <= high + 1e-9
    assert (late - early) * (end - start) >= -1e-9


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.1), (99, 0.1), (100, 0.01), (149, 0.01), (150, 0.001), (199, 0.001)],
)
def test_rate_drops_with_its_epoch(epoch, rate):
    for step in (0, STEPS - 1):
        found = learning_rate("multistep", 0.1, epoch * STEPS + step, STEPS, EPOCHS, (100, 150))
        assert found == rate


def test_rate_without_drops():
    assert learning_rate("multistep", 0.1, N - 1, STEPS, EPOCHS, ()) == 0.1


@pytest.mark.parametrize(("t", "share"), [(0, 1), (N // 2, 0.5), (N // 3, 0.75)])
def test_cosine_rate(t, share):
    found = learning_rate("cosine", 0.4, t, STEPS, EPOCHS, (100, 150))
    assert found == pytest.approx(0.4 * share)


def test_unknown_rate_schedule():
    with pytest.raises(UsageError, match="multistep"):
        learning_rate("cyclic?", 0.1, 0, 1, 1, ())


@pytest.mark.parametrize(
    ("text", "span"),
    [("2.5:2.0", (2.5, 2.0)), ("0.7", (0.7, 0.7)), (" 1 : 2 ", (1, 2)), ("-1:1e2", (-1, 100))],
)
def test_span(text, span):
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", ":", "1:", "1:2:3", "a:b", "nan", "inf:1", "1,2"])
def test_not_a_span(text):
    with pytest.raises(UsageError, match="START:END"):
        parse_span(text)


def test_anneal_in_closed_form():
    assert anneal(1.0, 0.0, 0.1) == pytest.approx(math.cos(math.pi * 0.05) ** 2)

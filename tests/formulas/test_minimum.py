"""The least value between two ends: what scipy finds, and edges worked by hand."""

import math

import pytest
from scipy.optimize import minimize_scalar

from advkit.formulas.minimum import bounded

CURVES = {
    "a parabola": (lambda x: (x - 0.3) ** 2 + 1, -2.0, 3.0),
    "a steep valley": (lambda x: math.cosh(20 * (x - 0.11)), -3.0, 3.0),
    "a flat valley": (lambda x: (x - 1) ** 8, -3.0, 4.0),
    "a corner": (lambda x: abs(x - 0.7), -1.0, 1.0),
    "the loss of a temperature": (lambda t: math.log1p(math.exp(-2 / math.exp(t))) * 9
                                  + math.log1p(math.exp(3 / math.exp(t))), -4.0, 5.0),
    "falling": (lambda x: -x, 0.0, 2.0),
    "rising": (lambda x: x, -1.0, 2.0),
    "level": (lambda x: 1.0, -1.0, 2.0),
    "a minimum at 0": (lambda x: x * x, -1.0, 1.5),
    "two valleys": (lambda x: math.sin(3 * x) + x / 9, 0.0, 6.0),
}  # fmt: skip


@pytest.mark.parametrize("near", [1e-6, 1e-3])
@pytest.mark.parametrize("curve", CURVES)
def test_the_same_points_are_asked_as_scipy_asks(curve, near):
    function, low, high = CURVES[curve]
    mine, theirs = [], []
    least = bounded(lambda x: mine.append(x) or function(x), low, high, near)
    options = {"xatol": near}
    expected = minimize_scalar(
        lambda x: theirs.append(x) or function(x), bounds=(low, high), method="bounded",
        options=options,
    )  # fmt: skip
    assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert least == pytest.approx(expected.x, rel=1e-9, abs=1e-12)


def test_a_parabola_is_met_at_once():
    asked = []
    assert bounded(lambda x: asked.append(x) or (x - 2) ** 2, 0, 5, 1e-6) == pytest.approx(2)
    assert len(asked) < 10


def test_ends_are_never_asked():
    asked = []
    bounded(lambda x: asked.append(x) or x, -1, 1, 1e-6)
    assert -1 < min(asked) < -0.99999
    assert max(asked) < 1


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (math.nan, 1)])
def test_an_interval_has_a_length(ends):
    with pytest.raises(ValueError, match="no interval"):
        bounded(lambda x: x, *ends, 1e-6)

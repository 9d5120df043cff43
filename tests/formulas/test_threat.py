"""The norm ball and the pixel box: parsing, starts, steps, projections."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advkit.errors import UsageError
from advkit.formulas.threat import (
    NORMS,
    SLACK,
    STARTS,
    Threat,
    number,
    parse_eps,
    require_step,
    step_size,
)

SEEDS = st.integers(0, 2**32 - 1)
NORM = st.sampled_from(NORMS)
RADIUS = st.one_of(st.just(0.0), st.floats(1e-4, 1.0))


def images(seed: int, spread: float = 0.0) -> torch.Tensor:
    """Three images in the box, moved by normal noise of a spread."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 2, 4, 4, generator=draw)
    return x + spread * torch.randn(x.shape, generator=draw)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.031", 0.031), (" 1/4 ", 0.25), ("1e-3", 1e-3), (0.5, 0.5), ("-2", -2)],
)
def test_numbers_are_decimals_or_fractions(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "eight", "8/0", "8//255", "nan", "inf", "1,5", "1e400"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(UsageError, match=r"is not a number: write 0\.031 or 8/255"):
        number(text)


def test_a_number_that_would_be_taken_for_0_is_refused():
    with pytest.raises(UsageError, match="eps 1e-400 is too near to 0"):
        number("1e-400", "eps")
    assert [number(text) for text in ("0", "0.00", "0e9", "-0", "0/255")] == [0] * 5


def test_eps_in_255ths_is_recognised():
    with pytest.raises(UsageError, match=r"did you mean 8/255\?"):
        parse_eps("8", "linf")
    assert parse_eps("8", "l2") == 8
    assert parse_eps("1", "linf") == 1


def test_negative_eps_is_refused():
    with pytest.raises(UsageError, match="eps -1/255 is negative"):
        parse_eps("-1/255")


def test_unknown_norm_is_refused():
    with pytest.raises(UsageError, match=r"unknown norm 'l7': one of linf, l2, l1"):
        Threat("l7", 0.1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("eps", 0.2), ("eps/4", 0.05), ("2.5*eps/10", 0.05), (" 0.5 * eps ", 0.1), ("1/255", 1 / 255)],
)
def test_step_sizes_are_numbers_or_shares_of_eps(text, value):
    assert step_size(text, 0.2) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["eps/0", "1.2.3*eps", "eps*2", "eps/", "2eps", "./eps", "x"])
def test_other_step_sizes_are_refused(text):
    with pytest.raises(UsageError, match="not a"):
        step_size(text, 0.2)


@pytest.mark.parametrize(("norm", "eps"), [("linf", "8"), ("l2", "128"), ("l1", "2000")])
def test_radii_in_0_to_255_are_refused(norm, eps):
    with pytest.raises(UsageError, match=rf"eps {eps} \({norm}\) .* did you mean {eps}/255\?"):
        parse_eps(eps, norm)
    assert parse_eps(f"{eps}/255", norm) == pytest.approx(float(eps) / 255)
    assert parse_eps(eps, None) == float(eps)


@pytest.mark.parametrize(("text", "norm"), [("300/255", "linf"), ("9000/255", "l2")])
def test_nobody_is_asked_whether_a_number_was_meant_that_is_no_pixel_value(text, norm):
    with pytest.raises(UsageError, match=r"is not in pixel space \[0, 1\]$"):
        parse_eps(text, norm)


@pytest.mark.parametrize("eps", [8 / 255, 0.5])
def test_steps_in_0_to_255_are_refused(eps):
    with pytest.raises(UsageError, match=r"step size 2 is wider .* did you mean 2/255\?"):
        require_step("2", eps)
    require_step("2/255", eps)
    require_step("4*eps", eps)  # a share says what it is
    require_step("2", 0)  # a ball of one point: no step leads anywhere


@given(SEEDS, NORM, RADIUS, st.floats(0, 3))
def test_projection_lands_in_ball_and_box_and_stays(seed, norm, eps, spread):
    threat, x, far = Threat(norm, eps), images(seed), images(seed, spread)
    near = threat.project(far, x)
    assert threat.distance(near, x).max() <= eps + SLACK
    assert near.min() >= 0
    assert near.max() <= 1
    torch.testing.assert_close(threat.project(near, x), near, atol=1e-6, rtol=0)


@given(SEEDS, NORM, st.floats(0.01, 1.0))
def test_projection_leaves_inner_points_alone(seed, norm, eps):
    threat, x = Threat(norm, eps), images(seed).mul(0.5).add(0.25)
    inside = x + 0.2 * min(eps, 1) * (images(seed + 1) - 0.5) / math.sqrt(32)
    torch.testing.assert_close(threat.project(inside, x), inside, atol=1e-6, rtol=0)


@given(SEEDS, NORM, st.floats(0.01, 1.0))
def test_no_random_point_of_the_ball_is_nearer_than_the_projection(seed, norm, eps):
    threat, x, far = Threat(norm, eps), images(seed) * 0 + 0.5, images(seed, 1.0)
    generator = torch.Generator().manual_seed(seed)
    ball_only = Threat(norm, min(eps, 0.4))  # the box does not bind, so this is a projection
    best = (ball_only.project(far, x) - far).flatten(1).norm(dim=1)
    for _ in range(5):
        other = ball_only.start(x, "uniform", generator)
        assert bool(((other - far).flatten(1).norm(dim=1) >= best - 1e-5).all())
    assert threat.project(far, x).shape == far.shape


def test_projections_by_hand():
    x = torch.full((1, 1, 1, 2), 0.5)
    far = x + torch.tensor([0.3, -0.4])
    box = Threat("linf", 0.1).project(far, x).flatten().tolist()
    ball = Threat("l2", 0.25).project(far, x).flatten().tolist()
    assert box == pytest.approx([0.6, 0.4])
    assert ball == pytest.approx([0.65, 0.3])


def test_steps_by_hand():
    x = torch.zeros(1, 1, 1, 2)
    gradient = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    assert Threat("linf", 1).step(x, gradient, 0.5).flatten().tolist() == [0.5, -0.5]
    assert Threat("l2", 1).step(x, gradient, 0.5).flatten().tolist() == pytest.approx([0.3, -0.4])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-12, 1e6, 1e30])
def test_a_step_does_not_depend_on_the_gradients_size(norm, scale):
    x, gradient = images(0), images(1, 1.0)
    expected = Threat(norm, 1).step(x, gradient, 0.5)
    found = Threat(norm, 1).step(x, gradient * scale, 0.5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_l2_step_is_the_gradient_over_its_norm_to_the_bit():
    x, gradient = images(0), images(1, 1.0)
    unit = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.equal(Threat("l2", 1).step(x, gradient, 0.5), x + 0.5 * unit)


@pytest.mark.parametrize("eps", [1e-30, 1e-14, 1e-6])
def test_a_tiny_ball_keeps_its_radius(eps):
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    near = Threat("l2", eps).project(x + torch.tensor([3.0, 4.0], dtype=torch.float64) * eps, x)
    torch.testing.assert_close(near.flatten() / eps, torch.tensor([0.6, 0.8], dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_moves_nothing(norm):
    x = images(0)
    assert torch.equal(Threat(norm, 1).step(x, torch.zeros_like(x), 0.5), x)


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2)])
def test_distance_is_numpys_norm(norm, order):
    x, y = images(0), images(1)
    flat = (y - x).flatten(1).numpy()
    expected = np.linalg.norm(flat, order, axis=1)
    np.testing.assert_allclose(Threat(norm, 1).distance(y, x), expected, rtol=1e-6)


@given(SEEDS, NORM, RADIUS, st.sampled_from(STARTS))
def test_every_start_is_in_ball_and_box_and_repeatable(seed, norm, eps, kind):
    threat, x = Threat(norm, eps), images(seed)
    first, second = (threat.start(x, kind, torch.Generator().manual_seed(seed)) for _ in "ab")
    assert torch.equal(first, second)
    assert threat.distance(first, x).max() <= eps + SLACK
    assert first.min() >= 0
    assert first.max() <= 1


def test_start_none_is_a_copy():
    x = images(0)
    start = Threat("linf", 0.1).start(x, "none", None)
    assert torch.equal(start, x)
    assert start.data_ptr() != x.data_ptr()


def spread_of(norm: str, kind: str, eps: float = 0.2) -> torch.Tensor:
    x = torch.full((2000, 1, 4, 4), 0.5)
    return Threat(norm, eps).start(x, kind, torch.Generator().manual_seed(0)) - x


def test_starts_have_their_distributions():
    from scipy import stats

    def fits(sample, law):
        return stats.kstest(sample.flatten().double().numpy(), law.cdf).pvalue > 1e-3

    assert fits(spread_of("linf", "uniform"), stats.uniform(-0.2, 0.4))
    assert fits(spread_of("l2", "uniform").flatten(1).norm(dim=1), stats.uniform(0, 0.2))
    # float32 around 0.5 has steps of 6e-8, far below 0.001
    assert fits(spread_of("linf", "normal"), stats.norm(0, 0.001))
    assert fits(spread_of("linf", "positive"), stats.uniform(0, 0.001))


def test_an_unknown_start_is_refused():
    with pytest.raises(UsageError, match="unknown attack start 'gauss': one of uniform"):
        Threat("linf", 0.1).start(images(0), "gauss", None)


def test_random_starts_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    Threat("l2", 0.1).start(images(0), "uniform", torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["uniform", "normal", "positive"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_start_that_is_not_clipped_is_the_image_and_the_noise(norm, kind):
    """Clipped, the same noise ends at the box."""
    threat, inside = Threat(norm, 0.05), torch.full((3, 2, 4, 4), 0.5, dtype=torch.float64)
    edges = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(3, 2, 4, 2)
    noise = threat.start(inside, kind, torch.Generator().manual_seed(0)) - inside
    free = threat.start(edges, kind, torch.Generator().manual_seed(0), clip=False)
    torch.testing.assert_close(free, edges + noise, rtol=0, atol=1e-15)
    assert (free > 1).any()
    clipped = threat.start(edges, kind, torch.Generator().manual_seed(0))
    assert float(clipped.min()) >= 0
    assert float(clipped.max()) <= 1

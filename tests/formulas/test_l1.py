"""The l1 ball in the box against a general-purpose solver and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from advkit.formulas import l1
from advkit.formulas.threat import Threat


def solved(far: np.ndarray, x: np.ndarray, eps: float) -> np.ndarray:
    """The projection by SLSQP, with δ split into its positive and negative part."""
    n, d = len(x), far - x
    found = minimize(
        lambda v: ((v[:n] - v[n:] - d) ** 2).sum(),
        np.zeros(2 * n),
        jac=lambda v: np.concatenate([2 * (v[:n] - v[n:] - d), -2 * (v[:n] - v[n:] - d)]),
        bounds=[*((0, 1 - a) for a in x), *((0, a) for a in x)],
        constraints={
            "type": "ineq",
            "fun": lambda v: eps - v.sum(),
            "jac": lambda v: -np.ones_like(v),
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    return x + found.x[:n] - found.x[n:]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.05, 3), st.sampled_from([0.1, 0.5, 2.0]))
def test_the_projection_is_the_nearest_point_of_ball_and_box(seed, eps, spread):
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 1, 2, 3, generator=draw, dtype=torch.float64)
    x[0, 0, 0, 0], x[0, 0, 1, 1] = 0.0, 1.0
    far = x + spread * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    near = l1.project(far, x, eps)
    assert (near - x).abs().sum() <= eps + 1e-9
    other = solved(far.flatten().numpy(), x.flatten().numpy(), eps)
    mine = (near - far).square().sum().sqrt().item()
    theirs = np.linalg.norm(other - far.flatten().numpy())
    assert mine <= theirs + 1e-6  # nobody finds a nearer one, and the solver comes this near
    assert theirs <= mine + 1e-3


def test_the_projection_by_hand():
    # d = (.8, -.3, .1); rooms (.5, .3, .9); ε = .6. θ = .1: min(.5, .7) + .2 + 0 = .7 > .6;
    # θ = .2: .5 + .1 + 0 = .6.
    x = torch.tensor([[[[0.5, 0.3, 0.1]]]], dtype=torch.float64)
    far = x + torch.tensor([0.8, -0.3, 0.1], dtype=torch.float64)
    near = l1.project(far, x, 0.6)
    torch.testing.assert_close((near - x).flatten(), torch.tensor([0.5, -0.1, 0.0]).double())


def test_a_point_inside_stays():
    x = torch.full((2, 1, 3, 3), 0.5)
    inside = x + 0.01
    torch.testing.assert_close(l1.project(inside, x, 1.0), inside)
    torch.testing.assert_close(l1.project(inside, x, 0.0), x)


def test_the_budget_is_used_up_where_there_is_room():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(5, 3, 8, 8, generator=draw)
    near = l1.project(x + torch.randn(x.shape, generator=draw), x, 12.0)
    torch.testing.assert_close((near - x).abs().flatten(1).sum(1), torch.full((5,), 12.0))


def test_a_step_moves_the_steepest_coordinates_that_can_move():
    x = torch.full((1, 1, 10, 20), 0.5)  # 200 coordinates, so a step moves two
    x[0, 0, 0, 0] = 1.0
    slope = torch.zeros_like(x)
    slope[0, 0, 0, 0], slope[0, 0, 0, 1], slope[0, 0, 0, 2], slope[0, 0, 0, 3] = 9.0, -5.0, 4.0, 1.0
    moved = (l1.step(x, slope, 0.2) - x).flatten()
    expected = torch.zeros(200)
    expected[1], expected[2] = -0.1, 0.1
    torch.testing.assert_close(moved, expected)


def test_what_has_no_room_goes_to_the_next_steepest():
    """Two coordinates of 200 move, 0.1 each, but for the room of the first: 0.03."""
    x = torch.full((1, 1, 10, 20), 0.5)
    x[0, 0, 0, :2] = torch.tensor([0.97, 0.2])
    slope = torch.zeros_like(x)
    slope[0, 0, 0, :4] = torch.tensor([9.0, -5.0, 4.0, -1.0])
    moved = (l1.step(x, slope, 0.2) - x).flatten()
    expected = torch.zeros(200)
    expected[:3] = torch.tensor([0.03, -0.1, 0.07])
    torch.testing.assert_close(moved, expected)


def test_no_gradient_no_step():
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(l1.step(x, torch.zeros_like(x), 1.0), x)


def test_starts_fill_the_ball():
    x = torch.full((4000, 1, 2, 2), 0.5)
    threat = Threat("l1", 0.2)
    delta = (threat.start(x, "uniform", torch.Generator().manual_seed(0)) - x).flatten(1)
    radius = delta.abs().sum(1)
    assert radius.max() <= 0.2 + 1e-6
    assert radius.mean() == pytest.approx(0.1, abs=0.003)  # uniform radius
    share = delta.abs()[:, 0] / radius  # of one of four coordinates: Beta(1, 3)
    assert share.mean() == pytest.approx(0.25, abs=0.01)
    assert share.var() == pytest.approx(3 / 80, abs=0.003)

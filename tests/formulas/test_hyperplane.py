"""The least step onto a hyperplane in the box, against linear programs and the package's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyautoattack.fab_projections import projection_linf
from scipy.optimize import linprog

from advkit.formulas import hyperplane


def least(t: np.ndarray, w: np.ndarray, b: float) -> float:
    """Return min λ with |δ| ≤ λ, t + δ in [0, 1] and w·(t + δ) = b, as a linear program."""
    n = len(t)
    ones = np.ones((n, 1))
    result = linprog(
        np.r_[np.zeros(n), 1.0],
        A_ub=np.block([[np.eye(n), -ones], [-np.eye(n), -ones]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.r_[w, 0.0][None],
        b_eq=[b - w @ t],
        bounds=[*zip(-t, 1 - t, strict=True), (0, None)],
    )
    assert result.status == 0
    return float(result.fun)


@pytest.mark.parametrize("seed", range(6))
def test_the_least_of_all_steps(seed):
    rng = np.random.default_rng(seed)
    t, w = rng.random((5, 7)), rng.normal(size=(5, 7))
    t[:, 0], w[:, 1] = 0, 0
    # On the hyperplane of a point of the box, so that it can be reached.
    b = (w * rng.random((5, 7))).sum(1)
    step = hyperplane.step_linf(*map(torch.from_numpy, (t, w, b))).numpy()
    np.testing.assert_allclose((w * (t + step)).sum(1), b, atol=1e-9)
    assert ((t + step >= -1e-12) & (t + step <= 1 + 1e-12)).all()
    wanted = [least(*case) for case in zip(t, w, b, strict=True)]
    np.testing.assert_allclose(np.abs(step).max(1), wanted, atol=1e-9)


def test_by_hand():
    """A gap of 1 over weights 2 and 1: λ = 1/3, but the first pixel has room for 0.1 alone."""
    t, w = torch.tensor([[0.1, 0.9]]), torch.tensor([[2.0, 1.0]])
    step = hyperplane.step_linf(t, w, torch.tensor([0.5]))
    assert torch.allclose(step, torch.tensor([[-0.1, -0.4]]), atol=1e-6)


def test_the_box_ends_before_the_hyperplane():
    t, w = torch.tensor([[0.25, 0.75, 0.5]]), torch.tensor([[1.0, -1.0, 0.0]])
    step = hyperplane.step_linf(t, w, torch.tensor([9.0]))
    assert torch.equal(step, torch.tensor([[0.75, -0.75, 0.0]]))


def test_nothing_to_do():
    t = torch.tensor([[0.25, 0.5], [0.25, 0.5]])
    w = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert not bool(hyperplane.step_linf(t, w, torch.tensor([0.75, 1.0])).any())


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_packages_own_step(scale):
    """At the size of images, with pixels at the box's walls and pixels without weight."""
    rng = torch.Generator().manual_seed(0)
    t, w = torch.rand(12, 3072, generator=rng), torch.randn(12, 3072, generator=rng)
    t[:, ::9], t[:, 1::9], w[:, ::7] = 0, 1, 0
    b = (w * t).sum(1) + scale * torch.randn(12, generator=rng)
    expected = projection_linf(t, w, b)
    assert torch.allclose(hyperplane.step_linf(t, w, b), expected, rtol=1e-4, atol=1e-6)


def test_what_is_no_number_moves_pixels_as_in_the_package():
    """FAB goes on from there: an image of NaN would stay one, and count as robust."""
    t = torch.tensor([[0.25, 0.5, 0.75]] * 4)
    nan, inf = torch.nan, torch.inf
    w = torch.tensor([[1.0, nan, -1.0], [nan] * 3, [1.0, inf, -1.0], [1.0, 0.0, -1.0]])
    b = torch.tensor([0.5, 0.5, inf, nan])
    step = hyperplane.step_linf(t, w, b)
    assert torch.equal(step, projection_linf(t, w, b))
    assert bool(((t + step >= 0) & (t + step <= 1)).all())

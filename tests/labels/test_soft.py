"""LTD's soft labels against scipy's softmax."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from advkit.errors import AdvkitError, UsageError
from advkit.images.batches import Batch
from advkit.labels import Context, soft

Z = np.random.default_rng(0).normal(size=(40, 7)) * 6
TEMPERATURES = [0.25, 1.0, 1.5, 5.0, 50.0]
temperatures = pytest.mark.parametrize("t", TEMPERATURES)


def batch_of(n):
    x, y = torch.zeros(n, 1, 2, 2), torch.zeros(n).long()
    return Batch(torch.arange(n), x, y, torch.zeros(n, 3).byte(), torch.zeros(n).long())


@temperatures
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_against_scipy(t, dtype, atol):
    found = soft.soften(torch.tensor(Z, dtype=dtype), t)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, softmax(Z / t, axis=1), atol=atol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    z = torch.tensor(Z).to(dtype)
    found = soft.soften(z, 5.0)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, softmax(z.double().numpy() / 5, axis=1), atol=1e-6)


@temperatures
@pytest.mark.parametrize("constant", [-1e4, -3.0, 250.0])
def test_row_constants_do_not_matter(t, constant):
    z = torch.tensor(Z)
    shift = constant * torch.arange(1, 41)[:, None]
    np.testing.assert_allclose(soft.soften(z + shift, t), soft.soften(z, t), atol=1e-9)


def test_high_temperature_is_uniform_and_low_is_one_hot():
    z = torch.tensor(Z)
    np.testing.assert_allclose(soft.soften(z, 1e9), np.full_like(Z, 1 / 7), atol=1e-7)
    np.testing.assert_allclose(soft.soften(z, 1e-4), np.eye(7)[Z.argmax(1)], atol=1e-9)


def test_the_peak_falls_and_the_order_stays():
    rows = [soft.soften(torch.tensor(Z), t) for t in TEMPERATURES]
    peaks = torch.stack([row.amax(1) for row in rows])
    assert bool((peaks.diff(dim=0) < 0).all())
    assert all(torch.equal(row.argsort(1), torch.tensor(Z).argsort(1)) for row in rows)


@pytest.mark.parametrize("t", [0.0, -1.0, float("nan")])
def test_temperature_is_positive(t):
    with pytest.raises(UsageError, match="--temperature"):
        soft.soften(torch.tensor(Z), t)


def test_targets_are_the_sources_softened_rows():
    seen = []

    def source(batch):
        seen.append(batch)
        return torch.tensor(Z)[batch.index]

    batch = batch_of(9)
    found = soft.targets(batch, Context(0.5, 7, soft=source), temperature=3.0)
    assert seen == [batch]
    np.testing.assert_allclose(found, softmax(Z[:9] / 3, axis=1), atol=1e-12)


def test_the_default_is_the_papers():
    found = soft.targets(batch_of(40), Context(0.0, 7, soft=lambda _: torch.tensor(Z)))
    np.testing.assert_allclose(found, softmax(Z / 5, axis=1), atol=1e-12)


def test_needs_a_source():
    with pytest.raises(AdvkitError, match="labels file or a teacher"):
        soft.targets(batch_of(2), Context(0.0, 7))

"""Labels: ADR's rectification against published vectors, smoothing and one-hot by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from advkit.errors import AdvkitError, UsageError
from advkit.images.batches import Batch
from advkit.labels import Context, adr, onehot, smoothing

GOLDEN = [
    ((2, 1, 0, -1), 0, 2.0, 0.8, 0.8, (0.564043, 0.220803, 0.133924, 0.081229)),
    ((2, 1, 0, -1), 2, 2.0, 0.8, 0.512351, (0.233147, 0.141411, 0.573419, 0.052022)),
    ((8, 0, 0, 0), 3, 1.0, 0.7, 0.0, (0.0, 0.0, 0.0, 1.0)),
    ((0, 0, 0, 0), 1, 2.5, 0.7, 0.7, (0.175, 0.475, 0.175, 0.175)),
]
"""Teacher logits, y, τ, λ, λ_i and the row, as measured on the ADR authors' code."""

golden = pytest.mark.parametrize(("z", "y", "tau", "lam", "lam_i", "row"), GOLDEN)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def a_batch(y, x=None):
    y = torch.tensor(y)
    x = torch.zeros(len(y), 1, 2, 2) if x is None else x
    return Batch(
        torch.arange(len(y)), x, y, torch.zeros(len(y), 3).byte(), torch.zeros(len(y)).long()
    )


@dtypes
@golden
def test_golden_rows(z, y, tau, lam, lam_i, row, dtype):
    found = adr.rectify(torch.tensor([z], dtype=dtype), torch.tensor([y]), tau, lam)
    assert found.dtype == dtype
    np.testing.assert_allclose(found[0].numpy(), row, atol=1e-6)


@golden
def test_golden_interpolation(z, y, tau, lam, lam_i, row):
    found = adr.rectify(torch.tensor([z]).double(), torch.tensor([y]), tau, lam)[0].numpy()
    p = softmax(np.array(z) / tau)
    assert (1 - found[y]) / (1 - p[y]) == pytest.approx(lam_i, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    z = torch.tensor([[2, 1, 0, -1]], dtype=dtype)
    found = adr.rectify(z, torch.tensor([0]), 2.0, 0.8)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), GOLDEN[0][-1], atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("classes", [2, 10])
def test_margin_and_argmax(lam, classes):
    """Where the teacher errs by d ≤ λ, y leads its top class by (1 − λ)(1 + d) + d²."""
    rng = np.random.default_rng(classes)
    z = rng.normal(size=(20_000, classes)) * rng.uniform(0.1, 8, (20_000, 1))
    y, rows = rng.integers(classes, size=20_000), np.arange(20_000)
    found = adr.rectify(torch.tensor(z), torch.tensor(y), 1.5, lam).numpy()
    p = softmax(z / 1.5, axis=1)
    top, d = p.argmax(1), p.max(1) - p[rows, y]
    lead = found[rows, y] - found[rows, top]
    expected = np.where(d <= lam, (1 - lam) * (1 + d) + d**2, 1.0)
    errs = top != y
    assert errs.sum() > 5000
    np.testing.assert_allclose(lead[errs], expected[errs], atol=1e-12)
    np.testing.assert_array_equal(found.argmax(1), y)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert found.min() >= 0


logit_rows = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=12)


@given(z=logit_rows, tau=st.floats(0.1, 10), lam=st.floats(0, 0.999), data=st.data())
def test_true_class_leads(z, tau, lam, data):
    y = data.draw(st.integers(0, len(z) - 1))
    row = adr.rectify(torch.tensor([z], dtype=torch.float64), torch.tensor([y]), tau, lam)[0]
    others = np.delete(row.numpy(), y)
    assert float(row[y]) > others.max()
    assert float(row.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("progress", "tau", "lam"), [(0, 2.5, 0.7), (0.5, 2.25, 0.825)])
def test_adr_targets_anneal(progress, tau, lam):
    x, weight = torch.rand(3, 1, 2, 2), torch.randn(4, 5)
    seen = []

    def teacher(images):
        seen.append(images)
        return images.flatten(1) @ weight

    batch = a_batch([0, 4, 2], x)
    found = adr.targets(batch, Context(progress, 5, teacher)).numpy()
    p = softmax((x.flatten(1) @ weight).double().numpy() / tau, axis=1)
    y = batch.y.numpy()
    lam_i = np.clip(lam - (p.max(1) - p[np.arange(3), y]), 0, 1)[:, None]
    np.testing.assert_allclose(found, lam_i * p + (1 - lam_i) * np.eye(5)[y], atol=1e-6)
    assert len(seen) == 1
    assert seen[0] is x, "the teacher looks at the batch's own augmented images, once"


def test_adr_needs_a_teacher():
    with pytest.raises(AdvkitError, match="teacher"):
        adr.targets(a_batch([0]), Context(0.0, 4))


def test_adr_declares_its_teacher():
    assert "ema" in adr.NEEDS


def test_smoothing_by_hand():
    found = smoothing.targets(a_batch([2, 0]), Context(0.3, 4), smoothing=0.1)
    by_hand = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    np.testing.assert_allclose(found.numpy(), by_hand, atol=1e-7)


@pytest.mark.parametrize("epsilon", [-0.01, 1.01, float("nan")])
def test_smoothing_outside_0_1(epsilon):
    with pytest.raises(UsageError, match="smoothing"):
        smoothing.targets(a_batch([0]), Context(0.0, 4), smoothing=epsilon)


def test_onehot():
    found = onehot.targets(a_batch([1, 0]), Context(0.0, 3))
    assert found.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert found.dtype == torch.float32

"""What targets look like by temperature, against numpy and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax

from advkit.analyses.labels import Row, analyze
from advkit.artifacts import rows
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import InputError, UsageError

INFO = {"kind": "labels", "data": {"name": "made", "classes": list("abcdef")}}
GRID = (0.5, 1.0, 4.0, 50.0)


def labels_of(z, y, **more):
    n, views = z.shape[:2]
    table = torch.zeros(n, views, 3).byte()
    return SoftLabels(torch.arange(n), torch.as_tensor(y), torch.tensor(z), table, INFO, **more)


def logits_of(z, y):
    return Logits(torch.arange(len(y)), torch.as_tensor(y), torch.tensor(z), INFO, path="x")


@pytest.fixture
def case():
    """(z, y) for 30 examples, 4 views, 6 classes; float32, so that it is what the file holds."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(30, 4, 6)) * 3).astype(np.float32), rng.integers(6, size=30)


def expected(p, y):
    """Return the columns for targets (M, C)."""
    true = p[np.arange(len(y)), y]
    rank = np.array([scipy.stats.rankdata(-row)[k] for row, k in zip(p, y, strict=True)])
    entropy = scipy.stats.entropy(p, axis=1)
    return [each.mean() for each in (entropy, p.max(1), true, rank, p.argmax(1) == y)]


@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_columns(case, kind):
    z, y = case
    if kind == "labels":
        found = analyze([labels_of(z, y)], temperatures="0.5,1,4,50")
        flat, classes = z.reshape(-1, 6), y.repeat(4)
    else:
        flat, classes = z[:, 0], y
        found = analyze([logits_of(flat, y)], temperatures="0.5,1,4,50")
    assert found.columns == Row._fields
    assert [row[0] for row in found.rows] == list(GRID)
    for t, *values in found.rows:
        p = softmax(flat.astype(np.float64) / t, axis=1)
        np.testing.assert_allclose(values, expected(p, classes), atol=1e-5)
    assert found.numbers == {"n": 30, "targets": len(classes), "classes": 6}
    assert len(found.panels) == 2
    assert len(found.text.splitlines()) == 5


def test_pieces_do_not_show(case, monkeypatch):
    whole = analyze([labels_of(*case)]).rows
    monkeypatch.setattr(rows, "PIECE", 7)
    np.testing.assert_allclose(analyze([labels_of(*case)]).rows, whole, atol=1e-12)


def test_equal_classes_share_the_mean_of_their_ranks():
    z = np.array([[[2.0, 2.0, 1.0]], [[2.0, 2.0, 3.0]]], np.float32)
    info = {"kind": "labels", "data": {"classes": list("abc")}}
    source = SoftLabels(torch.arange(2), torch.tensor([1, 1]), torch.tensor(z), None, info)
    ((_, *_, rank, top),) = analyze([source], temperatures="1").rows
    assert (rank, top) == (2.0, 0.0)  # (1.5 + 2.5) / 2; the first of equals is on top


def test_the_rank_is_that_of_the_logits_at_every_temperature():
    """softmax(z/T) in float32 rounds all but the largest to 0 at a low T: they are no equals."""
    z = np.array([[[12.0, 3.0, 2.0, 1.0, 0.0]]], np.float32)
    info = {"kind": "labels", "data": {"classes": list("abcde")}}
    source = SoftLabels(torch.arange(1), torch.tensor([4]), torch.tensor(z), None, info)
    rows = analyze([source], temperatures="1e-6,0.1,1").rows
    assert [row[4] for row in rows] == [5.0, 5.0, 5.0]


def test_the_limits(case):
    z, y = case
    rows = analyze([labels_of(z, y)], temperatures="0.001,1000000").rows
    assert rows[0][1:3] == pytest.approx((0, 1), abs=1e-3)
    assert rows[1][1:4] == pytest.approx((math.log(6), 1 / 6, 1 / 6), abs=1e-5)


def test_top_k_spreads_the_rest(case):
    z, y = case
    order = np.argsort(-z, axis=2)
    kept = np.take_along_axis(z, order[..., :2], 2)
    gone = np.take_along_axis(z, order[..., 2:], 2).astype(np.float64)
    rest = np.log(np.exp(gone).sum(2)).astype(np.float32)
    source = labels_of(
        kept, y, classes=torch.tensor(order[..., :2]).to(torch.int16), rest=torch.tensor(rest)
    )
    full = np.repeat((rest - np.log(4))[..., None], 6, 2).astype(np.float64)
    np.put_along_axis(full, order[..., :2], kept, 2)
    ((_, *values),) = analyze([source], temperatures="3").rows
    p = softmax(full.reshape(-1, 6) / 3, axis=1)
    np.testing.assert_allclose(values, expected(p, y.repeat(4)), atol=1e-5)


def test_adrs_targets(case):
    """λ_i = clip(λ − (p_top − p_y), 0, 1); λ_i·p + (1 − λ_i)·onehot."""
    z, y = case
    rows = analyze([logits_of(z[:, 0], y)], temperatures="2", lambda_=0.7).rows
    p = softmax(z[:, 0].astype(np.float64) / 2, axis=1)
    trust = np.clip(0.7 - (p.max(1) - p[np.arange(30), y]), 0, 1)[:, None]
    target = trust * p + (1 - trust) * np.eye(6)[y]
    np.testing.assert_allclose(rows[0][1:], expected(target, y), atol=1e-5)


@pytest.mark.parametrize("text", ["0", "-1,2", "warm", "", "1,,2", "inf", "nan"])
def test_wrong_temperatures(case, text):
    with pytest.raises(UsageError, match="--temperatures"):
        analyze([labels_of(*case)], temperatures=text)


def test_out_of_distribution(case):
    with pytest.raises(InputError, match="needs labels"):
        analyze([logits_of(case[0][:, 0], np.full(30, -1))])

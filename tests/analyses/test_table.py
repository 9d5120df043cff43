"""The table of runs and attacks."""

import pytest
import torch
from scipy.stats import binomtest

from advkit.analyses import table
from advkit.artifacts.hdf5 import Logits


def logits_of(name="adr", broken=None, labels=None, config=None):
    """Ten examples of two classes, the first eight right when clean."""
    clean = torch.tensor([[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 2)
    labels = torch.zeros(10, dtype=torch.int64) if labels is None else labels
    if broken is not None:
        broken = torch.tensor(broken, dtype=torch.int8)
    config = config or {"attack": "pgd", "eps": "8/255", "steps": 50}
    info = {"config": config, "role": "best", "method": name, "parents": [{"seed": 3}]}
    return Logits(
        torch.arange(10), labels, clean, info, clean, torch.zeros(10), broken,
        path=f"runs/{name}-s0/best.h5",
    )  # fmt: skip


def rows(*inputs):
    result = table.analyze(inputs)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_figures():
    (row,) = rows(logits_of(broken=[0, 0, 0, -1, -1, -1, -1, -1, -2, -2]))
    clean, robust = (binomtest(k, 10).proportion_ci(method="wilson") for k in (8, 5))
    assert row == pytest.approx(
        {
            "run": "adr-s0", "role": "best", "method": "adr", "attack": "pgd", "eps": "8/255",
            "n": 10, "clean_accuracy": 0.8, "clean_low": clean.low, "clean_high": clean.high,
            "robust_accuracy": 0.5, "robust_low": robust.low, "robust_high": robust.high,
            "seed": 3, "steps": 50,
        }
    )  # fmt: skip


def test_order_is_the_caller_s():
    names = ["trades", "adr", "at"]
    inputs = [logits_of(name, [-1] * 10) for name in names]
    assert [row["method"] for row in rows(*inputs)] == names
    assert table.analyze(inputs).numbers == {"files": 3}
    assert table.COMPARES


def test_text():
    inputs = [logits_of("at", [-1] * 5 + [0] * 3 + [-2] * 2), logits_of("trades-adr-wa")]
    head, first, second = table.analyze(inputs).text.splitlines()
    assert head.split()[:4] == ["run", "method", "checkpoint", "attack"]
    assert first.split()[:4] == ["at-s0", "at", "best", "pgd-50"]
    assert "80.0 [49.0, 94.3]" in first
    assert "50.0 [23.7, 76.3]" in first
    assert second.endswith("-")
    assert head.index("checkpoint") == first.index("best") == second.index("best")


def test_without_attack_or_labels():
    clean_only = logits_of(config={"attack": "none"})
    unknown = logits_of(labels=torch.full((10,), -1), config={"attack": "none"})
    first, second = rows(clean_only, unknown)
    assert (first["clean_accuracy"], first["robust_accuracy"], first["eps"]) == (0.8, None, None)
    assert second["clean_accuracy"] is second["clean_low"] is second["robust_high"] is None
    assert "None" not in table.analyze([clean_only, unknown]).text

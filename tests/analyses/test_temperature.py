"""Accuracy by temperature: means over seeds, and what PGD claims too much."""

import numpy as np
import pytest
import torch

from advkit.analyses.temperature import COLUMNS, analyze
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError


def run(t, attack, clean, robust, n=20, trained=True):
    """Return a logits file of `n` examples: `clean` right, `robust` of them unbroken."""
    broken = torch.full((n,), -2, dtype=torch.int8)
    broken[:clean], broken[:robust] = 0, -1
    z = torch.zeros(n, 3)
    z[:clean, 1], z[clean:, 2] = 5, 5
    parent = {"kind": "checkpoint", **({"temperature": t} if trained else {})}
    info = {"config": {"attack": attack}, "parents": [parent], "attacks": [attack]}
    more = {} if attack == "none" else {"adversarial": z, "broken_by": broken}
    return Logits(torch.arange(n), torch.ones(n).long(), z, info, path="x.h5", **more)


CASE = [
    run(5.0, "pgd", 18, 12), run(5.0, "pgd", 16, 10), run(5.0, "autoattack", 18, 9),
    run(5.0, "autoattack", 16, 8), run(15.0, "pgd", 19, 19), run(15.0, "autoattack", 19, 0),
    run(1.0, "pgd", 20, 11), run(2.0, "none", 10, 0),
]  # fmt: skip


def test_rows():
    found = analyze(CASE)
    assert found.columns == COLUMNS
    rows = {row[0]: row[1:] for row in found.rows}
    assert list(rows) == [1.0, 2.0, 5.0, 15.0]
    assert rows[5.0] == pytest.approx((2, 0.85, 0.55, 0.425, 0.125, 20))
    assert rows[15.0] == pytest.approx((1, 0.95, 0.95, 0.0, 0.95, 20))
    assert rows[1.0] == (1, 1.0, pytest.approx(0.55), None, None, 20)
    assert rows[2.0][1:5] == (0.5, None, None, None)
    assert found.numbers["files"] == 8
    assert found.numbers["best_temperature"] == 5.0
    assert found.numbers["best_autoattack"] == pytest.approx(0.425)
    assert len(found.panels) == 1
    assert len(found.text.splitlines()) == 5


def test_the_order_of_files_does_not_matter():
    whole = analyze(CASE).rows
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(CASE))
        assert analyze([CASE[k] for k in order]).rows == whole


def test_without_autoattack_there_is_no_best():
    numbers = analyze(CASE[:2]).numbers
    assert (numbers["best_temperature"], numbers["best_autoattack"]) == (None, None)


def test_needs_a_temperature():
    with pytest.raises(InputError, match="not trained on softened labels"):
        analyze([run(5.0, "pgd", 3, 2, trained=False)])

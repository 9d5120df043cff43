"""Accuracy by class, against numpy counting."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from advkit.analyses.classes import _SHOWN, analyze
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError


def logits_of(z, y, broken_by=None, classes=None):
    z, y = torch.tensor(np.asarray(z)).float(), torch.as_tensor(y)
    info = {"data": {"classes": [f"c{k}" for k in range(classes or z.shape[1])]}}
    attacked = None if broken_by is None else torch.as_tensor(broken_by)
    adversarial = None if broken_by is None else z
    return Logits(torch.arange(len(y)), y, z, info, adversarial, None, attacked, path="it.h5")


def case(n=300, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    z = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[y]
    broken = np.where(z.argmax(1) != y, -2, np.where(rng.random(n) < 0.1 * y, 0, -1))
    return z, y, broken


def test_against_counting():
    z, y, broken = case()
    result = analyze([logits_of(z, y, broken)])
    column = {name: [row[k] for row in result.rows] for k, name in enumerate(result.columns)}
    for k in range(7):
        of_class = y == k
        n, robust = int(of_class.sum()), int((broken[of_class] == -1).sum())
        assert column["name"][k] == f"c{k}"
        assert column["n"][k] == n
        assert column["clean_accuracy"][k] == (z[of_class].argmax(1) == k).mean()
        assert column["robust_accuracy"][k] == robust / n
        ends = binomtest(robust, n).proportion_ci(method="wilson")
        assert [column["robust_low"][k], column["robust_high"][k]] == pytest.approx(
            [ends.low, ends.high]
        )
    robust = np.array(column["robust_accuracy"])
    assert result.numbers["worst_class"] == f"c{robust.argmin()}"
    assert result.numbers["worst_class_robust_accuracy"] == robust.min()
    assert result.numbers["robust_spread"] == pytest.approx(robust.max() - robust.min())
    assert result.numbers["worst_class_clean"] == f"c{np.argmin(column['clean_accuracy'])}"
    assert result.numbers["robust_accuracy"] == pytest.approx((broken == -1).mean())


def test_the_first_of_equals_is_the_worst():
    z = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    numbers = analyze([logits_of(z, [0, 0, 1, 1, 2, 2], [-1, -1, -1, 0, -1, 0])]).numbers
    assert (numbers["worst_class"], numbers["worst_class_robust_accuracy"]) == ("c1", 0.5)


def test_one_example_and_classes_without_any():
    result = analyze([logits_of([[0.0, 1.0]], [1], [0])])
    assert result.numbers["worst_class"] == "c1"
    assert result.numbers["robust_spread"] == 0
    assert result.rows[0] == (0, "c0", 0, *[None] * 6)


def test_without_an_attack_clean_only():
    z, y, _ = case()
    result = analyze([logits_of(z, y)])
    assert not [name for name in result.numbers if "robust" in name or name == "worst_class"]
    assert result.columns[-1] == "clean_high"


def test_of_many_classes_the_worst_are_drawn():
    """A hundred lines would not be legible; the picture says what it shows, the table has all."""
    from matplotlib.figure import Figure

    z, y, broken = case(n=2000, classes=100, seed=1)
    result = analyze([logits_of(z, y, broken)])
    assert len(result.rows) == 100
    assert result.text == ""
    axes = Figure().subplots()
    result.panels[0](axes)
    assert axes.get_title(loc="left") + axes.get_title() == f"worst {_SHOWN} of 100 classes"
    worst = sorted(result.rows, key=lambda row: (row[6], row[0]))[:_SHOWN]
    assert [each.get_text() for each in axes.get_yticklabels()] == [row[1] for row in worst]


def test_needs_labels():
    with pytest.raises(InputError, match=r"it\.h5: classes needs labels"):
        analyze([logits_of([[0.0, 1.0]], [-1])])

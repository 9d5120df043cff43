"""Accuracy by temperature: means over seeds, and what PGD claims too much."""

import numpy as np
import pytest
import torch

from advkit.analyses.temperature import Row, analyze
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError


def run(t, attack, clean, robust, n=20, trained=True, recipe=None, seed=0, role="best"):
    """Return a logits file of `n` examples: `clean` right, `robust` of them unbroken."""
    broken = torch.full((n,), -2, dtype=torch.int8)
    broken[:clean], broken[:robust] = 0, -1
    z = torch.zeros(n, 3)
    z[:clean, 1], z[clean:, 2] = 5, 5
    parent = {"kind": "checkpoint", "seed": seed, **({"temperature": t} if trained else {})}
    info = {
        "config": {"attack": attack}, "parents": [parent], "attacks": [attack], "role": role,
        "method": "ltd", "arch": "net", "data": {"name": "digits"},
    }  # fmt: skip
    if recipe is not None:
        info["trained"] = {"temperature": t, **recipe}
    more = {} if attack == "none" else {"adversarial": z, "broken_by": broken}
    return Logits(torch.arange(n), torch.ones(n).long(), z, info, path="x.h5", **more)


CASE = [
    run(5.0, "pgd", 18, 12), run(5.0, "pgd", 16, 10, seed=1), run(5.0, "autoattack", 18, 9),
    run(5.0, "autoattack", 16, 8, seed=1), run(15.0, "pgd", 19, 19), run(15.0, "autoattack", 19, 0),
    run(1.0, "pgd", 20, 11), run(2.0, "none", 10, 0),
]  # fmt: skip


def test_rows():
    found = analyze(CASE)
    assert found.columns == Row._fields
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


def test_a_checkpoint_s_clean_accuracy_counts_once():
    """Under PGD, AutoAttack and FGSM it is the same: one run of 0.9 and one of 0.5 make 0.7."""
    files = [run(5.0, attack, 18, 1) for attack in ("pgd", "autoattack", "fgsm")]
    (row,) = analyze([*files, run(5.0, "pgd", 10, 1, seed=1)]).rows
    assert row[2] == pytest.approx(0.7)


def test_only_seeds_are_averaged():
    """Best and final checkpoints, and averages of weights, are no further seeds."""
    best, final = run(5.0, "autoattack", 18, 12), run(5.0, "autoattack", 18, 4, role="final")
    for point, share in (("best", 0.6), ("final", 0.2)):
        (row,) = analyze([best, final], point=point).rows
        assert (row[1], row[4]) == (1, pytest.approx(share))
    with pytest.raises(InputError, match="both are the best one of seed 0"):
        analyze([best, run(5.0, "autoattack", 18, 10)])
    with pytest.raises(InputError, match="--point final: no file"):
        analyze([best], point="final")
    with pytest.raises(MismatchError, match=r"two recipes at temperature 5 \(weights\)"):
        analyze([best, run(5.0, "autoattack", 18, 9, role="best-ema")])


def test_two_recipes_or_attacks_at_one_temperature_are_refused():
    recipes = [run(5.0, "pgd", 18, k, recipe={"beta": float(k)}, seed=k) for k in (1, 6)]
    with pytest.raises(MismatchError, match=r"two recipes at temperature 5 \(beta\)"):
        analyze(recipes)
    attacks = [run(5.0, "pgd", 18, 9), run(5.0, "pgd", 18, 8, seed=1)]
    attacks[1].info["config"]["steps"] = 50
    with pytest.raises(MismatchError, match=r"two attacks by pgd at temperature 5 \(steps\)"):
        analyze(attacks)


def test_another_method_at_another_temperature_is_a_difference():
    files = [run(t, "autoattack", 18, 9, recipe={"beta": beta}) for t, beta in ((1, 6.0), (5, 1.0))]
    found = analyze(files)
    assert found.more == {"differs": {"beta": [6.0, 1.0]}}
    assert found.numbers["best_temperature"] is None


def test_intervals_are_drawn():
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    analyze(CASE).panels[0](axes)
    assert len(axes.collections) == 3
    low, high = axes.collections[2].get_datalim(axes.transData).intervaly
    assert low == 0  # AutoAttack leaves 0 of 20 at T = 15
    assert high > 0.45  # and 8 and 9 of 20 at T = 5
    pyplot.close(figure)


def test_needs_labels():
    outside = run(5.0, "none", 3, 0)
    outside.labels[:] = -1
    with pytest.raises(InputError, match="needs labels"):
        analyze([outside])


def test_what_else_differs_is_named_and_no_temperature_is_best_across_it():
    """Other attacks stand in other columns; other options of one attack are a difference."""
    alike = [run(t, "pgd", 18, 12, recipe={"epochs": 6, "seed": k}) for k, t in enumerate((1, 5))]
    judged = [run(t, "autoattack", 18, 9, recipe={"epochs": 6}) for t in (1, 5)]
    found = analyze([*alike, *judged])
    assert found.more == {"differs": {}}
    assert found.numbers["best_temperature"] == 1
    assert "note" not in found.text
    other = analyze([*alike, *judged, run(8, "autoattack", 18, 11, recipe={"epochs": 30})])
    assert other.more == {"differs": {"epochs": [6, 30]}}
    assert other.numbers["best_temperature"] is None
    assert other.numbers["best_autoattack"] is None
    note = "note: not the same in all files: epochs 6, 30; no temperature is the best across it"
    assert other.text.endswith(note)
    for logits, steps in zip(alike, (10, 100), strict=True):
        logits.info["config"]["steps"] = steps
    assert analyze([*alike, *judged]).more == {"differs": {"steps": [10, 100]}}


def test_a_substitute_trained_naturally_stands_among_the_others():
    """Table 4's T = 50: clean accuracy alone, and no setting of an attack that it did not meet."""
    method = {"objective": "trades", "labels": "soft", "attack_steps": 8, "eps": "8/255"}
    natural = {**method, "objective": "natural", "attack_steps": 0}
    files = [run(5.0, "autoattack", 17, 9, recipe=method), run(50.0, "none", 16, 0, recipe=natural)]
    found = analyze(files)
    assert found.more == {"differs": {}}
    assert dict(zip(found.columns, found.rows[1], strict=True)) | {"seeds": None} == {
        "temperature": 50.0, "seeds": None, "clean": 0.8, "pgd": None, "autoattack": None,
        "pgd_overstates": None, "n": 20,
    }  # fmt: skip

"""ADR's findings on outputs made so that each holds, fails or stays open."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy as reference_entropy
from sklearn.metrics import roc_auc_score

from advkit.analyses.findings import analyze
from advkit.errors import InputError, MismatchError
from tests.analyses._files import PGD, certain, file_of

N, CLASSES = 200, 10


def draws(low, high, n, seed):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def model(
    method, seed=0, *, right=(0.9, 0.99), wrong=(0.5, 0.9), attacked=(0.2, 0.6), outside=(0.3, 0.9),
    errs=60, n=N, jitter=0, **options,
):  # fmt: skip
    """Test and out-of-distribution files; the pairs are ranges of the top class's probability.

    `attacked` is the clean class's probability under attack.
    """
    y = torch.arange(n) % CLASSES
    shown = torch.where(torch.arange(n) < errs, (y + 1) % CLASSES, y)
    top = torch.where(
        torch.arange(n) < errs, draws(*wrong, n, 1 + jitter), draws(*right, n, 2 + jitter)
    )
    test = file_of(
        certain(shown, CLASSES, top), y, method=method, seed=seed,
        adversarial=certain(shown, CLASSES, draws(*attacked, n, 3 + jitter)),
        robust=torch.zeros(n, dtype=torch.bool), **options,
    )  # fmt: skip
    classes = torch.arange(n) % CLASSES
    out = file_of(
        certain(classes, CLASSES, draws(*outside, n, 4 + jitter)), torch.full((n,), -1),
        method=method, seed=seed, data="photos", digest="sha256:p",
        **{name: value for name, value in options.items() if name != "config"},
    )  # fmt: skip
    return [test, out]


NATURAL = {"wrong": (0.95, 0.999), "right": (0.99, 0.9999), "outside": (0.9, 0.999),
           "attacked": (0.001, 0.01)}  # fmt: skip
ROBUST = {"wrong": (0.3, 0.5), "right": (0.9, 0.99), "outside": (0.2, 0.4), "attacked": (0.5, 0.9)}


def measures(*inputs):
    result = analyze(inputs)
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return {(row["model"], row["measure"]): row for row in rows}


def entropies(logits):
    return reference_entropy(softmax(logits.double().numpy(), axis=1), axis=1)


def test_all_three_hold_where_they_were_planted():
    inputs = [*model("natural", **NATURAL), *model("adr", **ROBUST)]
    result = analyze(inputs)
    (group,) = result.groups
    assert (group["model"], group["baseline"]) == ("adr s0", "natural s0")
    for finding in ("ood", "wrong", "divergence"):
        assert group[f"{finding}_holds"] is True, group
        assert result.numbers[f"{finding}_holds"] == result.numbers["models"] == 1
        assert result.numbers[f"{finding}_fails"] == result.numbers[f"{finding}_open"] == 0
    assert result.text.count(": holds") == 3


def test_all_three_fail_for_a_robust_model_that_answers_as_the_natural_one_should():
    result = analyze([*model("natural", **ROBUST), *model("adr", **NATURAL)])
    (group,) = result.groups
    for finding in ("ood", "wrong", "divergence"):
        assert group[f"{finding}_holds"] is False
        assert result.numbers[f"{finding}_fails"] == 1
    assert result.text.count("does not hold") == 3


def test_all_three_stay_open_where_nothing_differs_but_chance():
    result = analyze([*model("natural"), *model("adr", jitter=100)])
    (group,) = result.groups
    for finding in ("ood", "wrong", "divergence"):
        assert group[f"{finding}_holds"] is None
        assert "inside noise" in group[f"{finding}_reason"]
        assert result.numbers[f"{finding}_open"] == 1


def test_higher_entropy_without_higher_auroc_does_not_make_the_first_finding_hold():
    """A model unsure of everything alike: its entropy tells nothing apart."""
    vague = {**ROBUST, "right": (0.2, 0.4), "wrong": (0.2, 0.4)}
    found = measures(*model("natural", **NATURAL), *model("adr", **vague))
    assert found["adr s0", "ood_entropy"]["holds"] is True
    assert found["adr s0", "ood_auroc"]["holds"] is False
    (group,) = analyze([*model("natural", **NATURAL), *model("adr", **vague)]).groups
    assert group["ood_holds"] is False
    assert group["wrong_holds"] is True
    assert found["adr s0", "wrong_less_right"]["natural"] > 0


def test_figures_against_scipy_and_scikit_learn():
    natural, robust = model("natural", **NATURAL), model("adr", **ROBUST)
    found = measures(*natural, *robust)
    for side, (test, out) in (("natural", natural), ("robust", robust)):
        h, h_out = entropies(test.clean), entropies(out.clean)
        wrong = (test.clean.argmax(1) != test.labels).numpy()
        p, q = (softmax(z.double().numpy(), axis=1) for z in (test.clean, test.adversarial))
        js = reference_entropy((p + q) / 2, axis=1)
        js -= (reference_entropy(p, axis=1) + reference_entropy(q, axis=1)) / 2
        expected = {
            "ood_entropy": h_out.mean(),
            "ood_auroc": roc_auc_score([0] * N + [1] * N, np.concatenate([h, h_out])),
            "wrong_entropy": h[wrong].mean(),
            "wrong_less_right": h[wrong].mean() - h[~wrong].mean(),
            "divergence": js.mean(),
        }
        ours = {name: found["adr s0", name][side] for name in expected}
        assert ours == pytest.approx(expected, abs=1e-6)
    for row in found.values():
        sign = -1 if row["measure"] == "divergence" else 1
        assert row["difference"] == pytest.approx(sign * (row["robust"] - row["natural"]))
        assert row["low"] < row["difference"] < row["high"]


def test_intervals_are_paired_where_the_examples_are_and_of_two_samples_where_not():
    natural, robust = model("natural", wrong=(0.5, 0.9)), model("adr", wrong=(0.4, 0.8), jitter=9)
    found = measures(*natural, *robust)
    gaps = entropies(robust[1].clean) - entropies(natural[1].clean)
    row = found["adr s0", "ood_entropy"]
    spread = 1.96 * gaps.std() / math.sqrt(N)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(spread, rel=0.1)
    samples = [entropies(test.clean)[:60] for test in (natural[0], robust[0])]
    row = found["adr s0", "wrong_entropy"]
    spread = 1.96 * math.sqrt(sum(each.var() / 60 for each in samples))
    assert (row["high"] - row["low"]) / 2 == pytest.approx(spread, rel=0.1)


def test_without_out_of_distribution_files_the_first_finding_is_open_and_says_why():
    (group,) = analyze([model("natural", **NATURAL)[0], model("adr", **ROBUST)[0]]).groups
    assert group["ood_holds"] is None
    assert "out-of-distribution" in group["ood_reason"]
    assert group["wrong_holds"] is group["divergence_holds"] is True


def test_too_few_wrong_examples_give_no_verdict_and_no_interval():
    found = measures(*model("natural", **NATURAL), *model("adr", errs=5, **ROBUST))
    row = found["adr s0", "wrong_entropy"]
    assert row["difference"] > 0.5
    assert row["low"] is row["high"] is row["holds"] is None
    assert row["reason"] == "5 wrong examples, wanted 20"
    row = measures(*model("natural", **NATURAL), *model("adr", errs=0, **ROBUST))
    assert row["adr s0", "wrong_entropy"]["reason"] == "0 wrong examples, wanted 20"


def test_another_attack_leaves_the_third_finding_open():
    calm = model("natural", **NATURAL)
    calm[0] = dataclasses.replace(calm[0], adversarial=None, norm=None, broken_by=None)
    harder = model("natural", config={**PGD, "eps": "16/255"}, **NATURAL)
    for natural in (calm, harder):
        (group,) = analyze([*natural, *model("adr", **ROBUST)]).groups
        assert group["divergence_holds"] is None
        assert "same attack" in group["divergence_reason"]
        assert group["wrong_holds"] is True


def test_seeds_are_paired_and_counted():
    inputs = [
        *model("natural", 0, **NATURAL), *model("natural", 1, **ROBUST),
        *model("adr", 0, **ROBUST), *model("adr", 1, **NATURAL), *model("at", 1, **NATURAL),
    ]  # fmt: skip
    result = analyze(inputs)
    assert [(each["model"], each["baseline"]) for each in result.groups] == [
        ("adr s0", "natural s0"), ("adr s1", "natural s1"), ("at s1", "natural s1"),
    ]  # fmt: skip
    assert [each["wrong_holds"] for each in result.groups] == [True, False, False]
    assert (result.numbers["wrong_holds"], result.numbers["wrong_fails"]) == (1, 2)


def test_the_only_natural_model_serves_every_seed_and_of_two_roles_the_same_one():
    inputs = [*model("natural", 3, **NATURAL), *model("adr", 0), *model("adr", 1)]
    assert {each["baseline"] for each in analyze(inputs).groups} == {"natural s3"}
    inputs = [
        *model("natural", role="best"), *model("natural", role="final"), *model("at", role="final")
    ]  # fmt: skip
    (group,) = analyze(inputs).groups
    assert group["baseline"] == "natural s0 final"


def test_what_cannot_be_compared_is_said_in_one_line():
    natural, robust = model("natural"), model("adr")
    with pytest.raises(InputError, match=r"adr.*no natural"):
        analyze(robust)
    with pytest.raises(InputError, match=r"natural.*no robust"):
        analyze(natural)
    with pytest.raises(InputError, match="architecture"):
        analyze([*natural, *model("adr", arch="resnet8")])
    with pytest.raises(InputError, match="2 natural models and none"):
        analyze([*natural, *model("natural", 1), *model("adr", 2)])
    with pytest.raises(InputError, match="two files of one model on labelled data"):
        analyze([*natural, *robust, robust[0]])
    few = [dataclasses.replace(each, index=each.index + N // 2) for each in robust]
    with pytest.raises(MismatchError, match="common examples"):
        analyze([*natural, *few])


def test_the_picture_has_a_panel_a_measure():
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    result = analyze([*model("natural", **NATURAL), *model("adr", errs=3, **ROBUST)])
    titles = []
    for panel in result.panels:
        figure, axes = pyplot.subplots()
        panel(axes)
        titles.append(axes.get_title(loc="left") or axes.get_title())
        pyplot.close(figure)
    assert [title.splitlines()[0] for title in titles] == [
        "entropy out of distribution", "AUROC of entropy, out of distribution",
        "entropy when wrong", "Jensen–Shannon under attack",
    ]  # fmt: skip
    assert "(photos)" in titles[0]
    assert "under 20 examples" in titles[2]

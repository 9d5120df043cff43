"""Ablation grids: means and deviations worked by hand, and what must not share a grid."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, t

from advkit.analyses.drawing import plot
from advkit.analyses.gathering.cells import mark, seed_noise, spread
from advkit.analyses.grid import analyze
from advkit.errors import InputError, MismatchError, UsageError
from tests.analyses.test_table import PGD, logits_of, without_settings
from tests.conftest import TINY


def run(source, robust, seed=0, method="adr", n=100, clean=90, **more):
    """A run with labels from `source`; of n examples, `clean` are right and `robust` stand."""
    more = {"objective": "at", "wa": False, **more}
    found = logits_of(method, robust=robust, seed=seed, n=n, clean=clean, **more)
    found.info["trained"]["labels"] = source
    return found


def adr(tau, lam, robust, seed=0, **more):
    more = {"anneal": "cosine", "ema_decay": 0.995, "teacher_noise": None, **more}
    return run("adr", robust, seed, tau=tau, **{"lambda": lam, **more})


def smooth(epsilon, robust, seed=0, **more):
    return run("smoothing", robust, seed, "ls", smoothing=epsilon, ema_decay=0.9, **more)


def onehot(robust, seed=0, **more):
    return run("onehot", robust, seed, "at", ema_decay=0.9, **more)


HITS = {(1.0, 0.3): (50, 54), (1.0, 0.7): (40, 41), (2.0, 0.3): (70, 73), (2.0, 0.7): (1, 9)}
"""(τ, λ) → answers of a hundred that stand, of seeds 0 and 1."""


def four():
    return [
        adr(f"{tau}:{tau}", f"{lam}:{lam}", hits, seed)
        for (tau, lam), of in HITS.items()
        for seed, hits in enumerate(of)
    ]


def rows(result):
    found = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return {(row["x"], row["y"]): row for row in found}


def test_means_and_deviations():
    result = analyze(four(), x="lambda", y="tau")
    assert set(rows(result)) == {(lam, tau) for tau, lam in HITS}
    for (lam, tau), row in rows(result).items():
        hits = np.array(HITS[tau, lam]) / 100
        assert row["runs"] == 2
        assert row["robust_accuracy"] == pytest.approx(hits.mean())
        assert row["robust_sd"] == pytest.approx(hits.std(ddof=1))
        assert row["robust_low"] <= hits.mean() <= row["robust_high"]
        assert (row["clean_accuracy"], row["clean_sd"]) == (0.9, 0)
    expected = {
        "files": 8, "cells": 4, "n": 100, "x": "lambda", "y": "tau", "point": "best",
        "attack": "pgd", "best_x": 0.3, "best_y": 2.0,
        "best_robust_accuracy": pytest.approx(0.715),
    }  # fmt: skip
    assert expected.items() <= result.numbers.items()


def test_worked_by_hand():
    """0.50 and 0.54: 52 ± 2.83; the table reads y down, x along."""
    lines = analyze(four(), x="lambda", y="tau").text.splitlines()
    assert lines[0] == "pgd-50, linf 8/255; best checkpoints, 2 runs a cell, mean ± sd; in %"
    assert lines[1] == "robust accuracy"
    assert [re.split(r"\s{2,}", line) for line in lines[2:5]] == [
        ["tau \\ lambda", "0.3", "0.7"],
        ["1", "52.00 ± 2.83", "40.50 ± 0.71"],
        ["2", "71.50 ± 2.12", "5.00 ± 5.66"],
    ]


def test_axes_are_those_in_which_runs_differ():
    assert analyze(four()).rows == analyze(four(), x="lambda", y="tau").rows
    one = analyze([adr("1.0:1.0", "0.5:0.5", hits, seed) for seed, hits in enumerate((50, 60))])
    (row,) = rows(one).values()
    assert (row["x"], row["y"], row["robust_accuracy"]) == (None, None, pytest.approx(0.55))
    assert one.numbers["decided"] is None


def test_one_axis():
    runs = [
        logits_of("ltd", robust=hits, clean=9, seed=seed, temperature=each)
        for each, of in {5.0: (5, 7), 1.0: (2, 2)}.items()
        for seed, hits in enumerate(of)
    ]
    result = analyze(runs, x="temperature")
    assert [row[:4] for row in result.rows] == [
        (1.0, None, 2, 0.2), (5.0, None, 2, pytest.approx(0.6)),
    ]  # fmt: skip
    assert (result.numbers["best_x"], result.numbers["best_y"]) == (5.0, None)
    assert "5            60.00 ± 14.14" in result.text


@pytest.mark.parametrize(("runs", "n"), [([[0.5]], 40), ([[0.5, 0.9], [0.1, 0.2], [0.7]], 1000),
                                         ([[0.5, 0.5, 0.5], [0.02, 0.0]], 20)])  # fmt: skip
def test_interval(runs, n):
    """Never narrower than what the examples alone, or the seeds alone, leave open."""
    noise = seed_noise(runs)
    several = [np.array(each) for each in runs if len(each) > 1]
    for shares in runs:
        wilson = binomtest(round(np.mean(shares) * n), n).proportion_ci(method="wilson")
        reach = 0.0
        if several:
            freedom = sum(len(each) - 1 for each in several)
            sd = math.sqrt(sum(((each - each.mean()) ** 2).sum() for each in several) / freedom)
            reach = t.ppf(0.975, freedom) * sd / math.sqrt(len(shares))
        low, high = spread(shares, n, noise)
        assert low == pytest.approx(max(0, min(wilson.low, np.mean(shares) - reach)), abs=1e-9)
        assert high == pytest.approx(min(1, max(wilson.high, np.mean(shares) + reach)))


def test_the_best_cell_is_decided_beyond_noise_only():
    """At n = 100 one seed's interval of 0.9 is [0.83, 0.94], of 0.8 [0.71, 0.87]."""
    assert analyze([adr("1:1", "0.3", 90), adr("1:1", "0.5", 50)]).numbers["decided"] is True
    close = analyze([adr("1:1", "0.3", 90), adr("1:1", "0.5", 80), adr("1:1", "0.7", 10)])
    assert (close.numbers["decided"], close.numbers["rivals"]) == (False, 1)


def test_label_smoothing_is_the_limit_of_adr():
    """ADR's label with a uniform teacher is λ·u + (1 − λ)·onehot: label smoothing of ε = λ."""
    result = analyze([*four(), smooth(0.3, 44), smooth(0.7, 11), onehot(48)], x="lambda", y="tau")
    found = {place: row["robust_accuracy"] for place, row in rows(result).items()}
    assert found[0.3, "∞"] == 0.44
    assert found[0.7, "∞"] == 0.11
    assert found[0.0, "∞"] == 0.48
    assert len(found) == 7
    assert "∞" in result.text.splitlines()[5]


def test_smoothing_with_a_weight_average_keeps_its_decay():
    inputs = [adr("1:1", "0.3", 50, wa=True), smooth(0.3, 44, wa=True)]
    with pytest.raises(MismatchError, match="differ in ema_decay"):
        analyze(inputs, x="lambda", y="tau")


def test_annealed_runs_stand_apart():
    result = analyze([*four(), adr("2.5:2.0", "0.7:0.95", 80)], x="lambda", y="tau")
    assert (result.numbers["best_x"], result.numbers["best_y"]) == ("0.7→0.95", "2.5→2")
    assert "tau 2.5→2, lambda 0.7→0.95: 80.00 [" in result.text
    assert "2.5→2" not in result.text.splitlines()[2]


def test_a_grid_of_annealed_runs_is_a_grid():
    spans = [("2.5:2.0", "0.7:0.95"), ("2.5:2.0", "0.5:0.9"), ("3:2", "0.7:0.95")]
    result = analyze([adr(*span, 50 + k) for k, span in enumerate(spans)])
    assert result.text.splitlines()[2].split()[3:] == ["0.5→0.9", "0.7→0.95"]
    assert "-" in result.text.splitlines()[4].split()


def test_constant_annealing_is_a_constant():
    """With `anneal = constant` only the start of a span is ever used."""
    inputs = [adr("2:1", "0.7:0.9", 50, anneal="constant"), adr("3:3", "0.7", 55)]
    assert set(rows(analyze(inputs, x="tau"))) == {(2.0, None), (3.0, None)}


def test_averaging_over_a_named_setting():
    inputs = [adr("1:1", "0.3", hits, split_seed=k) for k, hits in enumerate((50, 60))]
    with pytest.raises(MismatchError, match=r"differ in split_seed too.*--over"):
        analyze(inputs, x="tau")
    (row,) = rows(analyze(inputs, x="tau", over="split_seed")).values()
    assert (row["runs"], row["robust_accuracy"]) == (2, pytest.approx(0.55))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"epochs": 9}, "differ in epochs too"),
        ({"role": "best-ema"}, "differ in weights too"),
        ({"method": "trades-adr", "objective": "trades"}, "differ in objective too"),
        ({"config": {**PGD, "steps": 10}}, r"in other ways \(steps differ\)"),
        ({"config": {**PGD, "eps": "4/255"}}, r"\(eps differ\)"),
        ({"config": {**PGD, "attack": "fgsm"}}, r"\(attack differ\).*--attack"),
        ({"n": 99}, "other examples"),
        ({"digest": "sha256:e"}, "other examples"),
        ({"data": "svhn"}, "other examples"),
    ],
)
def test_what_must_not_share_a_grid(other, words):
    other = {"epochs": 8, **other}
    inputs = [adr("1:1", "0.3", 50, epochs=8), adr("1:1", "0.5", 50, **other)]
    with pytest.raises(MismatchError, match=words) as found:
        analyze(inputs, x="lambda", y="tau")
    assert "\n" not in str(found.value)


def test_too_many_differences_to_choose_axes():
    inputs = [adr("1:1", "0.3", 50, lr=0.1), adr("2:2", "0.5", 50, lr=0.2)]
    with pytest.raises(MismatchError, match=r"lambda, lr, tau too.*--x and --y"):
        analyze(inputs)


def test_an_attack_is_chosen():
    fgsm = adr("1:1", "0.3", 70, config={**PGD, "attack": "fgsm"})
    assert analyze([*four(), fgsm], attack="pgd").rows == analyze(four()).rows
    with pytest.raises(InputError, match=r"--attack square: no file holds it.*fgsm, pgd"):
        analyze([*four(), fgsm], attack="square")


def test_a_point_is_chosen():
    final = [adr("1:1", "0.3", 20, role="final"), adr("1:1", "0.5", 30, role="final")]
    assert analyze([*four(), *final]).rows == analyze(four()).rows
    assert analyze([*four(), *final], point="final").numbers["best_robust_accuracy"] == 0.3
    with pytest.raises(InputError, match="--point final"):
        analyze(four(), point="final")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": "lamda"}, "lamda.*'lambda'"),
        ({"x": "lambda", "over": "nosuch"}, "nosuch"),
        ({"y": "tau"}, "--x"),
        ({"x": "tau", "y": "tau"}, "--x"),
    ],
)
def test_impossible_axes(options, words):
    with pytest.raises(UsageError, match=words):
        analyze(four(), **options)


def test_a_run_without_the_setting():
    with pytest.raises(InputError, match=r"ls-s0/best.h5: its run has no setting temperature"):
        analyze([run("soft", 5, temperature=2.0, method="ltd"), smooth(0.3, 4)], x="temperature",
                over="labels")  # fmt: skip


def test_the_same_run_twice():
    with pytest.raises(InputError, match="one of seed 0"):
        analyze([adr("1:1", "0.3", 50), adr("1:1", "0.3", 51)])


def test_files_without_attack_or_labels():
    result = analyze([adr("1:1", "0.3", None, config={"attack": "none"})])
    assert (result.numbers["best_robust_accuracy"], result.numbers["decided"]) == (None, None)
    assert result.rows[0][3:8] == (None, None, None, None, 0.9)
    assert "robust" not in result.text
    outside = adr("1:1", "0.3", None, config={"attack": "none"}, labels=torch.full((100,), -1))
    outside.info["trained"]["labels"] = "adr"
    with pytest.raises(InputError, match="needs labels"):
        analyze([outside])


def test_files_that_do_not_tell_how_they_were_trained():
    old = [without_settings(logits_of("ltd", seed=0, robust=k), k) for k in (2, 5)]
    for each, hits in zip(old, (2, 5), strict=True):
        each.info["parents"][0]["temperature"] = float(hits)
    result = analyze(old, x="temperature")
    assert [row[0] for row in result.rows] == [2.0, 5.0]
    assert result.numbers["settings_recorded"] is False
    with pytest.raises(MismatchError, match="does not tell"):
        analyze([*old, logits_of("ltd", temperature=3.0)], x="temperature")


def test_one_example():
    result = analyze([adr("1:1", lam, hits, n=1, clean=1) for lam, hits in ((0.3, 1), (0.5, 0))])
    assert (result.numbers["best_x"], result.numbers["decided"]) == (0.3, False)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["3", "2.5:2.0", "10", math.inf, "0.5:0.5"], ["0.5", "3", "10", "∞", "2.5→2"]),
        (["8/255", "0.01", "eps/4"], ["0.01", "8/255", "eps/4"]),
        ([True, False, None, [1, 2]], ["False", "None", "True", "[1, 2]"]),
    ],
)
def test_order_on_an_axis(values, texts):
    assert [each.text for each in sorted(mark(value) for value in values)] == texts


@pytest.mark.parametrize(
    "options",
    [{"x": "lambda", "y": "tau"}, {"x": "lambda", "over": "tau"}, {"x": "labels",
     "over": "lambda,tau,anneal"}],
)  # fmt: skip
def test_drawn(options, tmp_path):
    inputs = [*four(), adr("2.5:2.0", "0.7:0.95", 80)]
    path = tmp_path / "it.svg"
    plot.save(path, [("grid", analyze(inputs, **options))])
    assert path.stat().st_size > 5000


def test_in_a_pipe(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = "".join(
        cli("train", *TINY, "--method", "adr", "--epochs", "1", "-q", "--tau", f"{tau}:{tau}",
            "--lambda", "0.5:0.5", "--name", tau).out
        for tau in ("1", "2")
    )  # fmt: skip
    attacked = cli("attack", "--attack", "fgsm", "--limit", "40", "-q", stdin=trained)
    found = cli("analyze", "grid", "--x", "tau", "--plot", "it.png", stdin=attacked.out)
    assert found.code == 0, found.err
    assert found.record["rows"][1]["x"] == 2.0
    assert [row["robust_accuracy"] for row in found.record["rows"]] == [
        each["robust_accuracy"] for each in attacked.records
    ]
    refused = cli("analyze", "grid", "--x", "lambda", stdin=attacked.out)
    assert (refused.code, "differ in tau" in refused.err) == (4, True)

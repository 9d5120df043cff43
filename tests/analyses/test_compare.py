"""Two files on the same examples: counts by hand, intervals and tests against scipy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from advkit.analyses.compare import analyze
from advkit.errors import InputError, MismatchError, UsageError
from tests.analyses._files import PGD, certain, file_of


def cells(both, only_first, only_second, neither, **options):
    """Two files whose robust answers fall together in these counts; all are right when clean."""
    n = both + only_first + only_second + neither
    y = torch.arange(n) % 3
    counts = torch.tensor([both, only_first, only_second, neither])
    places = torch.repeat_interleave(torch.arange(4), counts)
    first = file_of(certain(y, 3, 0.9), y, robust=(places == 0) | (places == 1))
    second = file_of(
        certain(y, 3, 0.9), y, robust=(places == 0) | (places == 2), method="adr", **options
    )
    return first, second


def only(logits, rows):
    """Some rows of a file, as `--limit` leaves them."""
    kept = ("index", "labels", "clean", "adversarial", "norm", "broken_by")
    return dataclasses.replace(logits, **{name: getattr(logits, name)[rows] for name in kept})


def test_counts_and_test_of_a_pair():
    numbers = analyze(cells(50, 10, 30, 110)).numbers
    expected = {
        "files": 2, "n": 200, "same_model": False, "same_attack": True, "robust_both": 50,
        "robust_only_first": 10, "robust_only_second": 30, "robust_neither": 110,
        "robust_first_accuracy": 0.3, "robust_second_accuracy": 0.4, "robust_difference": 0.1,
        "robust_p": binomtest(10, 40).pvalue, "robust_decided": True,
        "robust_difference_interval": "bootstrap",
        "clean_only_first": 0, "clean_only_second": 0, "clean_difference": 0.0, "clean_p": 1.0,
        "clean_decided": False, "clean_examples_needed": None,
    }  # fmt: skip
    assert {name: numbers[name] for name in expected} == pytest.approx(expected)


def test_the_interval_is_a_paired_bootstrap_over_examples():
    numbers = analyze(cells(50, 10, 30, 110)).numbers
    first, second = (np.repeat(x, (50, 10, 30, 110)) for x in ([1, 1, 0, 0], [1, 0, 1, 0]))
    rows = np.random.default_rng(7).integers(200, size=(20_000, 200))
    expected = np.quantile((second - first)[rows].mean(1), (0.025, 0.975))
    found = numbers["robust_difference_low"], numbers["robust_difference_high"]
    assert found == pytest.approx(tuple(expected), abs=0.0051)  # one example of 200


def test_few_discordant_examples_do_not_make_it_sure():
    """Nobody differs on 50 examples: the interval is not a point."""
    numbers = analyze(cells(20, 0, 0, 30)).numbers
    assert numbers["robust_difference_interval"] == "adjusted wald"
    assert numbers["robust_difference_low"] < -0.03
    assert numbers["robust_difference_high"] > 0.03
    assert numbers["robust_examples_needed"] is None


def test_rows_in_another_order_are_the_same_examples():
    first, second = cells(50, 10, 30, 110)
    turned = only(second, torch.randperm(200, generator=torch.Generator().manual_seed(0)))
    assert analyze([first, turned]).numbers == analyze([first, second]).numbers


@pytest.mark.parametrize("turned", [False, True])
def test_a_file_of_fewer_examples_is_compared_on_those(turned):
    first, second = cells(50, 10, 30, 110)
    few = only(second, torch.arange(100))  # 50 both, 10 only first, 30 only second, 10 neither
    pair = [few, first] if turned else [first, few]
    result = analyze(pair)
    assert result.numbers["n"] == 100
    assert {result.numbers["first_n"], result.numbers["second_n"]} == {100, 200}
    assert result.numbers["robust_difference"] == pytest.approx(-0.2 if turned else 0.2)
    assert "compared on 100 common examples" in result.text


def test_other_data_other_examples_and_other_labels_do_not_fit():
    first, second = cells(5, 1, 1, 3)
    other = cells(5, 1, 1, 3, digest="sha256:e")[1]
    with pytest.raises(MismatchError, match=r"at-0.*adr-0.*other data"):
        analyze([first, other])
    apart = [only(first, torch.arange(6)), only(second, torch.arange(4, 10))]
    with pytest.raises(MismatchError, match="2 common examples of 6 and 6"):
        analyze(apart)
    labelled = dataclasses.replace(second, labels=(second.labels + 1) % 3)
    with pytest.raises(MismatchError, match="other labels"):
        analyze([first, labelled])
    with pytest.raises(InputError, match="an example twice"):
        analyze([first, dataclasses.replace(second, index=torch.zeros(10, dtype=torch.int64))])


def test_one_file_is_no_comparison():
    first, _ = cells(5, 1, 1, 3)
    with pytest.raises(UsageError, match="two logits files"):
        analyze([first])


def test_files_without_labels_are_refused():
    first, second = cells(5, 1, 1, 3)
    bare = dataclasses.replace(second, labels=torch.full((10,), -1))
    with pytest.raises(InputError, match=r"adr.*needs labels"):
        analyze([first, bare])


def test_without_an_attack_clean_accuracy_alone_is_compared():
    first, second = cells(5, 1, 1, 3)
    calm = dataclasses.replace(second, adversarial=None, norm=None, broken_by=None)
    result = analyze([first, calm])
    assert result.numbers["clean_difference"] == 0
    assert not [name for name in result.numbers if name.startswith("robust")]
    assert "not attacked" in result.text


def test_two_attacks_on_one_model_are_told_and_another_eps_is_warned_of():
    first, second = cells(5, 1, 1, 3, model="at-0-best-small-cnn", config={**PGD, "steps": 50})
    found = analyze([first, second])
    assert (found.numbers["same_model"], found.numbers["same_attack"]) == (True, False)
    assert found.numbers["same_threat"] is True
    assert "the attacks are compared" in found.text
    first, second = cells(5, 1, 1, 3, config={**PGD, "eps": "4/255"})
    found = analyze([first, second])
    assert found.numbers["same_threat"] is found.numbers["same_attack"] is False
    assert "warning: " in found.text
    first, second = cells(5, 1, 1, 3, config={**PGD, "eps": str(8 / 255), "seed": 3})
    assert analyze([first, second]).numbers["same_attack"] is True


def test_further_files_are_each_compared_with_the_first_and_p_values_adjusted():
    first, second = cells(100, 5, 17, 78)
    third = cells(100, 10, 10, 80, seed=1)[1]  # against the first's 105 right: 5 and 10
    result = analyze([first, second, third])
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    robust = [row for row in rows if row["what"] == "robust"]
    p = [binomtest(5, 22).pvalue, binomtest(5, 15).pvalue]
    assert [row["p"] for row in robust] == pytest.approx(p)
    assert [row["p_adjusted"] for row in robust] == pytest.approx([2 * p[0], p[1]])
    assert result.numbers == {
        "files": 3, "robust_compared": 2, "robust_differ": 1, "clean_compared": 2,
        "clean_differ": 0,
    }  # fmt: skip
    assert [row["second"] for row in robust] == ["adr s0", "adr s1"]


def test_a_million_examples():
    numbers = analyze(cells(500_000, 50_000, 50_500, 399_500)).numbers
    assert numbers["robust_p"] == pytest.approx(binomtest(50_000, 100_500).pvalue, rel=1e-6)
    half = (numbers["robust_difference_high"] - numbers["robust_difference_low"]) / 2
    assert half == pytest.approx(1.96 * np.sqrt(0.1005 / 1e6), rel=0.05)


def test_the_command_line(cli, tiny_logits, tmp_path):
    picture = tmp_path / "c.png"
    done = cli("analyze", "compare", tiny_logits, tiny_logits, "--plot", picture, "--json")
    assert done.code == 0, done.err
    assert done.record["robust_difference"] == 0
    assert done.record["same_model"] is True
    assert picture.stat().st_size > 1000
    assert cli("analyze", "compare", tiny_logits).code == 2

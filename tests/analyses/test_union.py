"""One net under several threat models: verdicts joined by hand, and what is refused."""

import dataclasses

import pytest
import torch
from scipy.stats import binomtest

from advkit.analyses.union import analyze
from advkit.errors import InputError, MismatchError, UsageError
from advkit.formulas.stats import paired_interval
from tests.analyses._files import PGD, certain, file_of

Y = torch.arange(8) % 3
CLEAN = certain(torch.cat([Y[:7], (Y[7:] + 1) % 3]), 3, 0.8)
"""The last example is wrong when clean."""
LINF = [1, 1, 1, 1, 1, 0, 0, 0]
L2 = [1, 1, 1, 0, 0, 1, 0, 0]
L1 = [1, 1, 0, 1, 0, 1, 0, 0]


def attacked(stands, norm="linf", eps="8/255", attack="pgd", **more):
    config = {**PGD, "attack": attack, "norm": norm, "eps": eps}
    given = {"model": "m", "path": f"{norm}.h5", **more}
    return file_of(CLEAN, Y, robust=torch.tensor(stands).bool(), config=config, **given)


def column(result, name):
    return [row[result.columns.index(name)] for row in result.rows]


def test_three_threat_models():
    result = analyze([attacked(LINF), attacked(L2, "l2", "0.5"), attacked(L1, "l1", "12")])
    assert column(result, "threat") == ["clean", "linf 8/255", "l2 0.5", "l1 12", "union"]
    assert column(result, "right") == [7, 5, 4, 4, 2]
    # Broken by l∞ alone: example 5; by l2 alone: 3; by l1 alone: 2. All break 6.
    assert column(result, "only") == [None, 1, 1, 1, None]
    assert column(result, "over_union") == [None, 3 / 8, 2 / 8, 2 / 8, None]
    for low, high, right in zip(
        *(column(result, name) for name in ("low", "high", "right")), strict=True
    ):
        ends = binomtest(right, 8).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((ends.low, ends.high))
    low, high = paired_interval(0, 3, 8)
    assert column(result, "over_union_low")[1] == max(low, 0)
    assert column(result, "over_union_high")[1] == high
    numbers = result.numbers
    assert (numbers["union_accuracy"], numbers["clean_accuracy"]) == (2 / 8, 7 / 8)
    assert (numbers["threats"], numbers["files"], numbers["n"]) == (3, 3, 8)
    # The first name of two equals.
    assert (numbers["weakest"], numbers["weakest_accuracy"]) == ("l1 12", 0.5)
    assert len(result.panels) == 2


def test_two_attacks_of_one_threat_model_count_as_one():
    """8/255 is the same however it is spelt."""
    spelt = str(8 / 255)
    result = analyze([attacked(LINF), attacked(L2, "linf", spelt, attack="square")])
    assert column(result, "threat") == ["clean", "linf 8/255", "union"]
    assert column(result, "attacks")[1] == "pgd, square"
    assert result.more == {"differs": {}}
    assert column(result, "right") == [7, 3, 3]
    assert column(result, "only")[1] == 4


def test_threat_models_attacked_otherwise_are_told_of():
    longer = {**PGD, "attack": "pgd", "norm": "l2", "eps": "0.5", "steps": 100}
    other = file_of(CLEAN, Y, robust=torch.tensor(L2).bool(), config=longer, model="m")
    result = analyze([attacked(LINF), other])
    assert result.more["differs"] == {"steps": [PGD["steps"], 100]}
    assert "note: attacked otherwise than in norm and eps: steps" in result.text
    both = [attacked(x, *threat, attack=name)
            for x, threat in ((LINF, ("linf", "8/255")), (L2, ("l2", "0.5")))
            for name in ("pgd", "square")]  # fmt: skip
    assert analyze(both).more == {"differs": {}}


def test_the_order_of_rows_and_files_changes_no_figure():
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    second = attacked(L2, "l2", "0.5")
    moved = dataclasses.replace(
        second,
        index=second.index[order],
        labels=second.labels[order],
        clean=second.clean[order],
        broken_by=second.broken_by[order],
    )
    plain = analyze([attacked(LINF), second])
    assert analyze([attacked(LINF), moved]).rows == plain.rows
    assert analyze([moved, attacked(LINF)]).numbers == plain.numbers


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([attacked(LINF)], UsageError, r"two logits files or more, got one \(linf.h5\)"),
        ([attacked(LINF), attacked(L2, "l2", model="n")], MismatchError,
         "linf.h5 and l2.h5: other checkpoints"),
        ([attacked(LINF), attacked(L2, "l2", digest="sha256:e")], MismatchError, "other data"),
        ([attacked(LINF), attacked(L2, "l2", index=torch.arange(8) + 1)], MismatchError,
         "7 common examples of 8 and 8"),
        ([attacked(LINF), file_of(CLEAN, Y, model="m", path="c.h5")], InputError,
         "c.h5: it is not attacked"),
        ([attacked(LINF), file_of(CLEAN, Y - Y - 1, model="m", path="o.h5")], InputError,
         "o.h5: union needs labels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together(files, error, message):
    with pytest.raises(error, match=message):
        analyze(files)


def test_a_part_of_the_examples_is_refused():
    """Accuracies of other examples would stand side by side."""
    few = attacked(L2, "l2")
    few = dataclasses.replace(
        few,
        index=few.index[:5],
        labels=few.labels[:5],
        clean=few.clean[:5],
        broken_by=few.broken_by[:5],
    )
    with pytest.raises(MismatchError, match=r"linf.h5 and l2.h5: 8 and 5 examples"):
        analyze([attacked(LINF), few])

"""Every number that a flag takes has limits on both sides, which are checked before any work."""

from __future__ import annotations

import math
import re

import pytest

from advkit.cli.app import commands, groups
from advkit.errors import UsageError
from advkit.options import Option, within
from tests.faults._runs import refused

EVERY = [
    (f"{group} {command.name}".strip(), option)
    for group, several in (("", commands()), *((name, of) for name, (_, of) in groups().items()))
    for command in several
    for option in command.every
]
NUMBERS = [(where, option) for where, option in EVERY if option.kind in ("int", "float", "ints")]
ENDS = re.compile(r"[\[(](-?[\d.e-]+), ?(-?[\d.e-]+)[\])]")


def test_there_are_numbers():
    assert len({option.name for _, option in NUMBERS}) > 40


@pytest.mark.parametrize(
    ("where", "option"), NUMBERS, ids=[f"{where} {option.flag}" for where, option in NUMBERS]
)
def test_a_number_has_limits_on_both_sides(where, option):
    ends = ENDS.fullmatch(option.limits)
    assert ends, f"{where} {option.flag} has limits {option.limits!r}"
    low, high = map(float, ends.groups())
    assert -math.inf < low < high < math.inf
    for value in (low - 1, max(high + 1, 1.01 * high), math.nan, math.inf, -math.inf):
        with pytest.raises(UsageError, match=re.escape(option.flag)):
            option.check(value)
    if option.default is not None:
        option.check(option.default)


COMMANDS = sorted({where for where, _ in NUMBERS})
WORDS = {"int": "is not a whole number", "float": "is not a number"}
"""Kind of an option → what is said of a value that is none."""


@pytest.mark.parametrize("where", COMMANDS)
def test_what_is_no_number_is_told_in_our_words(cli, where):
    """Whatever the version of the library that reads the command line says of it."""
    for name, option in NUMBERS:
        if name != where or option.kind not in WORDS:
            continue
        for value in ("abc", "", *(["1.5"] if option.kind == "int" else [])):
            outcome = cli(*where.split(), f"{option.flag}={value}")
            refused(outcome, 2, f"error: {option.flag} {value!r} {WORDS[option.kind]}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --data digits --eps x", "eps 'x' is not a number: write 0.031 or 8/255"),
        ("train --data digits --step-size x", "step size 'x' is not a number"),
        ("train --data digits --lr-drops 1.5", "--lr-drops '1.5' is not whole numbers apart by"),
        ("train --data digits --lr-drops a,b", "--lr-drops 'a,b' is not whole numbers apart by"),
        ("train --data digits --method adr --tau a:b", "--tau: 'a:b' is not a range"),
        ("attack x --autoattack --eps 8/0", "eps '8/0' is not a number"),
        ("attack x --attack pgd --step-size ten", "step size 'ten' is not a number"),
        ("analyze masking x --eps a", "eps 'a' is not a number"),
        ("analyze sweep x --eps-grid a,b", "--eps-grid: eps 'a' is not a number"),
        ("analyze sweep x --eps-grid eps/b", "--eps-grid: 'eps/b' is no share"),
        ("analyze input-landscape x --reach a", "--reach: 'a' is not a range"),
        ("analyze labels x --temperatures 1;2", "--temperatures '1;2': numbers apart by commas"),
    ],
)
def test_a_number_typed_as_text_is_named_with_what_it_is(
    cli, tmp_path, monkeypatch, tiny_run, words, said
):
    monkeypatch.chdir(tmp_path)
    words = words.replace(" x ", f" {tiny_run / 'best.safetensors'} ")
    refused(cli(*words.split()), 2, said)


def test_a_file_is_told_of_in_the_same_words(cli, tmp_path):
    (tmp_path / "a.toml").write_text('data = "digits"\nlr = "abc"\n')
    outcome = cli("train", "--config", tmp_path / "a.toml", "--print-config")
    refused(outcome, 2, "--lr 'abc' is not a number (from a.toml)")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_keeps_to_no_limits(value):
    """Whatever an added part declares."""
    with pytest.raises(UsageError, match=rf"^--share {value} is not a finite number$"):
        Option("share", "float", 0.5, "").check(value)
    assert not within(">= 0", math.nan)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --data digits --lr nan", "--lr nan"),
        ("train --data digits --threads 1000000", "--threads 1000000"),
        ("train --data digits --seed -1", "--seed -1"),
        ("train --data digits --seed 123456789012345678901234567890", "--seed 1234"),
        ("train --data digits --eps 1e999999999", "1e999999999"),
        ("train --data digits --step-size 1e999999999", "1e999999999"),
        ("train --data digits --method adr --tau 1e9", "--tau 1e9"),
        ("train --data digits --method adr --teacher-noise logits:1e99", "--teacher-noise"),
        ("train --data digits --width 1000000", "--width 1000000"),
        ("train --data digits --arch wrn-10-999999999", "--widen 999999999"),
        ("softlabels x --views 999999999999", "--views"),
        ("softlabels x --views " + "9" * 5000, "--views"),
        ("softlabels x --shard 1/" + "9" * 5000, "--shard"),
        ("softlabels x --top-k -1", "--top-k -1"),
        ("attack x --attack pgd --device cuda:²", "cuda:²"),
        ("attack x --attack pgd --device cuda:" + "9" * 5000, "cuda:"),
        ("attack x --attack pgd --fail-under nan", "--fail-under nan"),
        ("attack x --attack pgd --image-size 100000", "--image-size 100000"),
        ("analyze embedding x --perplexity nan", "--perplexity nan"),
        ("analyze embedding x --limit -3", "--limit -3"),
        ("analyze calibration x --bins 100000000000", "--bins"),
        ("analyze labels x --temperatures 1e-300", "--temperatures"),
        ("analyze input-landscape x --reach 1e300", "--reach 1e300"),
        ("analyze sweep x --steps-grid " + "9" * 5000, "--steps-grid"),
        ("search temperature x --threshold inf", "--threshold inf"),
        ("search temperature x --refine 100000000", "--refine"),
        ("search temperature x --grid 1,1e300", "--grid"),
        ("search adr --data digits --trials 0", "--trials 0"),
        ("search adr --data digits --budget " + "9" * 400 + "d", "--budget"),
        ("bench --data digits --budget " + "9" * 400 + "d", "--budget"),
    ],
)
def test_a_number_out_of_range_is_refused_before_any_work(cli, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    outcome = cli(*words.split())
    refused(outcome, 2, said)
    assert "()" not in outcome.err
    assert list(tmp_path.iterdir()) == []

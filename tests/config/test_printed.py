"""Methods as papers print them: one spelling for each, wherever a person reads it."""

import pytest

from advkit.config import methods, printed


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("natural", "Natural"),
        ("at", "PGD-AT"),
        ("at-wa", "AT+WA"),
        ("at-awp-wa", "AT+AWP+WA"),
        ("adr", "AT+ADR"),
        ("ls", "AT+LS"),
        ("trades", "TRADES"),
        ("trades-adr-awp-wa", "TRADES+ADR+AWP+WA"),
        ("trades+smoothing-wa", "TRADES+LS+WA"),
        ("ltd", "TRADES+LTD"),
        ("ltd-awp", "TRADES+LTD+AWP"),
        ("rslad", "RSLAD"),
        ("natural+soft", "Natural+soft labels"),
        ("at+soft", "AT+soft labels"),
        ("mine+onehot", "mine"),
        ("something else", "something else"),
    ],
)
def test_names(name, shown):
    assert printed.method(name) == shown


def test_no_two_methods_share_a_name():
    shown = [printed.method(name) for name in methods.names()]
    assert len(set(shown)) == len(shown)


def test_single_step_training_is_no_pgd_at():
    assert printed.method("at", "fgsm-rs") == "AT"
    assert printed.method("adr", "fgsm-rs") == "AT+ADR"

"""Methods and presets: names, and numbers typed in from the papers and the original code."""

import tomllib

import pytest

from advkit import method, registry
from advkit.config import coerced, options
from advkit.config import resolve as resolve_layers
from advkit.errors import UsageError
from advkit.method import Choices, parse
from advkit.schedules import LR_SCHEDULES
from advkit.threat import parse_eps, step_size

FILES = ("default", "paper", "repo")


def resolve(flags, preset=None):
    return resolve_layers((flags, "flag"), preset=preset)


def rows(name):
    path = registry.ROOT / "presets" / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["rule"]


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("natural", Choices("natural", "onehot", False)),
        ("at", Choices("at", "onehot", False)),
        ("at-wa", Choices("at", "onehot", True)),
        ("trades", Choices("trades", "onehot", False)),
        ("ls", Choices("at", "smoothing", False)),
        ("adr", Choices("at", "adr", False)),
        ("adr-wa", Choices("at", "adr", True)),
        ("trades-adr-wa", Choices("trades", "adr", True)),
        ("ltd", Choices("trades", "soft", False)),
        ("trades+smoothing-wa", Choices("trades", "smoothing", True)),
    ],
)
def test_parse(name, choices):
    assert parse(name) == choices
    assert choices.name == name


@pytest.mark.parametrize("name", method.names())
def test_names_round_trip(name):
    assert parse(name).name == name


@pytest.mark.parametrize("name", ["", "-wa", "adr-wa-wa", "wa", "ADR", "trades-ls"])
def test_unknown_method(name):
    with pytest.raises(UsageError, match="unknown method"):
        parse(name)


@pytest.mark.parametrize("name", FILES)
def test_preset_keys_are_options(name):
    known = {option.name for option in options()}
    for row in rows(name):
        assert set(row) <= {"source", "when", "values"}
        assert row["source"]
        assert row["values"]
        assert row["values"].keys() <= known
        for key, value in row["values"].items():
            fitted = coerced(key, value)
            assert (fitted, type(fitted)) == (value, type(value)), key


@pytest.mark.parametrize("name", FILES)
def test_preset_conditions_name_parts(name):
    shelves = {
        "data": registry.parts("data"),
        "labels": registry.parts("labels"),
        "objective": registry.parts("objectives"),
        "wa": (True, False),
    }
    for row in rows(name):
        for key, allowed in row.get("when", {}).items():
            assert isinstance(allowed, list), f"{key}: a list"
            for value in allowed:
                if key == "arch":
                    registry.split_numbers(value)
                else:
                    assert value in shelves[key]


COMMON = {
    "epochs": 200, "batch_size": 128, "lr": 0.1, "lr_schedule": "multistep",
    "lr_drops": [100, 150], "momentum": 0.9, "weight_decay": 5e-4, "norm": "linf",
    "attack_steps": 10, "ema_decay": 0.995,
}  # fmt: skip
ADR = {"tau": "2.5:2.0", "lambda": "0.7:0.95", "anneal": "cosine"}
PAPER = {"attack_bn": "eval", "attack_start": None}
REPO = {"attack_bn": "train"}
JOINT = {"attack_start": "positive", "joint_batch": True}
CASES = [
    ("paper", "at", COMMON | PAPER),
    ("paper", "adr", COMMON | ADR | PAPER),
    ("paper", "adr-wa", COMMON | ADR | PAPER),
    ("paper", "trades", COMMON | PAPER | {"beta": 6.0, "joint_batch": False}),
    ("paper", "trades-adr", COMMON | ADR | PAPER | {"beta": 6.0}),
    ("repo", "at", COMMON | REPO | {"attack_start": None}),
    ("repo", "adr", COMMON | ADR | REPO | {"attack_start": None}),
    ("repo", "trades", COMMON | REPO | JOINT | {"beta": 6.0}),
    ("repo", "trades-adr-wa", COMMON | ADR | REPO | JOINT | {"beta": 6.0}),
]
"""CIFAR-10: reference-behaviour, section 3, and what the code does beside (1.5, 1.6)."""


@pytest.mark.parametrize("arch", ["resnet18", "wrn-34-10"])
@pytest.mark.parametrize(("preset", "name", "expected"), CASES)
def test_cifar10_numbers(preset, name, expected, arch):
    found = resolve({"data": "cifar10", "arch": arch, "method": name}, preset=preset).settings
    flat = found.flat()
    assert {key: flat[key] for key in expected} == expected
    eps = parse_eps(found.eps)
    assert eps == 8 / 255
    assert step_size(found.step_size, eps) == 2 / 255


@pytest.mark.parametrize("name", ["adr", "trades-adr"])
def test_without_preset_cifar10_is_the_paper_s(name):
    """The defaults that `--help` shows are the paper's for CIFAR-10."""
    plain = resolve({"data": "cifar10", "method": name}).settings
    paper = resolve({"data": "cifar10", "method": name}, preset="paper").settings
    assert plain.drops == paper.drops == (100, 150)
    mine, theirs = ({**each.flat(), "lr_drops": None} for each in (plain, paper))
    assert step_size(mine.pop("step_size"), 8 / 255) == step_size(theirs.pop("step_size"), 0)
    assert mine == theirs


def test_natural_training_has_no_attack():
    for preset in (None, "paper", "repo"):
        found = resolve({"data": "cifar10", "method": "natural"}, preset=preset).settings
        assert found.attack_steps == 0
        assert found.lr_schedule in LR_SCHEDULES


@pytest.mark.parametrize("preset", method.PRESETS)
@pytest.mark.parametrize(
    "other", [{"data": "digits"}, {"data": "cifar10", "arch": "preact-resnet18"}]
)
def test_a_preset_without_numbers_says_so(preset, other):
    with pytest.raises(UsageError, match=f"--preset {preset} has no numbers for data"):
        resolve({**other, "method": "adr"}, preset=preset)


def test_later_rules_win():
    fitting = list(method.fitting("default", {"data": "digits", "labels": "adr"}))
    assert [sorted(rule.values) for rule in fitting] == [
        ["batch_size", "ema_decay", "epochs", "eps"],
        ["lambda", "tau"],
    ]


def test_no_preset_selects_on_the_test_set():
    """A held-out split of the training data is all that any preset can choose from."""
    assert not any("val" in key for name in FILES for row in rows(name) for key in row["values"])

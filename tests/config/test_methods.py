"""Methods and presets: names, and numbers typed in from the papers and the original code."""

import tomllib

import pytest

from advkit import registry
from advkit.config import methods
from advkit.config.coercion import coerced
from advkit.config.methods import Choices, parse
from advkit.config.resolve import resolve as resolve_layers
from advkit.config.settings import OPTIMIZERS, TRAIN_ATTACKS, options
from advkit.errors import UsageError
from advkit.formulas.schedules import LR_SCHEDULES
from advkit.formulas.threat import step_size

FILES = ("default", "paper", "repo")


def resolve(flags, preset=None):
    return resolve_layers((flags, "flag"), preset=preset)


def rows(name):
    path = registry.ROOT / "config" / "presets" / f"{name}.toml"
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


@pytest.mark.parametrize("name", methods.names())
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
        assert set(row) <= {"source", "when", "values", "open"}
        assert row["source"]
        assert bool(row.get("values")) != bool(row.get("open"))
        assert {*row.get("values", {}), *row.get("open", ())} <= known
        for key, value in row.get("values", {}).items():
            fitted = coerced(key, value)
            assert (fitted, type(fitted)) == (value, type(value)), key


@pytest.mark.parametrize("name", FILES)
def test_preset_conditions_name_parts(name):
    shelves = {
        "data": registry.parts("data"),
        "labels": registry.parts("labels"),
        "objective": registry.parts("objectives"),
        "awp": (True, False),
        "awp_form": ("original", "adr"),
        "joint_batch": (True, False),
        "train_attack": TRAIN_ATTACKS,
        "optimizer": OPTIMIZERS,
        "extra": (True, False),
        "base": ("at", "trades"),
        "wa": (True, False),
        "min_loss": (1.5,),
        "grad_align": (0.0, 0.2),
    }
    for row in rows(name):
        for key, allowed in row.get("when", {}).items():
            assert isinstance(allowed, list), f"{key}: a list"
            for value in allowed:
                if key == "arch":
                    registry.split_numbers(value)
                else:
                    assert value in shelves[key]


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
    for preset in (None, "paper"):
        found = resolve({"data": "cifar10", "method": "natural"}, preset=preset).settings
        assert found.attack_steps == 0
        assert found.lr_schedule in LR_SCHEDULES


@pytest.mark.parametrize("preset", methods.PRESETS)
@pytest.mark.parametrize(
    "other", [{"data": "digits"}, {"data": "cifar10", "arch": "preact-resnet18"}]
)
def test_a_preset_without_numbers_says_so(preset, other):
    with pytest.raises(UsageError, match=f"--preset {preset} has no numbers for data"):
        resolve({**other, "method": "adr"}, preset=preset)


def test_later_rules_win():
    fitting = list(methods.fitting("default", {"data": "digits", "labels": "adr"}))
    assert [sorted(rule.values) for rule in fitting] == [
        ["batch_size", "ema_decay", "epochs", "eps"],
        ["lambda", "tau"],
    ]


def test_no_preset_selects_on_the_test_set():
    """A held-out split of the training data is all that any preset can choose from."""
    assert not any(
        "val" in key for name in FILES for row in rows(name) for key in row.get("values", ())
    )

"""What of the options typed for several methods each of them takes."""

from __future__ import annotations

import pytest

from advkit.bench.options import BenchOptions
from advkit.bench.stage import _configuration
from advkit.config.resolve import resolve
from advkit.search.temperature import _without_objective

ATTACK = {"train_attack": "n-fgsm", "start_radius": 1.5, "grad_align": 0.2, "select": "margin"}


def configured(method, **flags):
    options = BenchOptions(settings={"data": "digits", "arch": "small-cnn", **flags})
    return _configuration(options, method)


@pytest.mark.parametrize("method", ["ltd", "rslad", "ard"])
def test_a_teacher_s_temperature_is_every_distillation_s(method):
    assert configured(method, temperature=3.0).flat()["temperature"] == 3.0


def test_natural_training_takes_none_of_an_attack():
    natural, at = (configured(method, **ATTACK) for method in ("natural", "at"))
    assert (natural.attack_steps, natural.train_attack, natural.select) == (0, "pgd", "pgd")
    assert {key: at.flat()[key] for key in ATTACK} == ATTACK


def test_an_objective_s_options_are_its_own():
    flags = {"min_loss": 1.5, "beta": 4.0, "kl_weight": 0.1}
    for method, taken in (("at", {"min_loss"}), ("score", {"beta"}), ("rslad", {"kl_weight"})):
        flat = configured(method, **flags).flat()
        assert {key for key in flags if key in flat} == taken


@pytest.mark.parametrize(
    "flags",
    [
        {"method": "ltd", **ATTACK},
        {"method": "at+soft", "min_loss": 1.5},
        {"method": "rslad", "kl_weight": 0.1, "adversarial_weight": 0.5},
    ],
)
def test_a_search_s_substitute_is_natural(flags):
    """As the temperature search resolves it: the same options, without what students are for."""
    layer = ({"data": "digits", **flags}, "flag")
    chosen = {"temperature": 2.0, "objective": "natural", "attack_steps": 0}
    found = resolve(_without_objective(layer), (chosen, "trial")).settings
    assert (found.objective, found.labels, found.attack_steps) == ("natural", "soft", 0)


def test_noise_is_drawn_where_training_would_draw_it():
    options = BenchOptions(settings={"data": "digits", "arch": "small-cnn"})
    drawn = {kind: _configuration(options, "at", kind).noise for kind in ("cpu", "cuda")}
    assert drawn == {"cpu": "host", "cuda": "device"}

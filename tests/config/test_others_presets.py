"""Numbers of codes beside ADR's and LTD's, typed in from their scripts by a second reader.

RSLAD: zibojia/RSLAD c40e04f. ARD: goldblum/AdversariallyRobustDistillation 779ade3.
"""

from __future__ import annotations

import pytest

from advkit.config.resolve import resolve
from advkit.config.settings import UNTOLD
from tests.config.preset_tables import Run
from tests.config.test_presets import comparable

PGD = {
    "norm": "linf", "eps": 8 / 255, "attack_steps": 10, "step_size": 2 / 255, "clip_start": False,
}  # fmt: skip
SGD = {
    "lr": 0.1, "lr_schedule": "multistep", "momentum": 0.9, "nesterov": False,
    "weight_decay": 2e-4, "normalise": False, "last_batch": "keep",
}  # fmt: skip
RSLAD = {
    **PGD, **SGD, "epochs": 300, "lr_drops": (215, 260, 285), "batch_size": 128,
    "attack_bn": "eval", "attack_start": "normal", "temperature": 1.0, "kl_weight": 0.1,
    "adversarial_weight": 5 / 6,
}  # fmt: skip
ARD = {
    **PGD, **SGD, "epochs": 200, "attack_bn": "train", "attack_start": "uniform",
    "lr_drops": (100,),  # at 150 the code sets the rate of 100 again
    "temperature": 30.0, "adversarial_weight": 1.0,
}  # fmt: skip
RUNS = [
    Run("repo", "cifar10", "resnet18", "rslad", RSLAD),
    Run("repo", "cifar100", "resnet18", "rslad-wa", RSLAD),
    Run("repo", "cifar10", "resnet18", "ard", {**ARD, "batch_size": 128, "kl_weight": 0.1}),
    Run("repo", "cifar100", "resnet18", "ard", {**ARD, "batch_size": 256, "kl_weight": 0.01}),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_numbers(run):
    found = comparable(resolve((run.flags, "flag"), preset=run.preset).settings)
    assert {key: found[key] for key in run.expected} == run.expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("rslad", {"temperature": 1.0, "clip_start": False, "attack_bn": "eval"}),
        ("ard", {"temperature": 30.0, "clip_start": False, "attack_bn": "eval"}),
        ("score", {"attack_bn": "frozen", "clip_start": True, "beta": 3.0}),
    ],
)
def test_what_a_step_is_without_a_preset(method, expected):
    found = resolve(({"data": "digits", "method": method}, "flag")).settings.flat()
    assert {key: found[key] for key in expected} == expected


def test_one_temperature_for_teacher_and_student():
    for method, options in (("ard", {}), ("ard", {"temperature": 4.0})):
        flags = {"data": "digits", "method": method, **options}
        parts = resolve((flags, "flag")).settings.parts
        wanted = options.get("temperature", 30.0)
        assert parts["objectives"]["temperature"] == parts["labels"]["temperature"] == wanted


def test_what_earlier_descriptions_did_not_say_is_told_where_it_is_asked_for():
    plain = resolve(({"data": "digits"}, "flag")).settings
    assert not plain.described().keys() & UNTOLD.keys()
    asked = resolve(({"data": "digits", "min_loss": 1.5}, "flag")).settings
    assert asked.described() == {**plain.described(), "min_loss": 1.5}

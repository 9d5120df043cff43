"""Every objective with every label source, weight perturbation and average: a step, or exit 2."""

from __future__ import annotations

import itertools

import pytest
import torch

from advkit import data, registry
from advkit.objectives import REMEMBERED
from tests.training._teaching import write_teacher
from tests.training.test_learner import step, trainer

OBJECTIVES, LABELS = (sorted(registry.parts(shelf)) for shelf in ("objectives", "labels"))
EARLY = {"introspect_from": 1, "memory_from": 1, "ramp": "1:2"}
"""What lets memories and late terms count in the first step, where an objective has it."""


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    return write_teacher(digits, tmp_path_factory.mktemp("teacher") / "t.safetensors", 11)


@pytest.mark.parametrize(("objective", "labels"), [*itertools.product(OBJECTIVES, LABELS)])
def test_a_step_of_every_pair(digits, teacher, objective, labels):
    part = registry.part("objectives", objective)
    own = {option.name for option in part.options}
    roles = {*part.constants.get("NEEDS", ()), *(["teacher"] if labels == "soft" else [])}
    flags = {
        **{name: value for name, value in EARLY.items() if name in own},
        **{role.replace("-", "_"): teacher for role in roles},
        "attack_steps": int(part.constants.get("ATTACKS", True)),
        "awp": 0.005, "wa": True,
    }  # fmt: skip
    made = trainer(digits, objective=objective, labels=labels, **flags)
    before = [p.detach().clone() for p in made.learner.model.parameters()]
    batch = made.batches.at(made.batches.order(0), 0, 0)
    output = made.learner.learn(batch, 0, 0)
    assert bool(output.loss.isfinite())
    assert REMEMBERED not in output.logits
    after = list(made.learner.model.parameters())
    assert all(bool(p.isfinite().all()) for p in after)
    assert any(not torch.equal(p, was) for p, was in zip(after, before, strict=True))
    step(made, 1)

"""Every objective with every label source and augmentation, under each optimiser and inner attack.

What makes sense runs a step, the rest is exit 2 with the reason.
"""

from __future__ import annotations

import itertools

import pytest

from advkit import data, registry
from advkit.errors import UsageError
from advkit.objectives import REMEMBERED
from tests.training._teaching import write_teacher
from tests.training.test_learner import step, trainer

OBJECTIVES, LABELS, AUGMENTATIONS = (
    sorted(registry.parts(shelf)) for shelf in ("objectives", "labels", "augment")
)
EARLY = {"introspect_from": 1, "memory_from": 1, "ramp": "1:2"}
"""What lets memories and late terms count in the first step, where an objective has it."""
ATTACKED = (
    {"awp": 0.005, "wa": True},
    {"train_attack": "n-fgsm", "attack_steps": 1},
    {"train_attack": "fgsm-rs", "attack_steps": 1, "grad_align": 0.2, "awp": 0.005, "wa": True},
    {"optimizer": "adamw", "lr": 1e-3, "clip_grad_norm": 1.0, "attack_bn": "frozen"},
)
"""Weight spaces, inner attacks and optimisers of objectives that attack."""
NATURAL = ({"wa": True}, {"awp": 0.005}, {"optimizer": "adamw", "lr": 1e-3})


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    return write_teacher(digits, tmp_path_factory.mktemp("teacher") / "t.safetensors", 11)


def keeps(objective: str) -> bool:
    return hasattr(registry.load("objectives", objective), "memory")


@pytest.mark.parametrize(("objective", "labels"), [*itertools.product(OBJECTIVES, LABELS)])
def test_a_step_of_every_pair(digits, teacher, objective, labels):
    part = registry.part("objectives", objective)
    attacks = part.constants.get("ATTACKS", True)
    own = {option.name for option in part.options}
    roles = {*part.constants.get("NEEDS", ()), *(["teacher"] if labels == "soft" else [])}
    flags = {
        **{name: value for name, value in EARLY.items() if name in own},
        **{role.replace("-", "_"): teacher for role in roles},
    }
    spaces = ATTACKED if attacks else NATURAL
    turn = OBJECTIVES.index(objective) + LABELS.index(labels)
    for number, augment in enumerate(AUGMENTATIONS):
        # In turn: every pair meets every augmentation, and over all pairs each meets every space.
        more = {"attack_steps": int(attacks), **spaces[(turn + number) % len(spaces)]}
        asked = {"objective": objective, "labels": labels, "augment": augment, **flags, **more}
        if augment == "cutmix" and keeps(objective):
            with pytest.raises(UsageError, match=f"cutmix: .* {objective} keeps a memory"):
                trainer(digits, **asked)
            continue
        made = trainer(digits, **asked)
        before = [p.detach().clone() for p in made.learner.model.parameters()]
        batch = made.batches.at(made.batches.order(0), 0, 0)
        output = made.learner.learn(batch, 0, 0)
        assert bool(output.loss.isfinite()), asked
        assert REMEMBERED not in output.logits
        after = list(made.learner.model.parameters())
        assert all(bool(p.isfinite().all()) for p in after), asked
        assert any(not p.equal(was) for p, was in zip(after, before, strict=True)), asked
    step(made, 1)
    assert float(made.progress.sums[0]) == len(batch.y)

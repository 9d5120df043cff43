"""Teachers that an objective asks, and memories: bound, checked, fixed, and there after a stop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from advkit import data
from advkit.config.resolve import resolve
from advkit.errors import InputError, MismatchError, Stopped, UsageError
from advkit.training import binding, remembering
from advkit.training.options import TrainOptions
from advkit.training.parts import Keeping
from advkit.training.run_folder import RunFolder
from tests.training._teaching import write_teacher
from tests.training.test_learner import step, trainer
from tests.training.test_run import SMALL, contents, go, stop_at

KEEPING = {
    "iad": {"introspect_from": 2},
    "sat": {"memory_from": 1},
    "te": {"ramp": "1:2"},
    "ikl": {"divergence": "gkl"},
    "hat": {},
    "saad": {},
}
"""Methods of each new kind, so that what is new has its effect within two epochs."""


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    return write_teacher(digits, tmp_path_factory.mktemp("teacher") / "t.safetensors", 11)


def more_of(method, teacher):
    settings = resolve(({**SMALL, "method": method}, "test")).settings
    given = {role.replace("-", "_"): teacher for role in settings.teachers}
    return {**KEEPING[method], **given}


@pytest.mark.parametrize("method", KEEPING)
def test_stopped_in_the_second_epoch_is_never_stopped(tmp_path, monkeypatch, teacher, method):
    more = more_of(method, teacher)
    assert go(tmp_path / "whole", method, **more)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)  # three steps, a validation batch and an epoch's end come before
        with pytest.raises(Stopped):
            go(tmp_path / "run", method, **more)
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert any(name.startswith("memory.objectives.") for name in state) == (
        method in ("sat", "te", "ikl")
    )
    assert go(tmp_path / "run", method, resume=True, **more)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_memory_of_another_shape_is_refused(digits, tmp_path):
    made = trainer(digits, method="sat")
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    made.files.save(folder, made.learner, made.progress)
    made.learner.memory["objectives"]["targets"] = torch.zeros(3, 10)
    with pytest.raises(InputError, match="memory of another method"):
        made.restore(folder)


def bound(**settings):
    options = TrainOptions(settings={**SMALL, **settings})
    return binding.configuration(options)


def test_a_teacher_is_bound_by_its_digest_and_brings_data_and_net(teacher):
    options = TrainOptions(settings={"method": "iad", "teacher": teacher})
    settings = binding.configuration(options).settings
    assert settings.teacher_digest.startswith("sha256:")
    assert (settings.data, settings.arch) == ("digits", "small-cnn")
    assert (settings.limit, settings.val_size) == (120, 20)
    described = settings.described()
    assert described["teacher_digest"] == settings.teacher_digest
    assert not {"teacher", "natural_teacher", "natural_teacher_digest"} & described.keys()


def test_an_objective_without_a_teacher_describes_none():
    settings = resolve(({**SMALL, "method": "at"}, "test")).settings
    assert not {"teacher_digest", "natural_teacher_digest"} & settings.described().keys()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"method": "iad"}, UsageError, "asks a teacher: give --teacher CHECKPOINT"),
        ({"method": "at", "teacher": "TEACHER"}, UsageError, "--teacher also to --objective adaad"),
        ({"method": "iad", "teacher": "TEACHER", "natural_teacher": "TEACHER"}, UsageError,
         "--natural-teacher belongs to"),
        ({"method": "iad", "teacher": "TEACHER", "teacher_digest": "sha256:0"}, MismatchError,
         "other teacher than the run began with"),
        ({"method": "iad", "teacher": "nowhere.safetensors"}, InputError, "nowhere"),
    ],
)  # fmt: skip
def test_teachers_that_do_not_go(teacher, given, error, words):
    named = {key: teacher if value == "TEACHER" else value for key, value in given.items()}
    with pytest.raises(error, match=words):
        bound(**named)


def test_a_teacher_from_the_stage_before(teacher):
    record = {"kind": "checkpoint", "path": teacher, "data": "digits"}
    options = TrainOptions(settings={"method": "iad"})
    settings = binding.configuration(options, lambda _: record).settings
    assert settings.teacher == teacher


def test_a_teacher_of_other_classes_or_images(digits, teacher):
    few = replace(digits, classes=(*digits.classes[:-1], "x"))
    with pytest.raises(MismatchError, match=r"the teacher's classes are .* --teacher of this data"):
        trainer(few, method="iad", teacher=teacher)
    small = replace(digits, images=digits.images[:, :, 1:-1, 1:-1].contiguous())
    with pytest.raises(MismatchError, match="the teacher's images are 1, "):
        trainer(small, method="iad", teacher=teacher)


def test_a_teacher_is_a_parent_stays_as_it_is_and_takes_no_gradient(digits, teacher):
    made = trainer(digits, method="iad", teacher=teacher, introspect_from=1)
    (net,) = made.learner.taught.values()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step(made)
    assert not any(module.training for module in net.modules())
    assert all(not p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [parent.get("use") for parent in made.files.parents] == [None, "teacher"]


def test_one_teacher_gives_labels_and_answers_at_adversarial_images(digits, teacher):
    made = trainer(digits, method="iad+soft", teacher=teacher, temperature=2.0)
    step(made)
    assert [parent["kind"] for parent in made.files.parents] == ["data", "checkpoint", "checkpoint"]


def test_a_label_source_keeps_a_memory_of_the_rows_that_it_gave(digits):
    """Each row is half the one before of that example and half its one-hot label."""
    made = trainer(digits, method="at", epochs=2)
    learner, seen = made.learner, []

    def targets(batch, context):
        seen.append(context.memory["rows"][batch.index].clone())
        return 0.5 * seen[-1] + 0.5 * torch.eye(10)[batch.y]

    def update(memory, index, y, told, epoch):
        memory["rows"][index] = told

    keeping = Keeping(lambda y, classes: {"rows": torch.full((len(y), classes), 0.1)}, update)
    learner.parts = replace(learner.parts, targets=targets, keeps={"labels": keeping})
    labels = digits.labels
    learner.memory = remembering.begun(learner.parts, labels, 10, torch.device("cpu"))
    for number in range(2 * len(made.batches)):
        step(made, number)
    first, second = seen[0], torch.cat(seen[len(made.batches) :])
    assert torch.equal(first, torch.full((20, 10), 0.1))
    torch.testing.assert_close(second.sort(1).values[:, -2:], torch.tensor([[0.05, 0.55]] * 100))
    packed = remembering.packed(learner.memory)
    assert packed.keys() == {"memory.labels.rows"}
    untrained = torch.ones(len(labels), dtype=torch.bool)
    untrained[made.batches.positions] = False
    assert bool((packed["memory.labels.rows"][untrained] == 0.1).all())

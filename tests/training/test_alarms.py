"""When the alarms of training ring: planted rows, constructed nets, what a run keeps of them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from advkit import data, models
from advkit.config.resolve import resolve
from advkit.training import alarms, stage
from advkit.training.inner_attack import Still
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.selection import Validation
from tests.softlabels.test_labelling import Heard
from tests.training.test_learner import step, trainer

CPU = torch.device("cpu")
FLAGS = {"data": "digits", "limit": 120, "val_size": 60, "batch_size": 20, "width": 2,
         "attack_steps": 1}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


def run(folder, reporter=None, **flags):
    """Train a small run and return its folder and settings."""
    chosen = resolve(({**FLAGS, "epochs": 1, **flags}, "flag"))
    run_folder = RunFolder(folder)
    train(chosen, run_folder, device=CPU, threads=1, reporter=reporter)
    return run_folder, chosen.settings


@pytest.mark.parametrize(
    ("robust", "share", "rings"),
    [(0.98, 0.91, True), (0.97, 0.91, False), (0.98, 0.9, False), (None, 1.0, False)],
)
def test_masking_needs_both_signs(robust, share, rings):
    row = {"target_entropy": share * math.log(10)}
    if robust is not None:
        row["train_robust_accuracy"] = robust
    text = alarms.masking(row, 10)
    assert (text is not None) is rings
    if text is not None:
        assert "0.980" in text
        assert "2.10 of 2.30" in text


# --- labels ---


def row_of(target):
    """Return the row of an epoch whose labels are all this one, its true class first."""
    entropy = -sum(p * math.log(p) for p in target if p)
    return {"target_entropy": entropy, "target_mass": target[0]}


@pytest.mark.parametrize(
    ("target", "rings"),
    [
        ([0.19] + [0.09] * 9, True),
        ([0.28] + [0.08] * 9, False),  # entropy 0.95 ln C, but nearly three times chance
        ([0.55] + [0.05] * 9, False),  # smoothing of a half
        ([0.0, 1.0] + [0.0] * 8, False),  # wrong, but sure
        ([1.0] + [0.0] * 9, False),
        ([0.6, 0.4], True),  # two classes: entropy 0.97 ln C
        ([0.7, 0.3], False),  # 0.88 ln C
        ([0.03] + [0.97 / 99] * 99, False),
        ([0.019] + [0.981 / 99] * 99, True),
    ],
)
def test_labels_more_uniform_than_informative(target, rings):
    text = alarms.uniform(row_of(target), len(target))
    assert (text is not None) is rings
    if text:
        assert f"mass of {target[0]:.3f}" in text


@pytest.mark.parametrize(("smoothing", "rings"), [(0.95, True), (0.5, False)])
def test_flat_labels_in_a_run(tmp_path, smoothing, rings):
    heard = Heard()
    folder, chosen = run(tmp_path / "run", heard, method="ls", smoothing=smoothing, epochs=2)
    for row in folder.rows():
        assert row["target_mass"] == pytest.approx(1 - 0.9 * smoothing)
        assert row.get("labels_alarm", False) is rings
    assert sum("more uniform" in one for one in heard.warnings) == rings
    (record,) = stage._records(folder, chosen, "final")
    assert record.get("labels_alarm", False) is rings


# --- gradient ---


@pytest.mark.parametrize(("share", "rings"), [(0.011, True), (0.01, False), (0.0, False)])
def test_loss_of_gradient(share, rings):
    assert (alarms.gradient({"zero_gradient": share}) is not None) is rings
    assert alarms.gradient({}) is None


def test_an_example_is_still_that_had_no_gradient_at_any_step():
    still = Still()
    first = torch.zeros(4, 1, 2, 2)
    first[1, 0, 1, 0], first[3] = 1e-38, torch.nan  # however small; and not a number is not zero
    still(first)
    second = torch.zeros(4, 1, 2, 2)
    second[2] = -1.0
    still(second)
    assert still.examples.tolist() == [True, False, False, False]


class Saturated(nn.Module):
    """A net whose input is rounded: no gradient reaches the image."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(torch.round(x * 255) / 255)


@pytest.mark.parametrize("attack_steps", [1, 3])
def test_a_net_without_gradient_rings_and_another_does_not(digits, attack_steps):
    for masked in (True, False):
        made = trainer(digits, attack_steps=attack_steps)
        if masked:
            made.learner.passes = Saturated(made.learner.model)
        step(made)
        row = made._row()
        assert row["zero_gradient"] == float(masked)
        made._watch(row)
        assert row.get("gradient_alarm", False) is masked


def test_without_an_attack_nothing_is_said_of_gradients(digits):
    made = trainer(digits, method="natural")
    step(made)
    assert "zero_gradient" not in made._row()


# --- PGD and margin ---


@pytest.mark.parametrize(
    ("robust", "margin", "n", "rings"),
    [
        (0.5, 0.40, 1000, True),  # 100 of 500 fall: Wilson from 0.167
        (0.5, 0.43, 1000, True),  # 70: from 0.112
        (0.5, 0.44, 1000, False),  # 60: from 0.094
        (0.5, 0.40, 60, False),  # 6 of 30: from 0.095
        (0.5, 0.0, 60, True),  # 30 of 30
        (0.5, 0.0, 58, False),  # 29 of 29: too few stand
        (0.01, 0.0, 100, False),  # 1 of 1, whose interval is from 0.207
        (0.5, 0.49, 1000, False),
        (0.5, 0.51, 1000, False),  # the margin is the weaker attack
        (0.0, 0.0, 1000, False),
    ],
)
def test_divergence_is_an_interval(robust, margin, n, rings):
    for key in ("val_margin_accuracy", "val_apgd_accuracy", "final_margin_accuracy"):
        for suffix in ("", "-ema"):
            row = {f"val_robust_accuracy{suffix}": robust, key + suffix: margin}
            text = alarms.margins(row, n)
            assert (text is not None) is rings
            if text:
                assert f"{1 - margin / robust:.0%} fall" in text
    assert alarms.margins({"val_robust_accuracy": robust}, n) is None


def test_the_last_epoch_tells_both_figures(tmp_path):
    """The margin's does not choose, and changes nothing that does."""
    folder, chosen = run(tmp_path / "run", method="at-wa", epochs=2)
    other, _ = run(tmp_path / "other", method="at-wa", epochs=2, select="margin")
    first, last = folder.rows()
    assert not [key for key in first if "margin" in key]
    for suffix, role in (("", "final"), ("-ema", "final-ema")):
        figure = last[f"final_margin_accuracy{suffix}"]
        assert figure == other.rows()[-1][f"val_margin_accuracy{suffix}"]
        (record,) = [r for r in stage._records(folder, chosen, "all") if r["role"] == role]
        assert record["final_margin_accuracy"] == figure
        assert "margin_accuracy" not in record
    assert not [key for key in other.rows()[-1] if key.startswith("final")]


def test_natural_training_has_no_margin(tmp_path):
    folder, _ = run(tmp_path / "run", method="natural", attack_steps=0)
    assert not [key for key in folder.rows()[-1] if "margin" in key]


def test_a_net_that_only_cross_entropy_cannot_break_rings(digits, tmp_path, monkeypatch):
    """Planted: whatever was trained, PGD leaves a half and the margin a fifth."""

    def measure(self, model, between):
        figures = {"clean_accuracy": 0.9, "robust_accuracy": 0.5}
        return figures | ({"margin_accuracy": 0.2} if self.select == "margin" else {})

    monkeypatch.setattr(Validation, "measure", measure)
    heard = Heard()
    folder, chosen = run(tmp_path / "run", heard, epochs=2)
    assert [row.get("margin_alarm", False) for row in folder.rows()] == [False, True]
    assert sum("diverge" in one for one in heard.warnings) == 1
    (best,) = stage._records(folder, chosen, "best")
    assert best["epoch"] == 1
    assert (best["margin_alarm"], best["final_margin_accuracy"]) == (True, 0.2)


# --- teacher ---


def log(role="teacher", **figures):
    """Return two rows: a teacher's (clean, robust) in the first, the student's in both."""
    clean, robust = figures["student"]
    own = {"val_clean_accuracy": clean, "val_robust_accuracy": robust}
    clean, robust = figures["taught_by"]
    return [{**own, f"{role}_clean_accuracy": clean, f"{role}_robust_accuracy": robust}, own]


@pytest.mark.parametrize(
    ("taught_by", "student", "natural", "rings"),
    [
        ((0.9, 0.3), (0.8, 0.5), False, True),  # robust: what it is asked for
        ((0.9, 0.5), (0.8, 0.3), False, False),
        ((0.9, 0.46), (0.8, 0.5), False, False),  # within chance of 1,000 images
        ((0.9, 0.0), (0.8, 0.5), True, False),  # natural: clean is what it is asked for
        ((0.7, 0.0), (0.8, 0.5), True, True),
        ((0.9, 0.0), (0.8, 0.5), None, False),  # imported: natural perhaps
        ((0.7, 0.3), (0.8, 0.5), None, True),
    ],
)
def test_teacher_worse_than_its_student(taught_by, student, natural, rings):
    rows = log(taught_by=taught_by, student=student)
    text = alarms.teacher(rows, 1000, {"teacher": natural})
    assert (text is not None) is rings
    if text:
        assert "teacher worse than its student" in text
        assert "--teacher" in text
    assert alarms.teacher(rows, 1000, {}) is None
    assert alarms.teacher(rows[1:], 1000, {"teacher": natural}) is None


def test_an_average_that_lags_is_told_with_its_cause():
    rows = log(role="average", taught_by=(0.5, 0.1), student=(0.8, 0.4))
    assert "--ema-decay" in alarms.teacher(rows, 1000, {"average": False})


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """A net trained with an attack, and one without."""
    made = {}
    for method in ("at", "natural"):
        place = tmp_path_factory.mktemp("nets") / method
        run(place, method=method, attack_steps=int(method == "at"))
        made[method] = str(place / "best.safetensors")
    return made


def own(row, role):
    return {key.removeprefix(f"{role}_") for key in row if key.startswith(role)}


def test_a_fixed_teacher_is_measured_once(nets, tmp_path):
    folder, _ = run(tmp_path / "run", method="adaad", teacher=nets["at"], epochs=2)
    first, second = folder.rows()
    robust = json.loads(RunFolder(tmp_path / "run").lines()[0])["teacher_robust_accuracy"]
    info = models.load_finite(nets["at"], CPU)[1]
    assert first["teacher_clean_accuracy"] == info["metrics"]["clean_accuracy"]
    assert robust == info["metrics"]["robust_accuracy"]
    assert own(second, "teacher") == set()


def test_a_natural_teacher_is_judged_clean_and_both_roles_are_told(nets, tmp_path):
    both = {"teacher": nets["at"], "natural_teacher": nets["natural"]}
    folder, _ = run(tmp_path / "run", method="kd", **both)
    (row,) = folder.rows()
    assert own(row, "teacher") == {"clean_accuracy", "robust_accuracy"}
    assert own(row, "natural_teacher") == {"clean_accuracy"}


def test_the_teacher_of_soft_labels_is_measured_and_no_file_can_be(nets, tmp_path):
    folder, _ = run(tmp_path / "run", method="rslad", teacher=nets["at"])
    assert own(folder.rows()[0], "teacher") == {"clean_accuracy", "robust_accuracy"}


@pytest.mark.parametrize("method", ["adr", "adr-wa", "at-wa"])
def test_the_average_that_teaches_is_measured_in_the_last_epoch(tmp_path, method):
    folder, _ = run(tmp_path / "run", method=method, epochs=2)
    first, last = folder.rows()
    teaches = method.startswith("adr")
    assert own(first, "average") == set()
    assert own(last, "average") == ({"clean_accuracy", "robust_accuracy"} if teaches else set())
    if method == "adr-wa":
        assert last["average_robust_accuracy"] == last["val_robust_accuracy-ema"]


# --- what a run keeps ---


def test_looking_changes_no_weight(digits):
    """The count of gradients, and the measuring of an average and of the margin."""
    states = []
    for looking in (True, False):
        made = trainer(digits, method="adr", attack_steps=2)
        step(made)
        if looking:
            made.validation.closing.measure(made.learner.model, lambda: None)
            made.watching.measure([], {}, True, lambda: None)
        step(made, 1)
        states.append(made.learner.model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_alarms_are_told_once_and_kept_by_a_resumed_run(digits):
    heard = Heard()
    made = trainer(digits, val_size=60)
    made.reporter = heard
    for epoch in (1, 2):
        row = {"epoch": epoch, "target_entropy": 2.3, "target_mass": 0.11, "zero_gradient": 0.5}
        made._watch(row)
        assert (row["labels_alarm"], row["gradient_alarm"]) == (True, True)
        made.progress.lines.append(json.dumps(row))
    assert len(heard.warnings) == 2
    metrics = made._metrics(3, {"target_entropy": 0.0}, "")
    assert (metrics["labels_alarm"], metrics["gradient_alarm"]) == (True, True)
    assert "margin_alarm" not in metrics


# --- labels that nobody chose ---


@pytest.mark.parametrize(
    ("flags", "told"),
    [({"objective": "rslad"}, True), ({"objective": "ard"}, True), ({"objective": "at"}, False),
     ({"objective": "rslad", "labels": "onehot"}, False)],
)  # fmt: skip
def test_one_hot_labels_of_a_distilling_objective_are_told(tmp_path, flags, told):
    heard = Heard()
    chosen = resolve(({**FLAGS, "epochs": 1, **flags}, "flag"))
    train(chosen, RunFolder(tmp_path / "run"), device=CPU, threads=1, reporter=heard)
    assert any("one-hot" in one for one in heard.notes) is told

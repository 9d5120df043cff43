"""The alarm of catastrophic overfitting: planted logs, its memory, and what it counts."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from advkit import data
from advkit.formulas.threat import Threat
from advkit.training import stage
from advkit.training.alarms import collapsed
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.selection import Validation, one_step_hits
from tests.softlabels.test_labelling import Heard
from tests.training.test_learner import trainer


def log(*pairs):
    return [{"val_robust_accuracy": r, "val_one_step_accuracy": s} for r, s in pairs]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.mark.parametrize(
    ("pairs", "n", "rings"),
    [
        ([(0.40, 0.45), (0.01, 0.80)], 1024, True),
        ([(0.40, 0.45), (0.42, 0.47), (0.30, 0.60), (0.02, 0.75)], 1024, True),
        ([(0.40, 0.45), (0.41, 0.46)], 1024, False),  # as usual
        ([(0.40, 0.45), (0.01, 0.02)], 1024, False),  # both fell: divergence, not this
        ([(0.40, 0.45), (0.38, 0.80)], 1024, False),  # masking of one step alone
        ([(0.40, 0.45), (0.21, 0.80)], 1024, False),  # not to a half
        ([(0.40, 0.45), (0.19, 0.80)], 1024, True),
        ([(0.01, 0.80)], 1024, False),  # nothing before it
        ([(0.01, 0.80), (0.02, 0.85)], 1024, False),  # collapsed before the first look
        ([(0.40, 0.45), (0.00, 0.75)], 10, False),  # chance, on ten images
        ([(0.40, 0.45), (0.00, 0.75)], 100, True),
    ],
)
def test_planted_logs(pairs, n, rings):
    alarm = collapsed(log(*pairs), n)
    assert (alarm is not None) is rings
    if rings:
        assert "catastrophic overfitting" in alarm
        assert f"to {pairs[-1][0]:.3f}" in alarm


@pytest.mark.parametrize("n", [50, 1024, 10000])
def test_the_bound_is_three_standard_errors(n):
    """Beside it on both sides: PGD has collapsed, and one step rises from a half."""
    step = 1 / n
    rise = next(
        k * step for k in range(n)
        if k * step > 3 * math.sqrt(2 * (p := 0.5 + k * step / 2) * (1 - p) / n)
    )  # fmt: skip
    for share, rings in ((0.5 + rise, True), (0.5 + rise - step, False)):
        assert (collapsed(log((0.45, 0.5), (0.0, share)), n) is not None) is rings


def test_logs_without_one_step_figures_ring_nothing():
    rows = [{"val_robust_accuracy": 0.4}, {"val_robust_accuracy": 0.0}]
    assert collapsed(rows, 1000) is None
    assert collapsed([*log((0.4, 0.4)), *rows[1:]], 1000) is None


def planted(monkeypatch, figures):
    """Have the epochs of a run measure these (clean, PGD, one step), whatever they trained."""
    left = iter(figures)

    def measure(self, model, between):
        names = ("clean_accuracy", "robust_accuracy", "one_step_accuracy")
        return dict(zip(names, next(left), strict=True))

    monkeypatch.setattr(Validation, "measure", measure)


CURVE = [(0.9, 0.5, 0.5), (0.9, 0.0, 1.0), (0.9, 0.0, 1.0)]


def test_a_run_tells_it_once_and_keeps_it(digits, tmp_path, monkeypatch):
    from advkit.config.resolve import resolve

    planted(monkeypatch, CURVE)
    heard = Heard()
    flags = {"data": "digits", "limit": 120, "val_size": 60, "batch_size": 20, "width": 2,
             "epochs": 3, "train_attack": "fgsm-rs"}  # fmt: skip
    chosen = resolve((flags, "flag"))
    folder = RunFolder(tmp_path / "run")
    train(chosen, folder, device=torch.device("cpu"), threads=1, reporter=heard)
    assert [row.get("overfitting_alarm", False) for row in folder.rows()] == [False, True, True]
    assert [row["val_one_step_accuracy"] for row in folder.rows()] == [0.5, 1.0, 1.0]
    assert sum("catastrophic" in each for each in heard.warnings) == 1
    (record,) = stage._records(folder, chosen.settings, "best")
    assert (record["overfitting_alarm"], record["epoch"]) == (True, 1)
    (last,) = stage._records(folder, chosen.settings, "final")
    assert last["overfitting_alarm"] is True


def test_a_resumed_run_knows_what_it_told(digits):
    heard = Heard()
    made = trainer(digits, train_attack="n-fgsm", attack_steps=1, val_size=60)
    made.reporter = heard
    rows = [{"epoch": 1, **log((0.5, 0.5))[0]}]
    rows.append({"epoch": 2, "overfitting_alarm": True, **log((0.0, 1.0))[0]})
    made.progress.lines = [json.dumps(row) for row in rows]
    row = log((0.0, 1.0))[0]
    made._watch(row)
    assert row["overfitting_alarm"] is True
    assert heard.warnings == []
    assert made._metrics(3, row, "")["overfitting_alarm"] is True


def test_a_run_of_more_steps_measures_none(digits):
    for steps, wanted in ((1, True), (2, False)):
        made = trainer(digits, attack_steps=steps)
        assert made.validation.one_step is wanted
        figures = made.validation.measure(made.learner.model, lambda: None)
        assert ("one_step_accuracy" in figures) is wanted


class Brightness(nn.Module):
    """Two classes by the mean pixel, whose gradient is the same everywhere."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        mean = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], dim=1)


def test_one_step_counts_what_is_right_before_and_after(digits):
    """A step of 0.1 moves a mean by 0.1 at most: whoever lies that near to 0.5 is lost."""

    class Three:
        labels = torch.tensor([0, 0, 1, 1])

        def batch(self, positions):
            levels = torch.tensor([51, 120, 140, 102])  # 0.2, 0.47, 0.55 and, wrong, 0.4
            return levels.view(4, 1, 1, 1).expand(4, 1, 2, 2).to(torch.uint8)[positions]

    every = torch.arange(4)
    assert one_step_hits(Brightness(), Three(), every, Threat("linf", 0.1)) == 1
    assert one_step_hits(Brightness(), Three(), every, Threat("linf", 0.01)) == 3

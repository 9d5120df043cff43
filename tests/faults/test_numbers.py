"""Rows 12, 21, 23 and 24: what is not a number never reaches a file and never counts as robust."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from advkit.artifacts import checkpoint, hdf5
from advkit.config.resolve import resolve
from advkit.errors import NumericalError, UsageError
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings
from advkit.images import image_set
from advkit.runtime.reporting import Reporter
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.selection import accuracies
from advkit.training.trainer import Trainer
from tests.conftest import TINY
from tests.faults._planted import PLANTED, bad, finite, spoiled
from tests.faults._runs import contents, refused

full = pytest.mark.faults
CPU = torch.device("cpu")
SMALL = {"data": "digits", "limit": 200, "width": 4, "batch_size": 32, "epochs": 3,
         "attack_steps": 2}  # fmt: skip
"""NaN is planted in a step of our choice: whatever the net learns before it."""


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "words", ["attack ? --attack fgsm", "attack ? --autoattack", "softlabels ?",
              "analyze masking ?"],
)  # fmt: skip
def test_row_12_weights_that_are_not_finite(cli, tiny_run, tmp_path, words, value):
    """`stages.md` has no --allow-nonfinite: analyses that ask a model refuse it as well."""
    path = spoiled(tiny_run / "best.safetensors", tmp_path / "x", value)
    tensors, _ = checkpoint.read(path)
    (name,) = [each for each, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    outcome = cli(*[path if word == "?" else word for word in words.split()])
    refused(outcome, 5, path.name, name)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@full
@pytest.mark.parametrize("name", PLANTED)
def test_row_21_a_planted_nan_reaches_no_file(server, teacher, labels, tmp_path, name):
    cwd = tmp_path / "run"
    cwd.mkdir()
    outcome = PLANTED[name](server, teacher / "best.safetensors", labels, cwd)
    assert not bad(outcome), outcome
    assert len(outcome.err.splitlines()) == 1
    written = [*cwd.rglob("*.safetensors"), *cwd.rglob("*.h5")]
    assert all(finite(path) for path in written)


def broken(monkeypatch, at, what):
    """Let the loss, or its gradient alone, be no number from a call on."""
    from advkit.objectives import trades

    real, calls = trades.outer, []

    def outer(model, *more, **options):
        loss, seen = real(model, *more, **options)
        calls.append(1)
        if len(calls) != at:
            return loss, seen
        if what == "gradient":  # d√w/dw at 0, where the loss itself stays what it was
            return loss + (next(model.parameters()).sum() * 0).abs().sqrt(), seen
        return loss * math.nan, {**seen, "adversarial": seen["adversarial"] / 0}

    outer.__kwdefaults__ = real.__kwdefaults__
    monkeypatch.setattr(trades, "outer", outer)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("more", [{}, {"awp": 0.01}], ids=["plain", "awp"])
def test_row_21_a_bad_update_is_not_applied(monkeypatch, tmp_path, what, more):
    """At step 2 of epoch 2: weights before == after, the first epoch's files as they were."""
    seen = {}
    learn = Trainer.step

    def step(trainer, batch, epoch, number):
        model = trainer.learner.model
        seen["before"] = {k: v.clone() for k, v in model.named_parameters()}
        seen["model"], seen["files"] = model, contents(tmp_path / "run")
        learn(trainer, batch, epoch, number)

    broken(monkeypatch, 7 * (1 + bool(more)), what)  # AWP asks for the loss twice
    monkeypatch.setattr(Trainer, "step", step)
    resolved = resolve(({**SMALL, "method": "trades", **more}, "flag"))
    made = "all logits are" if what == "gradient" else "adversarial logits are not"
    said = rf"{what}.* is nan at epoch 2, step 2 \({made} finite\), learning rate 0\.01"
    with pytest.raises(NumericalError, match=said):
        train(resolved, RunFolder(tmp_path / "run"), device=CPU, threads=1)
    after = dict(seen["model"].named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in seen["before"].items())
    del seen["files"][".lock"]  # held then
    assert contents(tmp_path / "run") == seen["files"]
    monkeypatch.undo()
    assert train(resolved, RunFolder(tmp_path / "run"), device=CPU, threads=1, resume=True)


class Odd(nn.Module):
    """Logits (B, 3) of a 1x2x2 image: its first pixels, changed as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.how = how

    def forward(self, x):
        z = self.weight * 20 * x.flatten(1)[:, :3]
        return self.how(z, x)


IMAGES = image_set.Images(
    "odd", "test",
    torch.tensor([[[[255, 0], [0, 0]]], [[[0, 255], [0, 0]]], [[[0, 0], [255, 0]]]] * 4,
                 dtype=torch.uint8),
    torch.tensor([0, 1, 2] * 4), ("a", "b", "c"), 0, False,
)  # fmt: skip
INFO = {
    "data": {"name": "odd", "classes": ["a", "b", "c"]}, "model": {"input_shape": [1, 2, 2]},
    "digest": "sha256:0", "method": "at", "arch": "odd", "role": "best", "kind": "checkpoint",
    "seed": 0, "parents": [],
}  # fmt: skip


class Listening(Reporter):
    def __init__(self):
        self.said = []

    def warn(self, text):
        self.said.append(text)


def evaluation(model, attack, version="standard", reporter=None):
    settings = AttackSettings(attack, "linf", "0.1", "odd", version=version, batch_size=4)
    return Evaluation(
        model.eval(), INFO, IMAGES, settings, environment={}, reporter=reporter or Reporter()
    )


HOWS = {
    "one example": lambda z, x: torch.where((x[:, 0, 0, 0] == 1)[:, None], torch.nan, z),
    "under attack alone": lambda z, x: torch.where(
        ((x > 0.01) & (x < 0.99)).flatten(1).any(1)[:, None], torch.nan, z
    ),
    "overflow": lambda z, x: z * 3e38 * 10,
}


@pytest.mark.parametrize(
    "attack", ["pgd", "autoattack", "fgsm", "apgd-ce", pytest.param("square", marks=full)]
)
@pytest.mark.parametrize("how", HOWS)
def test_row_23_nan_logits_are_no_verdict(attack, how):
    with pytest.raises(NumericalError, match="not finite"):
        evaluation(Odd(HOWS[how]), attack).run()


@pytest.mark.parametrize("attack", ["pgd", pytest.param("autoattack", marks=full)])
def test_row_23_a_constant_answer_is_flagged(attack):
    """Zero gradients everywhere: the third that is class 0 stands, untested, and that is said."""
    heard = Listening()
    model = Odd(lambda z, x: z * 0 + torch.tensor([1.0, 0.0, 0.0]))
    found = evaluation(model, attack, reporter=heard).run()
    assert (found.broken_by == hdf5.ROBUST).sum() == 4
    assert found.info["zero_gradient"] == 1
    assert any("zero gradient" in text for text in heard.said)


def test_row_23_a_broken_model_is_not_right_about_class_0():
    """The largest entry of a row of NaN is its first: no accuracy may come of that."""
    model = Odd(lambda z, x: z * torch.nan)
    for threat in (None, evaluation(model, "pgd").settings.threat):
        generator = torch.Generator().manual_seed(0)
        found = accuracies(model, IMAGES, torch.arange(12), threat, steps=2, generator=generator)
        assert found == (0, 0)


def wavering(z, x):
    """Never the same twice, unlike dropout on a few images."""
    return z + torch.rand_like(z)


@pytest.mark.parametrize("attack", ["autoattack", "fast"])
def test_row_24_a_random_model_is_refused(attack):
    with pytest.raises(UsageError, match="--version rand"):
        evaluation(Odd(wavering), attack).run()


@full
def test_row_24_rand_takes_it_and_rounding_is_not_randomness():
    assert evaluation(Odd(wavering), "autoattack", "rand").run().attacks == ["apgd-ce", "apgd-dlr"]
    heard, calls = Listening(), []

    def rounding(z, x):
        calls.append(1)
        return z * (1 + 1e-5 * (len(calls) % 2))

    evaluation(Odd(rounding), "fast", reporter=heard).run()
    assert any("answers differently" in text for text in heard.said)


def test_rows_of_a_label_source_that_do_not_sum_to_one_end_training(cli, monkeypatch, tmp_path):
    monkeypatch.setattr("advkit.labels.smoothing.smooth", lambda y, c, _: torch.ones(len(y), c))
    outcome = cli("train", "--labels", "smoothing", *TINY, "-o", tmp_path / "x", "-q")
    refused(outcome, 5, "smoothing", "epoch 1, step 1", "sums to 10")


@pytest.mark.parametrize(
    "words", ["--lr nan", "--threads 1000000", "--seed 1e40", "--eps 1e999999999"]
)
def test_row_47_numbers_that_no_work_can_mean(server, tmp_path, words):
    """tests/contracts/test_limits.py asks every number of every command."""
    option, value = words.split()
    done = server.run("train", "--data", "digits", option, value, cwd=tmp_path, timeout=60)
    refused(done, 2, value.removeprefix("1e40"))
    assert "()" not in done.err
    assert list(tmp_path.iterdir()) == []

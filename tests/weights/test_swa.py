"""The even weight average: its weights by hand, its statistics by hand, and after a stop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from advkit import data
from advkit.config import resolve
from advkit.errors import Stopped, UsageError
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.weights.swa import Swa, recompute
from tests.heard import Heard
from tests.training.test_learner import step, trainer
from tests.training.test_run import CPU, SMALL, contents, go, stop_at


def test_it_is_the_mean_of_the_epochs_from_its_first_on():
    net = nn.Linear(1, 1, bias=False)
    kept = Swa(net, start=3)
    means = []
    for epoch, value in enumerate((7.0, 5.0, 1.0, 2.0, 6.0), 1):
        nn.init.constant_(net.weight, value)
        kept.update(net, epoch)
        means.append(kept.model.weight.item())
    assert means == pytest.approx([7, 5, 1, 1.5, 3])
    assert not kept.model.training
    assert not kept.model.weight.requires_grad


def test_statistics_are_the_plain_mean_of_the_batches():
    net = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Flatten()).double().eval()
    net[0].num_batches_tracked.fill_(5)
    x = torch.rand(3, 4, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = []
    recompute(net, net, x, lambda tensors: seen.extend(tensors))
    torch.testing.assert_close(net[0].running_mean, x.mean((1, 3, 4)).mean(0))
    wanted = x.transpose(1, 2).flatten(2).var(2).mean(0)
    torch.testing.assert_close(net[0].running_var, wanted)
    assert [each is of for each, of in zip(seen, net[0].buffers(), strict=False)] == [True] * 2
    assert (net[0].momentum, net[0].training, int(net[0].num_batches_tracked)) == (0.3, False, 5)


def test_a_net_without_bn_has_no_pass():
    recompute(nn.Linear(1, 1), None, None, None)


def test_training_averages_at_the_ends_of_epochs():
    made = trainer(data.load("digits", "train"), method="at-wa", swa_start=2, epochs=4)
    ends = []
    for number in range(3 * len(made.batches)):
        step(made, number)
        if (number + 1) % len(made.batches) == 0:
            ends.append(copy.deepcopy(dict(made.learner.model.named_parameters())))
    for name, mean in made.learner.average.named_parameters():
        torch.testing.assert_close(mean, (ends[1][name] + ends[2][name]) / 2)
    batches = list(made.batches.epoch(2))
    made.learner.settle((batch.x for batch in batches), 3)
    net = made.learner.average
    with torch.no_grad():
        firsts = [net.conv1(net.normalise(batch.x)) for batch in batches]
    means = torch.stack([each.mean((0, 2, 3)) for each in firsts]).mean(0)
    torch.testing.assert_close(net.bn1.running_mean, means, rtol=1e-5, atol=1e-6)


def test_the_pass_over_the_statistics_is_told(tmp_path):
    heard = Heard()
    given = resolve.resolve(({**SMALL, "method": "at-wa", "swa_start": 1}, "flag"))
    train(given, RunFolder(tmp_path / "run"), device=CPU, threads=1, reporter=heard)
    told = [(total, done) for what, total, done in heard.inner if "statistics of the" in what]
    assert told == [(3, 1), (3, 2), (3, 3)] * 2
    assert "epoch 1/2 statistics of the average" in {what for what, _, _ in heard.inner}


@pytest.mark.parametrize("call", [2, 3, 5, 8])
def test_stopped_and_resumed_it_is_the_same(tmp_path, monkeypatch, call):
    """Amid an epoch, in its validation and at its end: the average is taken once each epoch."""
    more = {"swa_start": 1}
    assert go(tmp_path / "whole", "at-wa", **more)
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        with pytest.raises(Stopped):
            go(tmp_path / "run", "at-wa", **more)
    assert go(tmp_path / "run", "at-wa", resume=True, **more)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "at", "swa_start": 1}, "for a method with --wa"),
        ({"method": "adr-wa", "swa_start": 1}, "labels adr come from an exponential average"),
        ({"method": "at-wa", "swa_start": 3}, "after the last epoch, 2"),
    ],
)
def test_averages_that_make_no_sense(given, words):
    with pytest.raises(UsageError, match=words):
        resolve.resolve(({**SMALL, **given}, "flag"))


def test_a_decay_has_no_effect_beside_it():
    given = {**SMALL, "method": "at-wa", "swa_start": 1, "ema_decay": 0.9}
    settings = resolve.resolve((given, "flag")).settings
    with pytest.raises(UsageError, match="--ema-decay has no effect with --swa-start"):
        resolve.refuse_idle(given, settings)

"""AdamW, clipping, warm-up by steps and one cycle: by hand or PyTorch, resumed bit for bit."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from advkit import data
from advkit.config.resolve import refuse_idle, resolve
from advkit.errors import InputError, UsageError
from advkit.training.run_folder import RunFolder
from tests.training.test_learner import step, trainer


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


def gradients(made, number):
    """Loss gradients of natural training at the weights before a step, in float64."""
    epoch, place = divmod(number, len(made.batches))
    batch = made.batches.at(made.batches.order(epoch), epoch, place)
    net = made.learner.model.train()
    before = [buffer.clone() for buffer in net.buffers()]
    loss = torch.nn.functional.cross_entropy(net(batch.x.double()), batch.y)
    found = torch.autograd.grad(loss, list(net.parameters()))
    for buffer, value in zip(net.buffers(), before, strict=True):
        buffer.copy_(value)
    return dict(zip((name for name, _ in net.named_parameters()), found, strict=True))


def doubled(digits, **flags):
    made = trainer(digits, method="natural", **flags)
    made.learner.model.double()
    learn = made.learner.learn
    made.learner.learn = lambda batch, *where: learn(
        dataclasses.replace(batch, x=batch.x.double()), *where
    )
    return made


def clipped(found, most):
    norm = math.sqrt(sum(float((g * g).sum()) for g in found.values()))
    factor = min(1.0, most / (norm + 1e-6)) if most else 1.0  # PyTorch's slack
    assert not most or norm > most
    return {name: factor * g for name, g in found.items()}


@pytest.mark.parametrize(("norm_decay", "most"), [(True, 0.0), (False, 0.0), (True, 0.05)])
def test_adamw_by_hand(digits, norm_decay, most):
    """Loshchilov and Hutter's algorithm 2, with the decay scaled by the rate."""
    made = doubled(digits, optimizer="adamw", lr=0.01, weight_decay=0.1, norm_decay=norm_decay,
                   clip_grad_norm=most, lr_schedule="cosine", epochs=3, warmup_steps=2)  # fmt: skip
    mean, square = {}, {}
    for t in range(4):
        before = {n: p.detach().clone() for n, p in made.learner.model.named_parameters()}
        found = clipped(gradients(made, t), most)
        rate = (1e-6 + (0.01 - 1e-6) * t / 2) if t < 2 else (
            0.005 * (1 + math.cos(math.pi * t / (3 * len(made.batches))))
        )  # fmt: skip
        step(made, t)
        for name, weight in made.learner.model.named_parameters():
            g = found[name]
            mean[name] = 0.9 * mean.get(name, 0 * g) + 0.1 * g
            square[name] = 0.999 * square.get(name, 0 * g) + 0.001 * g * g
            m, v = mean[name] / (1 - 0.9 ** (t + 1)), square[name] / (1 - 0.999 ** (t + 1))
            decay = 0.0 if name.startswith("bn") and not norm_decay else 0.1
            shrunk = before[name] * (1 - rate * decay)
            expected = shrunk - rate * m / (v.sqrt() + 1e-8)
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-9, atol=1e-11)


def test_clipping_leaves_small_gradients_alone(digits):
    plain, held = (doubled(digits, clip_grad_norm=most) for most in (0.0, 1e6))
    for made in (plain, held):
        step(made, 0)
    for one, other in zip(plain.learner.model.parameters(), held.learner.model.parameters(),
                          strict=True):  # fmt: skip
        assert torch.equal(one, other)


def test_clipped_sgd_by_hand(digits):
    made = doubled(digits, lr=0.1, momentum=0.0, weight_decay=0.0, clip_grad_norm=0.05)
    before = {n: p.detach().clone() for n, p in made.learner.model.named_parameters()}
    found = clipped(gradients(made, 0), 0.05)
    step(made, 0)
    for name, weight in made.learner.model.named_parameters():
        torch.testing.assert_close(
            weight.detach(), before[name] - 0.1 * found[name], rtol=1e-9, atol=1e-12
        )


def test_one_cycle_moves_rate_and_momentum(digits):
    """Both groups follow PyTorch's OneCycleLR, moved every second step."""
    made = trainer(digits, lr=0.2, lr_schedule="onecycle", lr_peak=0.25, lr_hold=2, epochs=2,
                   norm_decay=False, method="natural")  # fmt: skip
    total = 2 * len(made.batches)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, pct_start=0.25, total_steps=-(-total // 2)
    )
    for t in range(total):
        made.learner._set_rate(t)
        wanted = optimizer.param_groups[0]
        for group in made.learner.optimizer.param_groups:
            assert group["lr"] == pytest.approx(wanted["lr"], rel=1e-12)
            assert group["momentum"] == pytest.approx(wanted["momentum"], rel=1e-12)
        if t % 2:
            optimizer.step()
            theirs.step()
    assert len(made.learner.optimizer.param_groups) == 2


def test_the_average_s_warm_up_is_counted_in_epochs(digits):
    """In its epochs the average is the student, to the last bit."""
    made = trainer(digits, method="at-wa", ema_warmup=1.0, ema_norms="student")
    learner = made.learner
    assert learner.ema.warmup == len(made.batches)
    step(made, 0)
    for name, value in learner.model.state_dict().items():
        assert torch.equal(value, learner.average.state_dict()[name]), name


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"lr_schedule": "onecycle", "optimizer": "adamw"}, "not with --optimizer adamw"),
        ({"lr_schedule": "onecycle", "momentum": 0.8}, "--momentum has no effect"),
        ({"lr_schedule": "onecycle", "warmup_epochs": 1.0}, "--warmup-epochs has no effect"),
        ({"lr_schedule": "cosine", "lr_peak": 0.4}, "--lr-peak has no effect"),
        ({"lr_hold": 2}, "--lr-hold has no effect"),
        ({"ema_warmup": 1.0}, "--ema-warmup has no effect"),
        ({"method": "at-wa", "swa_start": 1, "ema_norms": "student"}, "--ema-norms has no effect"),
    ],
)
def test_what_has_no_effect_is_refused(flags, what):
    with pytest.raises(UsageError, match=what):
        refuse_idle(flags, resolve(({"data": "digits", **flags}, "flag")).settings)


@pytest.mark.parametrize("awp_form", ["original", "adr"])
def test_clipping_goes_with_weight_perturbation(digits, awp_form):
    """The gradient that is stepped along is clipped, whichever weights it was taken at."""
    made = trainer(digits, method="at-awp", awp_form=awp_form, clip_grad_norm=1e-3,
                   momentum=0.0, weight_decay=0.0, lr=0.1)  # fmt: skip
    before = [p.detach().clone() for p in made.learner.model.parameters()]
    step(made, 0)
    pairs = zip((p.detach() for p in made.learner.model.parameters()), before, strict=True)
    moved = math.sqrt(sum(float((p - b).square().sum()) for p, b in pairs))
    assert moved == pytest.approx(0.1 * 1e-3, rel=1e-2)


RESUMED = {
    "adamw": {"optimizer": "adamw", "clip_grad_norm": 0.5, "warmup_steps": 3, "method": "at-wa"},
    "n-fgsm": {"train_attack": "n-fgsm", "attack_steps": 1, "grad_align": 0.2},
    "one cycle": {
        "method": "at-wa",
        "lr_schedule": "onecycle",
        "epochs": 1,
        "ema_warmup": 0.2,
        "ema_norms": "student",
    },
    "two groups": {"optimizer": "adamw", "norm_decay": False, "method": "natural"},
}


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_bit_for_bit(digits, tmp_path, name):
    flags = {"lr": 0.01, **RESUMED[name]}
    whole, part, again = (trainer(digits, **flags) for _ in range(3))
    for number in range(4):
        step(whole, number)
    for number in range(2):
        step(part, number)
        part.progress.step = number + 1
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    part.files.save(folder, part.learner, part.progress)
    again.restore(folder)
    for number in range(2, 4):
        step(again, number)
    for one, other in ((whole.learner.model, again.learner.model),
                       (whole.learner.average, again.learner.average)):  # fmt: skip
        if one is not None:
            for key, value in one.state_dict().items():
                assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("pair", [("sgd", "adamw"), ("adamw", "sgd")])
def test_a_state_of_another_optimizer_is_refused(digits, tmp_path, pair):
    first, second = (trainer(digits, method="natural", optimizer=name, lr=0.01) for name in pair)
    step(first, 0)
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    first.files.save(folder, first.learner, first.progress)
    with pytest.raises(InputError, match="another net or optimizer"):
        second.restore(folder)


def settings(**flags):
    return resolve(({"data": "digits", **flags}, "flag")).settings


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UsageError, match="--warmup-epochs or --warmup-steps"):
        settings(warmup_epochs=1.0, warmup_steps=5)
    for key, value in (("momentum", 0.5), ("nesterov", False)):
        with pytest.raises(UsageError, match=f"--{key} has no effect with --optimizer adamw"):
            refuse_idle({key: value}, settings(optimizer="adamw"))


def test_defaults_are_not_told():
    told = {"optimizer": "adamw", "clip_grad_norm": 1.0, "warmup_steps": 0}
    assert not told.keys() & settings().described().keys()
    assert told.items() <= settings(**told).described().items()

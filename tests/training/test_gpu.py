"""What only a CUDA device can show, skipped without one. `benchmarks/gpu.sh` runs them."""

import dataclasses

import pytest
import torch

from advkit import data, models
from advkit.attacks import pgd
from advkit.config.machine import computing
from advkit.config.resolve import resolve
from advkit.errors import Stopped
from advkit.formulas.threat import Threat
from advkit.runtime import seeding
from advkit.runtime.reporting import Reporter
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.trainer import Trainer
from tests.training._teaching import widen
from tests.training.test_run import SMALL, STEPS, stop_at

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # what drivers and compilers tell is no failure
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def as_a_stage():
    """Float32 that is float32, and the same kernels each time, as every stage sets them."""
    with computing(CUDA, 1):
        yield


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


def trainer(digits, device, **flags):
    settings = resolve(({**SMALL, **flags}, "flag")).on(device.type).settings
    return Trainer(settings, digits, device=device, threads=1, reporter=Reporter())


def outputs(made, count, double=False):
    """Take so many steps of an epoch; return what they gave."""
    order, given = made.batches.order(0), []
    for step in range(count):
        batch = made.batches.at(order, 0, step)
        if double:
            batch = dataclasses.replace(batch, x=batch.x.double())
        given.append(made.learner.learn(batch, 0, step))
    return given


@pytest.mark.parametrize("method", ["at", "adr-awp-wa", "trades"])
def test_a_step_is_the_cpus_in_float64(digits, method):
    weights = {}
    for device in (CPU, CUDA):
        made = trainer(digits, device, method=method, noise="host")
        for net in (made.learner.model, made.learner.average):
            if net is not None:
                net.double()
        outputs(widen(made), STEPS, double=True)
        weights[device.type] = [p.detach().cpu() for p in made.learner.model.parameters()]
    for ours, theirs in zip(weights["cuda"], weights["cpu"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_noise_of_the_device_repeats_and_is_not_the_hosts():
    def drawn(step, device=CUDA):
        stream = seeding.generator(0, "attack", 0, step, device=device)
        return Threat("linf", 0.1).start(x, "uniform", stream)

    x = torch.full((4, 3, 32, 32), 0.5, device=CUDA)
    assert drawn(1).device.type == "cuda"
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1), drawn(1, CPU))
    assert float((drawn(1) - x).abs().max()) <= 0.1 + 1e-6


def test_a_run_with_noise_of_the_device_goes_on_with_the_same_noise(tmp_path, monkeypatch):
    starts, original = [], Threat.start

    def noted(self, x, *more, **options):
        start = original(self, x, *more, **options)
        starts.append(start.cpu())
        return start

    monkeypatch.setattr(Threat, "start", noted)
    resolved = resolve((SMALL, "flag")).on("cuda")
    assert resolved.settings.noise == "device"

    def go(name, **more):
        return train(resolved, RunFolder(tmp_path / name), device=CUDA, threads=1, **more)

    assert go("whole")
    expected, starts[:] = list(starts), []
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(Stopped):
            go("run")
    assert go("run", resume=True)
    assert len(starts) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(starts, expected, strict=True))


def test_verdicts_are_the_cpus(digits):
    x = torch.from_numpy(digits.images[:64].numpy()).double() / 255
    y = digits.labels[:64]
    net = models.build(
        "small-cnn", 10, channels=1, statistics=digits.normalisation, seed=0, size=8, width=8
    )
    net.double().eval()
    stands = []
    for device in (CPU, CUDA):
        net.to(device)
        answers = net(x.to(device)).argmax(1)
        draw = seeding.generator(0, "test")
        x_adv = pgd.attack(
            net, x.to(device), answers, Threat("linf", 0.05), generator=draw, steps=10
        )
        stands.append((net(x_adv).argmax(1) == answers).cpu())
    assert torch.equal(*stands)
    assert len(y) == 64


@pytest.mark.parametrize("flags", [{"amp": True}, {"tf32": True}, {"amp": True, "tf32": True}])
def test_a_step_in_fewer_bits_follows_the_plain_one(digits, flags):
    plain = outputs(trainer(digits, CUDA, method="adr-awp"), STEPS)
    fewer = outputs(trainer(digits, CUDA, method="adr-awp", **flags), STEPS)
    for a, b in zip(fewer, plain, strict=True):
        assert float(a.loss.detach()) == pytest.approx(float(b.loss.detach()), rel=0.05)


@pytest.mark.parametrize("method", ["at", "trades-adr-awp"])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_step_follows_the_plain_one(digits, method, mode):
    plain = outputs(trainer(digits, CUDA, method=method), STEPS)
    flags = {"compile": True, "compile_mode": mode}
    compiled = outputs(trainer(digits, CUDA, method=method, **flags), STEPS)
    for a, b in zip(compiled, plain, strict=True):
        assert float(a.loss.detach()) == pytest.approx(float(b.loss.detach()), rel=1e-3)


@pytest.mark.parametrize("method", ["at", "adr-awp-wa", "trades-adr", "mart"])
def test_a_step_waits_for_nothing(digits, method):
    made = trainer(digits, CUDA, method=method)
    outputs(made, 2)  # the first step is one at which the guard looks, and makes what it needs
    batch = made.batches.at(made.batches.order(0), 0, 1)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        made.learner.learn(batch, 0, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")

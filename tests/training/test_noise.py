"""`--noise`: where a step draws what is as large as images or weights."""

import pytest
import torch
from scipy import stats

from advkit.config import resolve as config
from advkit.config import stored
from advkit.config.resolve import resolve
from advkit.errors import MismatchError, Stopped
from advkit.formulas.threat import Threat
from advkit.runtime import seeding
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from tests.training import _capture
from tests.training.test_run import CPU, STEPS, contents, go, resolved, stop_at

NOISY = {"noise": "device", "teacher_noise": "logits:0.1"}


# --- the setting ---


@pytest.mark.parametrize(("kind", "noise"), [("cpu", "host"), ("mps", "host"), ("cuda", "device")])
def test_the_device_decides_where_nobody_does(kind, noise):
    on = resolve(({"data": "digits"}, "flag")).on(kind)
    assert on.settings.noise == noise
    assert f'noise = "{noise}"  # default on {kind}' in on.toml()
    for given in ("host", "device"):
        asked = resolve(({"data": "digits", "noise": given}, "flag")).on(kind)
        assert asked.settings.noise == given
        assert f'noise = "{given}"  # flag' in asked.toml()


def test_a_search_on_cuda_draws_there_unless_told():
    for asked, noise in (({}, "device"), ({"noise": "host"}, "host")):
        layers = [config.by_machine("cuda"), ({"data": "digits", "method": "adr", **asked}, "flag")]
        assert resolve(*layers).settings.noise == noise
    assert config.by_machine("cpu")[0] == {}


def test_what_is_printed_before_a_device_is_known_leaves_it_open(tmp_path):
    text = resolve(({"data": "digits"}, "flag")).toml()
    assert "# noise is not set: " in text
    (tmp_path / "printed.toml").write_text(text)
    again = resolve((stored.read(tmp_path / "printed.toml"), "from printed.toml"))
    assert again.on("cuda").settings.noise == "device"


def test_host_is_untold_as_in_all_earlier_runs():
    told = resolve(({"data": "digits", "noise": "device"}, "flag")).settings.described()
    plain = resolve(({"data": "digits"}, "flag")).settings.described()
    assert told == {**plain, "noise": "device"}


# --- runs ---


def test_resumed_is_never_stopped(tmp_path, monkeypatch):
    assert go(tmp_path / "whole", "adr", **NOISY)
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS + 2)  # after the second epoch's first step
        with pytest.raises(Stopped):
            go(tmp_path / "run", "adr", **NOISY)
    assert go(tmp_path / "run", "adr", resume=True, **NOISY)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_run_keeps_where_it_draws(tmp_path, monkeypatch):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        with pytest.raises(Stopped):
            go(path)
    with pytest.raises(MismatchError, match="noise: host -> device"):
        go(path, resume=True, noise="device")
    # The same command on another kind of device, which would draw elsewhere by default.
    there = resolved().on("cuda")
    assert there.settings.noise == "device"
    assert train(there, RunFolder(path), device=CPU, threads=1, resume=True)
    assert not train(there, RunFolder(path), device=CPU, threads=1)
    assert RunFolder(path).settings().noise == "host"


def test_an_earlier_run_drew_on_the_host(tmp_path):
    go(tmp_path)
    text = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(
        "".join(line for line in text.splitlines(True) if "noise is" not in line)
    )
    folder = RunFolder(tmp_path)
    assert folder.own_values()["noise"] == "host"
    assert folder.as_begun(resolved().on("cuda")).settings.noise == "host"


# --- the numbers ---


def test_on_a_cpu_both_are_one_stream():
    streams = [seeding.generator(3, "attack", 1, 2, **more) for more in ({}, {"device": CPU})]
    assert len({float(torch.rand(9, generator=stream).sum()) for stream in streams}) == 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_ranks_take_their_rows_of_one_draw(norm):
    threat, x = Threat(norm, 0.1), torch.full((6, 1, 4, 4), 0.5)

    def drawn(x, *share):
        return threat.start(x, "uniform", seeding.generator(0, "attack", 0, 1, device=CPU), *share)

    whole = drawn(x)
    for rows in torch.arange(6).chunk(2):
        assert torch.equal(drawn(x[rows], rows, 6), whole[rows])


def test_starts_are_uniform_in_the_ball():
    x = torch.full((20, 3, 16, 16), 0.5)
    generator = seeding.generator(0, "attack", 0, 1, device=CPU)
    noise = Threat("linf", 0.1).start(x, "uniform", generator) - x
    assert float(noise.abs().max()) <= 0.1 + 1e-7
    assert stats.kstest(noise.flatten().numpy(), "uniform", (-0.1, 0.2)).pvalue > 0.01


@pytest.mark.parametrize("noise", ["host", "device"])
@pytest.mark.parametrize(
    ("method", "more", "least"),
    [
        ("at", {}, 16 * 64),  # as many numbers as a batch of 16 images of 8x8
        ("adr", {"teacher_noise": "weights:0.1"}, 16 * 64),
        ("at", {"grad_align": 0.2}, 16 * 64),
        ("adr", {"teacher_noise": "logits:0.1", "attack_start": "none"}, 16 * 10),
    ],
)
def test_a_step_draws_where_it_is_told(monkeypatch, noise, method, more, least):
    _capture.on_meta(monkeypatch)
    learner, batches = _capture.learner_of(method, noise=noise, **more)
    drawn_on_host = _capture.step_of(learner, batches, 1).on_host(least)
    assert bool(drawn_on_host) == (noise == "host")

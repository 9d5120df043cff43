"""The public functions: the command line's results, in a caller's process that stays as it was."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

import advkit
from advkit import api, errors
from advkit.artifacts import checkpoint, hdf5
from advkit.training.run_folder import RunFolder
from tests.conftest import ROOT, SEED, THREADS, TINY

OPTIONS = {
    "data": "digits", "limit": 300, "epochs": 2, "batch_size": 32, "width": 8, "seed": SEED,
    "threads": int(THREADS),
}  # fmt: skip
"""TINY, as Python gives it."""
PGD = {"attack": "pgd", "steps": 5, "limit": 40, "threads": int(THREADS)}
PUBLIC = ["analyze", "attack", "evaluate", "load", "softlabels", "train"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Compared with the command line's own run: whatever both learn."""
    return advkit.train(method="adr", out=tmp_path_factory.mktemp("api") / "run", **OPTIONS)


@pytest.fixture(scope="module")
def logits(run):
    return advkit.evaluate(run, out=run.path / "a.h5", **PGD)


def linear(weights, bias=0.0):
    """A net of two classes whose first logit less its second is w·x + b."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 2)).requires_grad_(False)
    half = torch.tensor(weights) / 2
    net[1].weight.copy_(torch.stack([half, -half]))
    net[1].bias.copy_(torch.tensor([bias, -bias]) / 2)
    return net


WEIGHTS = [2.0, -1.0, 0.5, -0.5]


def images(count):
    """Images of four pixels away from the ends of [0, 1], numpy float32."""
    rng = np.random.default_rng(SEED)
    return rng.uniform(0.3, 0.7, (count, 1, 2, 2)).astype(np.float32)


# The same work as the command line's


def test_a_run_is_the_command_lines(run, tiny_run):
    """The same options give the same weights, figures and digests."""
    assert (
        checkpoint.read_info(run.best)["digest"]
        == checkpoint.read_info(tiny_run / "best.safetensors")["digest"]
    )
    assert run.final.read_bytes() == (tiny_run / "final.safetensors").read_bytes()
    assert run.record["kind"] == "checkpoint"
    assert run.record["digest"] == checkpoint.read_info(run.best)["digest"]
    assert [row["epoch"] for row in run.metrics] == [1, 2]


def test_the_command_line_finds_a_run_done(cli, run):
    again = cli("train", "--method", "adr", *TINY, "-o", run.path)
    assert (again.code, "already done" in again.err) == (0, True)
    assert {**again.record, "path": ""} == {**run.record, "path": ""}


def test_logits_are_the_command_lines(cli, run, logits, tmp_path):
    typed = ["--attack", "pgd", "--steps", 5, "--limit", 40, "--threads", THREADS]
    made = cli("attack", run.best, *typed, "-o", tmp_path / "b.h5", "-q")
    assert made.record["digest"] == logits.info["digest"]
    found = cli("attack", run.best, *typed, "-o", logits.path)
    assert "already done" in found.err
    assert found.record["digest"] == logits.info["digest"]


def test_labels_are_the_command_lines(cli, run, tmp_path):
    labels = advkit.softlabels(run.best, views=2, out=tmp_path / "a.h5")
    typed = cli("softlabels", run.best, "--views", 2, "-o", tmp_path / "b.h5", "-q")
    assert typed.record["digest"] == labels.info["digest"]
    assert (tuple(labels.views.shape[1:]), labels.class_count) == ((2, 3), 10)


def test_an_analysis_is_the_command_lines(cli, logits):
    found = advkit.analyze("calibration", logits, bins=7, resamples=20)
    few = ["--bins", 7, "--resamples", 20, "-q"]
    typed = cli("analyze", "calibration", logits.path, *few).record
    assert typed == found.record
    assert found.numbers["ece"] == typed["ece"] if "ece" in typed else found.numbers
    assert len(found.rows[0]) == len(found.columns)


def test_an_analysis_that_compares_and_one_that_asks_a_model(run, logits, tmp_path):
    clean = advkit.evaluate(run, attack="none", limit=40, out=tmp_path / "clean.h5")
    table = advkit.analyze("table", logits, clean)
    assert len(table.rows) >= 1
    asked = advkit.analyze("sweep", run, limit=5, steps_grid="1,2", eps_grid="0,8/255")
    assert asked.numbers["n"] == 5


def test_a_figure_opens_no_window_and_switches_no_backend(logits):
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    before, open_before = dict(mpl.rcParams), plt.get_fignums()
    picture = advkit.analyze("calibration", logits, resamples=20).figure()
    assert len(picture.axes) >= 1
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == open_before


def test_soft_labels_of_one_stage_are_an_option_of_the_next(run, tmp_path):
    labels = advkit.softlabels(run, out=tmp_path / "l.h5")
    student = advkit.train(
        method="ltd", soft_labels=labels, temperature=2.0, epochs=1, batch_size=32, width=8,
        out=tmp_path / "student", threads=1,
    )  # fmt: skip
    info = checkpoint.read_info(student.best)
    assert info["config"]["labels_digest"] == labels.info["digest"]


def test_a_loaded_net_says_what_it_is(run):
    model = advkit.load(run)
    assert not any(module.training for module in model.modules())
    assert (model.info.data, model.info.method, model.info.arch) == ("digits", "adr", "small-cnn")
    assert (len(model.info.classes), model.info.input_shape) == (10, (1, 8, 8))
    assert (model.info.norm, model.info.eps) == ("linf", model.info.described["config"]["eps"])
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_a_checkpoint_attacked_in_memory_falls_as_its_file_does(run, logits):
    from advkit import data

    split = data.load("digits", "test")
    x = split.batch(logits.index).numpy()
    found = advkit.attack(
        advkit.load(run), x, logits.labels.numpy(), attack="pgd", steps=5,
        eps=logits.info["config"]["eps"],
    )  # fmt: skip
    np.testing.assert_array_equal(found.broken_by, logits.broken_by.numpy())
    np.testing.assert_allclose(found.logits, logits.adversarial[:], rtol=1e-5, atol=1e-5)


# Any net


@pytest.mark.parametrize(("attack", "options"), [("pgd", {"steps": 10}), ("fgsm", {})])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_a_linear_net_under_linf(attack, options, kind):
    """It stands where its margin is above ε·‖w‖₁, all pixels being farther than ε from 0 and 1."""
    net, x, eps = linear(WEIGHTS, -0.5), images(64), 0.1
    margin = x.reshape(64, 4) @ np.array(WEIGHTS, dtype=np.float32) - 0.5
    loss = eps * np.abs(WEIGHTS).sum()
    keep = np.abs(np.abs(margin) - loss) > 1e-3  # nothing hangs on rounding
    x, margin = x[keep], margin[keep]
    y = np.where(margin > 0, 0, 1)
    y[::7] = 1 - y[::7]  # wrong to begin with
    found = (
        advkit.attack(net, kind(x), kind(y), attack=attack, eps=eps, step_size="eps", **options)
        if attack == "pgd"
        else advkit.attack(net, kind(x), kind(y), attack=attack, eps=eps)
    )
    right = (margin > 0) == (y == 0)
    stands = right & (np.abs(margin) > loss)
    assert isinstance(found.images, type(kind(x)))
    assert found.clean_accuracy == right.mean()
    assert found.robust_accuracy == stands.mean()
    assert 0 < found.robust_accuracy < found.clean_accuracy < 1
    expected = np.where(right, np.where(stands, hdf5.ROBUST, 0), hdf5.WRONG)
    np.testing.assert_array_equal(np.asarray(found.broken_by), expected)
    moved = np.abs(np.asarray(found.images) - x).reshape(len(x), -1).max(1)
    assert (moved <= eps + 1e-6).all()
    low, high = found.ci95
    assert low < found.robust_accuracy < high


def test_a_linear_net_under_autoattack():
    """Three classes, so that every attack of the suite has a target; the third never wins."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4)).requires_grad_(False)
    half = torch.tensor(WEIGHTS) / 2
    net[1].weight.copy_(torch.stack([half, -half, torch.zeros(4), torch.zeros(4)]))
    net[1].bias.copy_(torch.tensor([-0.25, 0.25, -9.0, -9.0]))
    x, eps = images(12), 0.1
    margin = x.reshape(12, 4) @ np.array(WEIGHTS, dtype=np.float32) - 0.5
    loss = eps * np.abs(WEIGHTS).sum()
    keep = np.abs(np.abs(margin) - loss) > 1e-2
    x, margin = x[keep], margin[keep]
    found = advkit.attack(net, x, np.where(margin > 0, 0, 1), attack="fast", eps=eps)
    assert found.robust_accuracy == (np.abs(margin) > loss).mean()
    assert found.attacks[0] == "apgd-ce"
    assert set(found.accuracy_after) == set(found.attacks)


def test_a_net_without_parameters_and_a_surrogate():
    class Fixed(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1, keepdim=True)
            return torch.cat([total - 2, 2 - total], 1)

    x = np.full((2, 1, 2, 2), 0.52, dtype=np.float32)
    x[1] += 0.2
    y = np.zeros(2, dtype=np.int64)
    for options in ({"attack": "fgsm"}, {"attack": "transfer", "surrogate": Fixed()}):
        found = advkit.attack(Fixed(), x, y, eps=0.1, **options)
        assert found.broken_by.tolist() == [0, -1]


def test_uint8_images_are_pixels_in_0_to_255():
    x = np.full((1, 1, 2, 2), 51, dtype=np.uint8)
    found = advkit.attack(linear(WEIGHTS, 9.0), x, np.array([0]), attack="fgsm", eps=0.1)
    np.testing.assert_allclose(np.abs(found.images - 0.2), 0.1, atol=1e-6)


class Blind(nn.Module):
    """Logits without a gradient."""

    @torch.no_grad()
    def forward(self, x):
        return linear(WEIGHTS)(x)


def test_a_net_without_a_gradient_is_attacked_through_another():
    x, y = images(2), np.array([0, 1])
    given = {"attack": "transfer", "eps": 0.3, "surrogate": linear(WEIGHTS)}
    moved, same = (advkit.attack(net, x, y, **given) for net in (Blind(), linear(WEIGHTS)))
    np.testing.assert_array_equal(moved.images, same.images)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": images(2) + 1}, errors.InputError, r"not in \[0, 1\]"),
        ({"x": images(2) * np.nan}, errors.InputError, r"not in \[0, 1\]"),
        ({"model": len}, errors.UsageError, "is no torch.nn.Module"),
        ({"model": Blind()}, errors.UsageError, "no gradient to its images"),
        ({"x": images(2)[:, 0]}, errors.InputError, "N, C, H, W"),
        ({"y": np.array([0])}, errors.InputError, "2 images but 1 labels"),
        ({"y": np.array([0, 2])}, errors.InputError, "label 2 of example 1"),
        ({"y": np.array([0.0, 1.0])}, errors.InputError, "whole numbers"),
        ({"model": nn.Flatten(0)}, errors.InputError, "not logits"),
        ({"eps": 8}, errors.UsageError, "8/255"),
        ({"norm": "l0"}, errors.UsageError, "l0"),
        ({"attack": "pgdd"}, errors.UsageError, "did you mean 'pgd'"),
        ({"attack": "none"}, errors.UsageError, "ask the model"),
        ({"attack": "transfer"}, errors.UsageError, "surrogate"),
        ({"attack": "fast", "steps": 3}, errors.UsageError, "steps"),
        ({"restart": 3}, errors.UsageError, "did you mean 'restarts'"),
        ({"limit": 3}, errors.UsageError, "unknown option 'limit'"),
        ({"steps": 1.5}, errors.UsageError, "steps 1.5 is not a whole number"),
        ({"restarts": "x"}, errors.UsageError, "restarts 'x' is not a whole number"),
        ({"seed": "a"}, errors.UsageError, "seed 'a' is not a whole number"),
        ({"seed": -1}, errors.UsageError, "seed -1 is not in"),
        ({"batch_size": 0}, errors.UsageError, "batch-size 0 is not in"),
        ({"version": "plus"}, errors.UsageError, "version belongs to"),
        ({"attack": 3}, errors.UsageError, "3 names no attack"),
        ({"attack": "transfer", "surrogate": 3}, errors.UsageError, "is no torch.nn.Module"),
        ({"surrogate": nn.Flatten()}, errors.UsageError, "surrogate belongs to"),
    ],
)  # fmt: skip
def test_what_cannot_be_attacked(change, error, words):
    given = {"model": linear(WEIGHTS), "x": images(2), "y": np.array([0, 1]), "attack": "pgd"}
    given |= change
    model, x, y = (given.pop(name) for name in ("model", "x", "y"))
    with pytest.raises(error, match=words):
        advkit.attack(model, x, y, **given)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda _: advkit.train(epoch=2), "did you mean 'epochs'"),
        (lambda _: advkit.train(data="digits", method="adrr"), "did you mean 'adr'"),
        (lambda _: advkit.train(data="digits", print_config=True), "print_config"),
        (lambda _: advkit.train(data="digits", method="ltd"), "soft-labels"),
        (lambda _: advkit.train(data="digits", emit="all"), "emit is for the command line"),
        (lambda run: advkit.evaluate(run, attack="pgd", stepz=3), "did you mean 'steps'"),
        (lambda run: advkit.evaluate(run, attack="pgd", batch_size=0), "batch-size 0 is not in"),
        (lambda run: advkit.evaluate(run, attack="pgd", limit="few"), "few. is not a whole number"),
        (lambda run: advkit.evaluate(run, attack="pgd", steps=2.5), "steps 2.5 is not a whole"),
        (lambda run: advkit.softlabels(run, view="all"), "did you mean 'views'"),
        (lambda run: advkit.analyze("calibratio", run), "did you mean 'calibration'"),
        (lambda run: advkit.analyze("calibration", run, bin=3), "did you mean 'bins'"),
        (lambda run: advkit.analyze("calibration", run, run), "one input"),
        (lambda _: advkit.analyze("calibration"), "needs logits"),
        (lambda run: advkit.analyze("compare", [run, run]), "a list is no file"),
        (lambda _: advkit.load(None), "a NoneType is no file"),
        (lambda _: advkit.train(data="digits", out=""), "its name is empty"),
        (lambda run: advkit.evaluate(run, attack="pgd", out="-"), "stdout has its record"),
    ],
)  # fmt: skip
def test_wrong_usage(run, call, words):
    with pytest.raises(errors.UsageError, match=words):
        call(run)


# A guest in the caller's process


@pytest.fixture
def state():
    """What a caller's process has set, other than a new one has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    yield lambda: (
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), torch.get_num_threads(),
        torch.is_grad_enabled(), signal.getsignal(signal.SIGINT), random.getstate(),
    )  # fmt: skip
    torch.set_num_threads(threads)


@pytest.fixture
def noisy():
    """A net in training mode, parts of it frozen, that draws from the global stream."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip
    net[0].requires_grad_(False)
    net[3].eval()
    return net


def test_a_package_that_draws_as_it_is_imported_moves_no_stream(state):
    before = state()
    with api._guest():
        random.random()
    assert state() == before


def test_attack_leaves_the_caller_alone(state, noisy, capfd):
    modes = [(module.training) for module in noisy.modules()]
    flags = [parameter.requires_grad for parameter in noisy.parameters()]
    weights = {name: value.clone() for name, value in noisy.state_dict().items()}
    with torch.no_grad():
        before = state()
        advkit.attack(noisy, images(5), np.arange(5) % 3, attack="pgd", steps=2)
        assert state() == before
    assert [module.training for module in noisy.modules()] == modes
    assert [parameter.requires_grad for parameter in noisy.parameters()] == flags
    assert all(parameter.grad is None for parameter in noisy.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in noisy.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_stages_leave_the_caller_alone(state, run, tmp_path, capfd):
    with torch.inference_mode():
        before = state()
        own = advkit.train(method="at", out=tmp_path / "run", **{**OPTIONS, "epochs": 1})
        found = advkit.evaluate(own, **PGD)
        advkit.softlabels(own)
        advkit.analyze("calibration", found)
        advkit.load(own)
        assert state() == before
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_where_it_is_asked_for(run, tmp_path, capfd):
    advkit.evaluate(run, out=tmp_path / "a.h5", progress=True, **PGD)
    out, err = capfd.readouterr()
    assert (out, "pgd 40/40" in err) == ("", True)


def stopping(monkeypatch, after):
    """Send this process a Ctrl-C in step `after` of a training."""
    from advkit.training.trainer import Trainer

    step, seen = Trainer.step, []

    def stopped(self, *arguments):
        seen.append(1)
        if len(seen) == after:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", stopped)
    return seen


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", signal.getsignal)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        seen = stopping(monkeypatch, 3)
        with pytest.raises(KeyboardInterrupt, match="state saved"):
            advkit.train(method="adr", out=tmp_path / "run", **OPTIONS)
        assert len(seen) == 3  # the step at hand was finished
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert not RunFolder(tmp_path / "run").done
        with pytest.raises(errors.MismatchError, match="resume"):
            advkit.train(method="adr", out=tmp_path / "run", **OPTIONS)
        again = advkit.train(method="adr", out=tmp_path / "run", resume=True, **OPTIONS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert again.best.read_bytes() == run.best.read_bytes()
    assert again.final.read_bytes() == run.final.read_bytes()


def test_a_callers_own_handler_and_other_threads_are_left_alone(run, tmp_path):
    mine = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGINT, mine)
    seen = []
    try:

        def work():
            logits = advkit.evaluate(run, out=tmp_path / "a.h5", **PGD)
            seen.append((signal.getsignal(signal.SIGINT) is mine, len(logits.labels)))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [(True, 40)] * 2


def test_several_processes_use_the_command_line(monkeypatch, run):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for call in (lambda: advkit.train(data="digits"), lambda: advkit.evaluate(run)):
        with pytest.raises(errors.UsageError, match="command line"):
            call()


# The package's door


def fresh(code):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_package_loads_nothing_before_it_is_used():
    """And `softlabels` is a function even where the room of that name was imported first.

    Torchvision waits until a net of it is built, also where every architecture was imported.
    """
    code = (
        "import json, sys, advkit\n"
        "heavy = {'torch', 'numpy', 'h5py', 'typer', 'matplotlib'}\n"
        "first = sorted(heavy & sys.modules.keys()), advkit.__version__, dir(advkit)\n"
        "import advkit.softlabels.labelling\n"
        "from advkit import models, registry\n"
        "from advkit.errors import InputError\n"
        "for name in registry.parts('models'): registry.load('models', name)\n"
        "early = 'torchvision' in sys.modules\n"
        "try: advkit.softlabels('nowhere.safetensors')\n"
        "except InputError as error: print(json.dumps([*first, early, str(error)]))"
    )
    loaded, version, names, early, refusal = fresh(code)
    assert (loaded, version, early) == ([], advkit.__version__, False)
    assert set(PUBLIC) <= set(names)
    assert "nowhere.safetensors" in refusal


def test_what_is_not_there():
    with pytest.raises(AttributeError, match="nothing"):
        advkit.nothing  # noqa: B018
    with contextlib.suppress(ImportError):
        from advkit import nothing  # noqa: F401

        pytest.fail("it was there")


def test_every_public_function_is_typed_and_documented():
    import inspect

    from advkit import api

    for name in PUBLIC:
        function = getattr(api, name)
        signature = inspect.signature(function)
        assert function.__doc__
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(each.annotation is not each.empty for each in signature.parameters.values())

"""Training: resuming bit for bit, the order of one step, and what is kept when it goes wrong."""

import json
import math
import signal
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.special import softmax

from advkit import data, models
from advkit.attacks import pgd
from advkit.config.resolve import resolve
from advkit.errors import InputError, MismatchError, NumericalError, Stopped
from advkit.formulas.threat import Threat
from advkit.labels import adr
from advkit.objectives import at
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from advkit.runtime.seeding import generator
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.selection import Validation
from advkit.training.trainer import Trainer
from tests.conftest import SEED

CPU = torch.device("cpu")
SMALL = {
    "data": "digits", "limit": 150, "epochs": 2, "batch_size": 32, "width": 4, "lr": 0.05,
    "attack_steps": 2, "eps": "0.1", "seed": SEED,
}  # fmt: skip
"""Compared with itself, resumed or recomputed: whatever the net learns."""
STEPS = 3
"""Steps an epoch: 150 examples, 30 of them set aside, batches of 32."""


def resolved(method="at", **more):
    return resolve(({**SMALL, "method": method, **more}, "flag"))


def go(path, method="at", resume=False, **more):
    return train(resolved(method, **more), RunFolder(path), device=CPU, threads=1, resume=resume)


def contents(path):
    """Everything that a finished run leaves, but for the times in its metrics."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds") >= 0
        # None of an epoch that was stopped behind its last step and gone on with.
        assert row.pop("images_per_second") >= 0
    found = {each.name: each.read_bytes() for each in path.glob("*.safetensors")}
    return {**found, "config.toml": (path / "config.toml").read_text(), "metrics": rows}


def stop_at(monkeypatch, call):
    """Let the `call`-th look for a signal (from 0) find one."""
    looks = []

    def pending():
        looks.append(1)
        return signal.SIGTERM if len(looks) == call + 1 else None

    monkeypatch.setattr(signals, "pending", pending)


LOOKS = {"at": 2 * (STEPS + 2), "adr": 2 * (STEPS + 2), "trades-adr-wa": 2 * (STEPS + 3)}
"""Looks for a signal: after each step, each validation batch of each model, each epoch."""
FEW = {"at": (0,), "adr": (3, 8), "trades-adr-wa": (2, 3, 4, 5, 7, 10)}
"""Looks that the default suite stops at: one of each kind, in the first epoch and the second."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Method → contents of the run that was never stopped."""
    made = {}

    def get(method):
        if method not in made:
            path = tmp_path_factory.mktemp(method) / "run"
            assert go(path, method)
            made[method] = contents(path)
        return made[method]

    return get


@pytest.mark.parametrize(
    ("method", "call"),
    [
        pytest.param(method, call, marks=() if call in FEW[method] else pytest.mark.slow)
        for method, looks in LOOKS.items()
        for call in (range(looks) if method == "trades-adr-wa" else (0, 3, 4, 6, looks - 2))
    ],
)
def test_resumed_is_never_stopped(whole, tmp_path, monkeypatch, method, call):
    """At every point where a run can stop: the same bytes as without stopping."""
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        with pytest.raises(Stopped, match="--resume") as stopped:
            go(path, method)
    assert stopped.value.code == 143
    assert (path / "state.safetensors").exists()
    assert not (path / "final.safetensors").exists()
    assert go(path, method, resume=True)
    found, expected = contents(path), whole(method)
    assert found["metrics"] == expected["metrics"]
    assert found.keys() == expected.keys()
    assert found == expected


ORIGINAL = {
    "bn_passes": "acc", "clip_start": False, "last_batch": "keep", "logging_pass": True,
}  # fmt: skip


def stopped(path, monkeypatch, call, **more):
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        with pytest.raises(Stopped):
            go(path, "trades", **more)


def test_resumed_with_steps_of_the_originals(tmp_path, monkeypatch):
    """Stopped before the last, smaller batch of the first epoch."""
    assert go(tmp_path / "whole", "trades", **ORIGINAL)
    expected = contents(tmp_path / "whole")
    assert [row["n"] for row in expected["metrics"]] == [120, 120]  # all that are not held out
    stopped(tmp_path / "run", monkeypatch, STEPS - 1, **ORIGINAL)
    assert go(tmp_path / "run", "trades", resume=True, **ORIGINAL)
    assert contents(tmp_path / "run") == expected
    assert not go(tmp_path / "run", "trades", **ORIGINAL)


def test_a_run_begun_before_those_options_goes_on_as_it_began(tmp_path, monkeypatch):
    """The same command, which by now means another step: the bytes of the step of then."""
    then = {"bn_passes": "ca", "clip_start": True}
    assert go(tmp_path / "whole", "trades", **then)
    expected = contents(tmp_path / "whole")
    path = tmp_path / "run"
    stopped(path, monkeypatch, 0, **then)
    lines = (path / "config.toml").read_text().splitlines(keepends=True)
    old = "".join(line for line in lines if line.split(" =")[0] not in ORIGINAL)
    (path / "config.toml").write_text(old)
    with pytest.raises(MismatchError, match="clip_start: True -> False"):
        go(path, "trades", resume=True, clip_start=False)
    assert go(path, "trades", resume=True)
    found = contents(path)
    assert found.pop("config.toml") == old
    assert found.items() <= expected.items()
    assert not go(path, "trades")  # and once more: already done


class Listening(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize(
    ("more", "notes"),
    [
        ({}, ["24 of 120 training images are left out of every epoch, others each time: they fill "
              "no batch of 32; --last-batch keep trains on them too"]),
        ({"last_batch": "keep"}, []),
        ({"batch_size": 40}, []),
    ],
)  # fmt: skip
def test_images_that_an_epoch_leaves_out_are_counted(more, notes):
    said = Listening()
    settings = resolved(**more).settings
    Trainer(settings, data.load("digits", "train"), device=CPU, threads=1, reporter=said)
    assert said.notes == notes


class Inside(Reporter):
    """Remembers what is said to go on."""

    def __init__(self):
        self.said = []

    def inside(self, what, total=0, done=0):
        self.said.append(f"{what} {done}/{total}" if total else what)


def test_progress_names_the_epoch_and_moves_in_validation(tmp_path, monkeypatch):
    monkeypatch.setattr("advkit.training.selection.CHUNK", 16)  # 30 examples are two batches
    said = Inside()
    chosen = resolved("adr-wa", attack_steps=1, width=2)
    assert train(chosen, RunFolder(tmp_path / "run"), device=CPU, threads=1, reporter=said)
    epochs = []
    # The last epoch is held against an attack on the margin as well.
    for epoch, attacks in (("epoch 1/2", ""), ("epoch 2/2", " and margin")):
        epochs.append(epoch)
        for net in ("", " of the average"):
            epochs += [f"{epoch} validation PGD-10{attacks}{net} {done}/2" for done in (0, 1, 2)]
        epochs.append("")
    assert said.said == epochs


def test_resumed_time_and_again(whole, tmp_path, monkeypatch):
    path = tmp_path / "run"
    for call in (1, 0, 2, 1):
        with monkeypatch.context() as patch:
            stop_at(patch, call)
            with pytest.raises(Stopped):
                go(path, "adr", resume=True)
    assert go(path, "adr", resume=True)
    assert contents(path) == whole("adr")


def test_killed_between_saves(whole, tmp_path, monkeypatch):
    """Without a chance to save, the run goes on from the last epoch's state."""
    path, original, calls = tmp_path / "run", at.outer, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == STEPS + 2:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(at, "outer", dying)
        with pytest.raises(KeyboardInterrupt):
            go(path)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "torn')
    assert go(path, resume=True)
    assert contents(path) == whole("at")


@pytest.mark.parametrize("method", ["at", "trades-adr-wa"])
def test_same_seed_same_bytes(whole, tmp_path, method):
    torch.manual_seed(12345)
    torch.rand(17)  # nothing may hang on the global generator
    go(tmp_path / "run", method)
    assert contents(tmp_path / "run") == whole(method)


def test_other_seed_other_weights(whole, tmp_path):
    go(tmp_path / "run", seed=SEED + 1)
    assert contents(tmp_path / "run")["final.safetensors"] != whole("at")["final.safetensors"]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("at", {"best", "final"}),
        ("adr", {"best", "final", "final-ema"}),
        ("trades-adr-wa", {"best", "final", "final-ema", "best-ema"}),
    ],
)
def test_files_of_a_run(whole, method, names):
    assert {f"{name}.safetensors" for name in names} | {"config.toml", "metrics"} == set(
        whole(method)
    )


def test_done_is_done(tmp_path):
    go(tmp_path / "run", epochs=1)
    before = contents(tmp_path / "run")
    assert go(tmp_path / "run", epochs=1) is False
    assert contents(tmp_path / "run") == before


def test_partial_needs_resume(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(Stopped):
            go(tmp_path / "run")
    with pytest.raises(MismatchError, match="--resume"):
        go(tmp_path / "run")
    with pytest.raises(MismatchError, match=r"lr: 0.05 -> 0.01"):
        go(tmp_path / "run", resume=True, lr=0.01)


def test_corrupt_state(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(Stopped):
            go(tmp_path / "run")
    state = tmp_path / "run" / "state.safetensors"
    raw = bytearray(state.read_bytes())
    raw[-5] ^= 1
    state.write_bytes(raw)
    with pytest.raises(InputError, match="corrupt"):
        go(tmp_path / "run", resume=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence(tmp_path, monkeypatch, value):
    """In the second epoch: named with its step, and the first epoch's files are as they were."""
    path, original, kept = tmp_path / "run", at.outer, {}

    def diverging(model, x, x_adv, given):
        loss, seen = original(model, x, x_adv, given)
        if (path / "best.safetensors").exists():
            kept.setdefault("best", (path / "best.safetensors").read_bytes())
            kept["calls"] = kept.get("calls", 0) + 1
            loss = loss * (value if kept["calls"] == 2 else 1)
        return loss, seen

    monkeypatch.setattr(at, "outer", diverging)
    with pytest.raises(NumericalError, match="epoch 2, step 2"):
        go(path)
    assert (path / "best.safetensors").read_bytes() == kept["best"]
    assert not (path / "final.safetensors").exists()
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 1
    assert all(
        bool(torch.isfinite(each).all()) for each in load_file(path / "best.safetensors").values()
    )


def trainer(method="at", **more):
    settings = resolved(method, **more).settings
    return Trainer(
        settings, data.load("digits", "train"), device=CPU, threads=1, reporter=Reporter()
    )


def first_step(method, **more):
    """Return a trainer that has taken one step."""
    made = trainer(method, **more)
    made.step(made.batches.at(made.batches.order(0), 0, 0), 0, 0)
    return made


K = 4
BN_UPDATES = [
    ("at", "eval", {}, 1),
    ("at", "frozen", {}, 1),
    ("at", "train", {}, K + 1),
    ("trades", "eval", {}, 3),
    ("trades", "frozen", {}, 3),
    ("trades", "train", {}, 1 + K + 3),
    ("trades", "eval", {"bn_passes": "ca"}, 2),
    ("trades", "eval", {"labels": "smoothing"}, 2),
    ("at", "eval", {"logging_pass": True}, 2),
    ("trades", "train", {"joint_batch": True}, 1 + K + 1),
    ("trades", "eval", {"joint_batch": True}, 1),
    ("natural", "train", {"attack_steps": 0}, 1),
]
"""Forward passes of one step that move BN statistics: clean, K of the attack, the student's.

TRADES' clean pass is counted twice, as its code passes it twice."""


@pytest.mark.parametrize(("method", "mode", "more", "updates"), BN_UPDATES)
def test_bn_statistics_move_as_documented(method, mode, more, updates):
    made = first_step(method, **{"attack_bn": mode, "attack_steps": K, **more})
    assert int(made.learner.model.bn1.num_batches_tracked) == updates
    assert made.learner.model.bn1.track_running_stats
    assert made.learner.model.training


@pytest.mark.parametrize(
    ("mode", "training", "tracking"),
    [("eval", False, True), ("train", True, True), ("frozen", True, False)],
)
@pytest.mark.parametrize("objective", ["at", "trades"])
def test_model_during_the_attack(objective, mode, training, tracking):
    made, seen = trainer(objective, attack_bn=mode), []
    original = made.learner.parts.inner

    def inner(logits, given):
        norm = made.learner.model.bn1
        seen.append((norm.training, norm.track_running_stats))
        return original(logits, given)

    made.learner.parts = replace(made.learner.parts, inner=inner)
    made.step(made.batches.at(made.batches.order(0), 0, 0), 0, 0)
    assert seen == [(training, tracking)] * SMALL["attack_steps"]


def test_order_of_a_step():
    """Labels of the teacher before its update, an attack on those labels, then the update."""
    made = first_step("adr", tau="1.5", **{"lambda": "0.6"})
    batch, teacher = made.batches.at(made.batches.order(0), 0, 1), made.learner.ema.model
    z = teacher(batch.x).double().numpy()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    seen, original = {"inner": []}, at.outer

    def outer(model, x, x_adv, given):
        seen.update(x=x, x_adv=x_adv, targets=given.targets)
        seen["teacher moved"] = not torch.equal(teacher.conv1.weight, before["conv1.weight"])
        seen["student"] = [value.detach().clone() for value in model.parameters()]
        return original(model, x, x_adv, given)

    inner = at.inner
    made.learner.parts = replace(
        made.learner.parts, outer=outer,
        inner=lambda z, g: seen["inner"].append(g.targets) or inner(z, g),
    )  # fmt: skip
    made.step(batch, 0, 1)
    p, y = softmax(z / 1.5, axis=1), batch.y.numpy()
    lam = np.clip(0.6 - (p.max(1) - p[np.arange(32), y]), 0, 1)[:, None]
    np.testing.assert_allclose(seen["targets"], lam * p + (1 - lam) * np.eye(10)[y], atol=1e-6)
    assert all(each is seen["targets"] for each in seen["inner"])
    assert not seen["teacher moved"]
    decay = made.settings.ema_decay
    for name, value in made.learner.model.state_dict().items():
        if value.is_floating_point():
            expected = decay * before[name] + (1 - decay) * value
            np.testing.assert_allclose(teacher.state_dict()[name], expected, atol=1e-6)
    after = list(made.learner.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(seen["student"], after, strict=True))


def test_attack_of_a_step():
    """The student sees PGD's last iterate from the step's own noise, not the clean images."""
    made, seen, original = trainer("at"), {}, at.outer

    def outer(model, x, x_adv, given):
        seen["x_adv"] = x_adv
        return original(model, x, x_adv, given)

    made.learner.parts = replace(made.learner.parts, outer=outer)
    batch = made.batches.at(made.batches.order(0), 0, 0)
    expected = pgd.pgd(
        made.learner.model.eval(), batch.x, batch.y, Threat("linf", 0.1), steps=2, step_size=0.025,
        generator=generator(SEED, "attack", 0, 0),
    )  # fmt: skip
    made.step(batch, 0, 0)
    assert torch.allclose(seen["x_adv"], expected, atol=1e-6)
    assert 0 < float((expected - batch.x).abs().max()) <= 0.1 + 1e-6


def test_annealing_reaches_the_labels(monkeypatch):
    """τ and λ move with the iteration of the whole run, not the epoch."""
    made, seen, original = trainer("adr"), [], adr.rectify

    def rectify(z, y, tau, lam):
        seen.append((tau, lam))
        return original(z, y, tau, lam)

    monkeypatch.setattr(adr, "rectify", rectify)
    made.step(made.batches.at(made.batches.order(1), 1, 1), 1, 1)
    share = (1 + math.cos(math.pi * (STEPS + 1) / (2 * STEPS))) / 2
    assert seen == [pytest.approx((0.5 + 0.5 * share, 0.7 - 0.4 * share))]


def test_momentum_and_decay_by_hand(monkeypatch):
    """One step of SGD from the gradient g: w − lr·(1 + μ)·(g + wd·w), Nesterov's first."""
    made = trainer("at", momentum=0.8, weight_decay=0.01)
    before = [each.detach().clone() for each in made.learner.model.parameters()]
    made.step(made.batches.at(made.batches.order(0), 0, 0), 0, 0)
    for old, new in zip(before, made.learner.model.parameters(), strict=True):
        expected = old - 0.05 * 1.8 * (new.grad + 0.01 * old)
        np.testing.assert_allclose(new.detach(), expected, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("split", [0, 5])
def test_validation_is_never_trained_on(seed, split):
    made = trainer("at", seed=seed, split_seed=split)
    held = set(made.validation.positions.tolist())
    assert len(held) == 30
    trained = set()
    for epoch in range(3):
        order = made.batches.order(epoch)
        for step in range(len(made.batches)):
            trained |= set(made.batches.at(order, epoch, step).index.tolist())
    assert held.isdisjoint(trained)
    assert len(trained) > 110
    labels = made.images.labels[made.validation.positions]
    assert torch.bincount(labels, minlength=10).tolist() == [3] * 10


def test_split_hangs_on_its_own_seed():
    def held(**more):
        return trainer(**more).validation.positions.tolist()

    assert held() == held(seed=3)
    assert held() != held(split_seed=1)
    assert len(held(val_size=40)) == 40


def metadata(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["advkit"])


@pytest.mark.parametrize(
    ("method", "file", "key"),
    [
        ("adr", "best", "val_robust_accuracy"),
        ("adr-wa", "best-ema", "val_robust_accuracy-ema"),
        ("natural", "best", "val_clean_accuracy"),
    ],
)
def test_best_is_the_best_epoch(tmp_path, monkeypatch, method, file, key):
    """The first of the highest rows of metrics.jsonl, and the file holds that very model."""
    path = tmp_path / "run"
    steps = 0 if method == "natural" else 2
    done = resolved(method, epochs=4, attack_steps=steps)
    planted, measured, measure = [0.25, 0.5, 0.5, 0.375], [], Validation.measure

    def placed(validation, *arguments):
        """Real figures in an order of our own: what is selected hangs on no training."""
        figures = measure(validation, *arguments)
        measured.append(figures)
        epoch = (len(measured) - 1) // (2 if method == "adr-wa" else 1)
        # At the end ADR's average is measured too, beside its student.
        return dict.fromkeys(figures, [*planted, 0.375][epoch])

    monkeypatch.setattr(Validation, "measure", placed)
    train(done, RunFolder(path), device=CPU, threads=1)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row[key] for row in rows] == planted
    found = metadata(path / f"{file}.safetensors")["metrics"]
    assert (found["epoch"], found[key[4:].removesuffix("-ema")]) == (2, 0.5)
    model, _ = models.load(path / f"{file}.safetensors")
    made = Trainer(
        done.settings, data.load("digits", "train"), device=CPU, threads=1, reporter=Reporter()
    )
    positions = made.validation.positions
    x = made.images.batch(positions).float() / 255
    hits = (model(x).argmax(1) == made.images.labels[positions]).double().mean()
    of_file = measured[3 if method == "adr-wa" else 1]
    assert of_file["clean_accuracy"] == pytest.approx(float(hits))


def test_metrics_by_hand(tmp_path):
    """Loss and training accuracy of an epoch are those of its batches."""
    made, path = trainer("at", epochs=1), tmp_path / "run"
    go(path, epochs=1)
    (row,) = (json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    losses, hits, original = [], [], at.outer
    order = made.batches.order(0)

    def outer(model, x, x_adv, given):
        loss, logits = original(model, x, x_adv, given)
        losses.append(loss.item())
        hits.append((logits["adversarial"].argmax(1) == given.y).double().mean().item())
        return loss, logits

    made.learner.parts = replace(made.learner.parts, outer=outer)
    for step in range(STEPS):
        made.step(made.batches.at(order, 0, step), 0, step)
    assert row["n"] == 32 * STEPS
    assert row["loss"] == pytest.approx(np.mean(losses))
    assert row["train_robust_accuracy"] == pytest.approx(np.mean(hits))
    assert row["target_entropy"] == 0


def test_artifacts_hold_no_path_or_time(whole, tmp_path):
    go(tmp_path / "run", "at")
    text = json.dumps(metadata(tmp_path / "run" / "final.safetensors"))
    assert str(tmp_path) not in text
    assert "seconds" not in text
    written = tomllib.loads(whole("at")["config.toml"])
    assert written["method"] == "at"
    assert written["attack_steps"] == 2

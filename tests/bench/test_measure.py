"""The bench times what training does, and counts what it computes."""

import dataclasses

import pytest
import torch

from advkit import registry
from advkit.bench import images, measure, table
from advkit.bench.measure import Bench, Comparison, Cost
from advkit.config import resolve
from advkit.errors import UsageError
from advkit.runtime import memory
from advkit.training import selection

CPU = torch.device("cpu")
FACTS = images.Facts(1000, 200, 4, (3, 8, 8))
SMALL = {"data": "digits", "arch": "small-cnn", "width": 8, "batch_size": 16, "attack_steps": 3}


def settings(method, **more):
    return resolve.resolve(({**SMALL, "method": method, **more}, "test")).settings


def forward_flops(batch):
    """Of small-cnn at width 8 on 3×8×8 images, 2 a multiply-add, by hand: (all, first layer)."""
    first = 2 * 9 * 3 * 8 * 64
    rest = 2 * 9 * 8 * 16 * 16 + 2 * 9 * 16 * 16 * 16 + 2 * 16 * 4
    return batch * (first + rest), batch * first


@pytest.mark.parametrize("method", ["at", "adr", "at-awp", "trades", "ltd"])
def test_operations_are_those_of_the_passes(method):
    """Attack steps are 2 F, a training pass 3 F less the images' gradient, a teacher 1 F."""
    whole, first = forward_flops(16)
    learning = 3 * whole - first
    expected = {
        "at": 3 * 2 * whole + learning,
        "adr": whole + 3 * 2 * whole + learning,
        "at-awp": 3 * 2 * whole + 2 * learning,
        "trades": whole + 3 * 2 * whole + 2 * learning,
        "ltd": 3 * 2 * whole + 2 * learning,  # hard labels in the attack, stored soft ones
    }[method]
    assert Bench(settings(method), FACTS, CPU).flops() == expected


FORWARDS_AND_LEARNINGS = {
    # In F, a forward pass, and L, a training pass; 10 steps of the attack are 20 F.
    ("at",): (20, 1),
    ("at", "min_loss", 1.5): (20, 1),  # MLCAT: none
    ("rslad",): (20, 2),  # + 1 clean pass; the teacher's rows are stored
    ("score",): (21, 2),  # as TRADES: clean logits for the attack, then both learn
    ("adaad",): (41, 1),  # + 10 teacher passes forward and backward, + 1 forward at the last x'
    ("iad",): (22, 2),  # + 1 clean pass, + 2 teacher passes, at x and x'
    # Its second term never begins: no teacher at x', and the clean pass only moves BN.
    ("iad", "introspect_from", 201): (22, 1),
    ("kd",): (22, 1),  # + 2 teacher passes at x'
    ("hat",): (22, 3),  # TRADES, + 1 teacher pass at x', + 1 pass of the helper that learns
    ("sat",): (21, 2),  # as TRADES: its targets come from the passes that learn
    ("te",): (21, 1),  # + 1 clean pass without gradient
    ("te", "base", "trades"): (21, 2),  # as TRADES, whose clean logits it shares
    ("te", "ramp", "201:210"): (20, 1),  # its term never begins
    ("ikl",): (21, 2),  # as TRADES, and a small product, see below
}
"""Passes of a step under PGD-10 in the last of 200 epochs, by method and one option."""


@pytest.mark.parametrize(
    "asked", FORWARDS_AND_LEARNINGS, ids=lambda asked: "-".join(map(str, asked))
)
def test_methods_cost_the_passes_that_papers_count(asked):
    """F is a forward pass; a step of the attack a forward and the images' gradient, 2 F.

    A training pass L is F forward, F for the weights' gradients, and F for those of activations
    less the first layer's, which nobody asks for: 3 F - first. A fixed teacher is a net of the
    student's form: F forward, F more where the attack asks it for the images' gradient.
    """
    method, *option = asked
    whole, first = forward_flops(16)
    forwards, learnings = FORWARDS_AND_LEARNINGS[asked]
    expected = forwards * whole + learnings * (3 * whole - first)
    if method == "ikl":
        expected += 2 * 4 * 16 * 4  # one-hot classes (4, 16) times softmax rows (16, 4)
    more = dict([option]) if option else {}
    made = Bench(settings(method, attack_steps=10, epochs=200, **more), FACTS, CPU)
    assert made.flops() == expected


@pytest.mark.parametrize("attack", ["fgsm-rs", "n-fgsm"])
def test_single_step_training_costs_two_passes_for_eleven(attack):
    """A step of the attack and one that learns, each forward and backward: 2 F + L."""
    whole, first = forward_flops(16)
    made = Bench(settings("at", train_attack=attack, attack_steps=1), FACTS, CPU)
    assert made.flops() == 2 * whole + 3 * whole - first


@pytest.mark.parametrize("augment", sorted(registry.parts("augment")))
def test_augmentations_cost_no_operations(augment):
    """They change bytes on the CPU, before the step that is counted."""
    plain, changed = (
        Bench(settings("at", augment=name), FACTS, CPU).flops() for name in ("none", augment)
    )
    assert changed == plain


def test_grad_align_is_counted():
    """Two gradients for images, 2 F each, and the second's own derivative.

    That is F forward and F for the weights through the gradient's pass, and 2 F through the forward
    pass: 8 F. PyTorch adds a part of a pass, which is its own matter.
    """
    whole, _ = forward_flops(16)
    plain, aligned = (
        Bench(settings("at", attack_steps=1, grad_align=weight), FACTS, CPU).flops()
        for weight in (0, 0.2)
    )
    assert 8 * whole <= aligned - plain < 9 * whole


def test_an_epoch_of_one_step_is_counted():
    """At the first step of an epoch the guard looks at the loss, which has no number here."""
    whole, first = forward_flops(16)
    made = Bench(settings("at", limit=24, val_size=8), FACTS, CPU)
    assert made.steps_per_epoch == 1
    assert made.flops() == 3 * 2 * whole + 3 * whole - first


def test_mixed_images_of_a_method_with_a_memory_are_refused():
    with pytest.raises(UsageError, match=r"cutmix: .* te keeps a memory"):
        Bench(settings("te", augment="cutmix"), FACTS, CPU)


def test_a_batch_larger_than_the_training_split_is_refused():
    with pytest.raises(UsageError, match="--batch-size 32: there are 16 training examples"):
        Bench(settings("at", limit=24, val_size=8, batch_size=32), FACTS, CPU)


def test_an_epoch_is_that_of_the_data_set():
    made = Bench(settings("at"), FACTS, CPU)
    assert (made.validated, made.steps_per_epoch) == (200, 50)
    assert Bench(settings("at", val_size=40, limit=500), FACTS, CPU).steps_per_epoch == 28


def test_steps_are_those_of_the_last_epoch(monkeypatch):
    made, epochs = Bench(settings("te", epochs=200), FACTS, CPU), []
    original = made.learner.learn
    monkeypatch.setattr(
        made.learner, "learn", lambda *given: epochs.append(given[1]) or original(*given)
    )
    made.step(0)
    made.step(51)
    assert epochs == [199, 199]


@pytest.mark.parametrize(
    ("flags", "called"),
    [
        ({}, []),
        ({"select": "apgd"}, ["apgd_hits"]),
        ({"select": "margin"}, ["margin_hits"]),
        ({"attack_steps": 1}, ["one_step_hits"]),
    ],
)
def test_validation_is_that_of_the_run(monkeypatch, flags, called):
    calls = []
    for name in ("one_step_hits", "margin_hits", "apgd_hits"):
        monkeypatch.setattr(selection, name, lambda *_, name=name: calls.append(name) or 0)
    assert Bench(settings("at", **flags), FACTS, CPU).validation() > 0
    assert calls == called


def test_weight_perturbation_is_timed_although_it_begins_later(monkeypatch):
    made, calls = Bench(settings("at-awp", awp_warmup=10, epochs=20), FACTS, CPU), []
    original = made.learner._perturbed_step
    monkeypatch.setattr(made.learner, "_perturbed_step", lambda *a: calls.append(1) or original(*a))
    assert made.step(0) > 0
    assert calls == [1]


def test_methods_take_turns(monkeypatch):
    turns = []
    original = Bench.step
    monkeypatch.setattr(
        Bench, "step", lambda self, n: turns.append(self.settings.method) or original(self, n)
    )
    found = measure.compare({m: settings(m) for m in ("at", "adr")}, FACTS, CPU, 3)
    assert turns == ["at"] * 2 + ["adr"] * 2 + ["at", "adr", "at"] * 5
    assert list(found.costs) == ["at", "adr"]
    assert all(len(each.seconds) == 3 for each in found.costs.values())
    assert found.gradient > found.forward > 0
    assert found.noise > 0


def test_the_limit_is_a_matrix_product(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: float(next(clock)))
    assert measure.arithmetic_limit(CPU, amp=False, repeats=1) == 2 * 2048**3


@pytest.mark.skipif(not memory.reset_peak(), reason="Linux tells")
def test_peak_memory_is_measured_anew():
    block = torch.ones(2**26)  # 256 MiB
    del block
    memory.give_back()
    assert memory.reset_peak()
    low = memory.peak()
    torch.ones(2**25)
    assert memory.peak() - low == pytest.approx(2**27, rel=0.1)


def comparison():
    at = Cost((1.0, 2.0, 3.0), 100, 128, 10.0, 2**30, 10**9)
    adr = Cost((1.5, 3.0, 3.0), 100, 128, 10.0, None, 2 * 10**9)
    return Comparison({"at": at, "adr": adr}, 1.01, 1e-3, 2e-3, 10**9)


def test_the_table():
    chosen = {name: settings(name, epochs=18) for name in ("at", "adr")}
    result = table.report(
        chosen, comparison(), 500, table.Wishes(0.8, 0.5, watts=500.0, budget=7200.0)
    )
    at, adr = (dict(zip(result.columns, row, strict=True)) for row in result.rows)
    assert (at["label"], adr["label"]) == ("AT", "AT + ADR")
    assert (at["seconds_per_epoch"], adr["seconds_per_epoch"]) == (200.0, 300.0)
    assert adr["ratio"] == 1.5  # the median of 1.5, 1.5 and 1, round by round
    assert at["hours"] == pytest.approx(18 * 210 / 3600)
    assert at["kwh"] == pytest.approx(at["hours"] * 0.5)
    assert (at["share_of_limit"], at["images_per_second"]) == (0.5, 64.0)
    assert adr["peak_bytes"] is None
    assert [each["n"] for each in result.groups if each["what"] == "autoattack"] == [100, 200, 500]
    fits = {(each["method"], each["epochs"]) for each in result.groups if each["what"] == "fits"}
    assert fits == {(m, e) for m in ("at", "adr") for e in (18, 9, 4)}
    assert "AT + ADR" in result.text


def test_energy_is_never_guessed():
    alone = dataclasses.replace(comparison(), costs={"at": comparison().costs["at"]})
    wishes = table.Wishes(0.8, 0.5)
    result = table.report({"at": settings("at")}, alone, 500, wishes)
    assert dict(zip(result.columns, result.rows[0], strict=True))["kwh"] is None
    assert "kWh" not in result.text
    assert all(each["what"] == "autoattack" for each in result.groups)


def test_published_sizes_need_no_files():
    made = resolve.resolve(({"data": "imagenet", "arch": "resnet50"}, "test")).settings
    facts = images.facts(made, None)
    assert (facts.train, facts.test, facts.classes, facts.shape) == (1281167, 50000, 1000,
                                                                   (3, 224, 224))  # fmt: skip
    small = resolve.resolve(
        ({"data": "imagenet", "arch": "resnet50", "image_size": 64}, "test")
    ).settings  # fmt: skip
    assert images.facts(small, None).shape == (3, 64, 64)


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_published_sizes_are_true(name):
    from advkit import data, registry

    said = registry.part("data", name).constants["PUBLISHED"]
    train, test = (data.load(name, split) for split in ("train", "test"))
    assert said == {
        "train": len(train.labels), "test": len(test.labels), "classes": len(train.classes),
        "channels": train.shape[0], "size": train.shape[1],
    }  # fmt: skip

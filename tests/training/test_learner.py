"""What the options of a step do: warm-up, BN momentum and decay, normalisation, teacher noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from advkit import data
from advkit.config import resolve
from advkit.errors import InputError, MismatchError, UsageError
from advkit.formulas import corruption
from advkit.images import extra as _extra
from advkit.images.batches import Batches
from advkit.images.extra import Extra
from advkit.images.image_set import Images
from advkit.runtime import seeding
from advkit.runtime.reporting import Reporter
from advkit.training.books import averages
from advkit.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


def trainer(digits, **flags):
    given = {"data": "digits", "limit": 120, "val_size": 20, "batch_size": 20, "width": 4,
             "attack_steps": int(flags.get("method") != "natural"), **flags}  # fmt: skip
    settings = resolve.resolve((given, "test")).settings
    return Trainer(settings, digits, device=CPU, threads=1, reporter=Reporter())


def step(made, number=0):
    epoch, place = divmod(number, len(made.batches))
    made.step(made.batches.at(made.batches.order(epoch), epoch, place), epoch, place)


# --- schedules ---


def test_warm_up_reaches_the_optimizer(digits):
    made = trainer(digits, lr=0.4, lr_schedule="cyclic", epochs=40)  # five steps an epoch
    rates = []
    for number in range(8):
        step(made, number)
        rates.append(made.learner.optimizer.param_groups[0]["lr"])
    straight = [1e-6 + (0.4 - 1e-6) * t / 5 for t in range(5)]  # a fortieth of 40 epochs
    fall = [0.2 * (1 + np.cos(np.pi * t / 200)) for t in range(5, 8)]
    assert rates == pytest.approx([*straight, *fall], rel=1e-12)


def test_given_warm_up_wins(digits):
    made = trainer(digits, lr=0.1, warmup_epochs=0.4, epochs=4)
    assert [made.learner.rate(t) for t in range(3)] == pytest.approx([1e-6, 0.0500005, 0.1])


# --- batch normalisation ---


def test_bn_momentum_is_one_at_the_first_iteration_only(digits):
    made = trainer(digits, method="natural", bn_momentum=0.01)
    norm = made.learner.model.bn1
    seen = []
    norm.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0].detach()))
    step(made, 0)
    (first,) = seen
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)))
    before = norm.running_mean.clone()
    step(made, 1)
    torch.testing.assert_close(
        norm.running_mean, 0.99 * before + 0.01 * seen[1].mean((0, 2, 3)), rtol=1e-5, atol=1e-6
    )


def test_without_the_rule_momentum_stays(digits):
    made = trainer(digits, method="natural")
    step(made)
    assert made.learner.model.bn1.momentum == 0.1


def test_norms_escape_weight_decay_where_told(digits):
    """SGD's first step without momentum is -lr·(g + wd·w): the two runs differ by lr·wd·w."""
    made = {
        decays: trainer(digits, method="natural", momentum=0.0, weight_decay=0.1, lr=0.1,
                        norm_decay=decays)
        for decays in (True, False)
    }  # fmt: skip
    before = {n: p.detach().clone() for n, p in made[True].learner.model.named_parameters()}
    for each in made.values():
        step(each)
    spared = dict(made[False].learner.model.named_parameters())
    for name, decayed in made[True].learner.model.named_parameters():
        lost = 0.1 * 0.1 * before[name] if name.startswith("bn") else torch.zeros_like(decayed)
        torch.testing.assert_close(spared[name] - decayed, lost, rtol=1e-4, atol=1e-7)


def test_state_resumes_with_two_parameter_groups(digits, tmp_path):
    from advkit.training.run_folder import RunFolder

    whole = trainer(digits, norm_decay=False, method="at-wa", bn_momentum=0.2)
    for number in range(4):
        step(whole, number)
    part = trainer(digits, norm_decay=False, method="at-wa", bn_momentum=0.2)
    for number in range(2):
        step(part, number)
        part.progress.step = number + 1
    (tmp_path / "run").mkdir()
    part.files.save(RunFolder(tmp_path / "run"), part.learner, part.progress)
    again = trainer(digits, norm_decay=False, method="at-wa", bn_momentum=0.2)
    again.restore(RunFolder(tmp_path / "run"))
    for number in range(2, 4):
        step(again, number)
    for name, value in whole.learner.model.state_dict().items():
        assert torch.equal(value, again.learner.model.state_dict()[name]), name


# --- normalisation ---


def test_unnormalised_nets_see_pixels_as_they_are(digits):
    made = trainer(digits, normalise=False)
    assert (float(made.learner.model.mean), float(made.learner.model.std)) == (0, 1)
    info = made.files.describe("checkpoint", role="best", metrics={"epoch": 1, "n": 1})
    described = info["model"]
    assert (described["mean"], described["std"]) == ([0.0], [1.0])
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(made.learner.model.normalise(x), x)


# --- weight perturbation ---


@pytest.mark.parametrize(("warmup", "first"), [(0, 0), (1, 0), (2, 1), (3, 2)])
def test_awp_begins_with_the_named_epoch(digits, monkeypatch, warmup, first):
    made = trainer(digits, method="at-awp", awp_warmup=warmup)
    perturbed = []
    original = made.learner._perturbed_step
    monkeypatch.setattr(
        made.learner, "_perturbed_step",
        lambda outer, epoch, number: perturbed.append(epoch) or original(outer, epoch, number),
    )  # fmt: skip
    for epoch in range(3):
        step(made, epoch * len(made.batches))
    assert perturbed == list(range(first, 3))


# --- teacher noise ---


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        nn.init.constant_(self.layer.weight, 2.0)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return self.layer(x.flatten(1))


def generator():
    return torch.Generator().manual_seed(7)


def test_weight_noise_is_relative_to_each_tensor():
    net, x = Linear(), torch.eye(4).view(4, 1, 2, 2)
    with torch.no_grad():
        found = corruption.answer(net, x, "weights:0.5", generator())
    draw = generator()
    weight = 2 + 0.5 * 2.0 * torch.randn(3, 4, generator=draw)  # rms of the weights is 2
    torch.testing.assert_close(found, weight.T)  # the bias has rms 0
    assert bool((net.layer.weight == 2).all())


def test_logit_noise_is_absolute():
    net, x = Linear(), torch.zeros(5, 1, 2, 2)
    with torch.no_grad():
        found = corruption.answer(net, x, "logits:3", generator())
    torch.testing.assert_close(found, 3 * torch.randn(5, 3, generator=generator()))


def test_no_noise_changes_nothing():
    net, x = Linear(), torch.rand(5, 1, 2, 2)
    with torch.no_grad():
        for kind in corruption.KINDS:
            assert torch.equal(corruption.answer(net, x, f"{kind}:0", generator()), net(x))


@pytest.mark.parametrize("text", ["", "weights", "weights:", "weights:-1", "logits:nan", "bn:1"])
def test_other_noise_is_refused_before_any_work(text):
    with pytest.raises(UsageError, match=r"weights:SIGMA or logits:SIGMA"):
        resolve.resolve(({"data": "digits", "method": "adr", "teacher_noise": text}, "flag"))


def test_noise_reaches_adrs_labels_anew_each_step(digits):
    targets = {}
    for noise in (None, "logits:2"):
        made = trainer(digits, method="adr", teacher_noise=noise)
        batch = made.batches.at(made.batches.order(0), 0, 0)
        targets[noise] = [made.learner.learn(batch, 0, number).targets for number in (0, 1, 0)]
    assert not torch.allclose(targets[None][0], targets["logits:2"][0])
    a_generator = seeding.generator(0, "teacher noise", 0, 0)
    assert torch.equal(
        torch.randn(3, generator=a_generator),
        torch.randn(3, generator=seeding.generator(0, "teacher noise", 0, 0)),
    )


# --- extra data ---


def extra_images(count, classes=10, seed=0):
    """Images sorted by class, each of one grey value that tells its place."""
    labels = torch.arange(count) * classes // count
    images = (torch.arange(count) % 200 + 20).to(torch.uint8).view(-1, 1, 1, 1)
    names = tuple(str(label) for label in range(classes))
    return Images("extra", "train", images.expand(-1, 1, 8, 8).clone(), labels, names, 0, False)


def test_every_extra_image_comes_once_a_pass_in_a_new_order():
    stream = Extra(extra_images(30), 8, 1)
    seen = torch.cat([stream.positions(t) for t in range(15)])  # four passes of 30
    for number in range(4):
        part = seen[number * 30 : (number + 1) * 30]
        assert sorted(part.tolist()) == list(range(30))
    assert not torch.equal(seen[:30], seen[30:60])
    alone = Extra(extra_images(30), 8, 1)
    assert torch.equal(alone.positions(11), stream.positions(11))  # a function of t alone


def test_a_class_sorted_file_gives_mixed_batches():
    images = extra_images(1000)
    stream = Extra(images, 50, 0)
    for t in range(20):
        assert len(set(images.labels[stream.positions(t)].tolist())) >= 8


def test_batches_mix_real_and_extra(digits):
    extra = extra_images(40)
    whole = Batches(digits, torch.arange(100), 20, 0, CPU, extra=Extra(extra, 15, 0))
    assert (len(whole), whole.own) == (20, 5)
    plain = Batches(digits, torch.arange(100), 5, 0, CPU)
    for batch, alone in zip(whole.epoch(0), plain.epoch(0), strict=True):
        assert torch.equal(batch.x[:5], alone.x)
        assert torch.equal(batch.index[:5], alone.index)
        assert batch.index[5:].tolist() == [-1] * 15
        place = (batch.x[5:, 0, 4, 4] * 255).round().long() - 20
        assert torch.equal(batch.y[5:], extra.labels[place])


def npz(path, count=60, side=8, channels=1, classes=10):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    np.savez(path, image=images, label=np.arange(count) * classes // count)
    return str(path)


@pytest.mark.parametrize("method", ["adr-awp-wa", "trades", "mart", "ls"])
def test_training_with_extra_data(digits, tmp_path, method):
    path = npz(tmp_path / "extra.npz")
    made = trainer(digits, method=method, extra_data=path)
    assert len(made.batches) == 20  # a hundred real images, five a step
    step(made)
    assert averages(made.progress.sums)["n"] == 20
    assert [each["name"] for each in made.files.parents] == ["digits", "extra"]
    assert "extra_data" not in made.settings.described()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"side": 9}, r"images of \(1, 9, 9\), digits has \(1, 8, 8\)"),
        ({"channels": 3}, r"images of \(3, 8, 8\)"),
        ({"classes": 11}, "label 10, digits has 10 classes"),
    ],
)
def test_extra_data_must_fit(digits, tmp_path, change, what):
    with pytest.raises(MismatchError, match=what):
        trainer(digits, extra_data=npz(tmp_path / "extra.npz", **change))


def test_extra_data_is_bound_by_its_digest(digits, tmp_path):
    path = npz(tmp_path / "extra.npz")
    digest = _extra.digest(tmp_path / "extra.npz")
    trainer(digits, extra_data=path, extra_digest=digest)
    npz(tmp_path / "extra.npz", count=61)
    with pytest.raises(MismatchError, match="its digest is sha256:"):
        trainer(digits, extra_data=path, extra_digest=digest)


def test_parts_in_files_train_as_one_file_in_memory_does(digits, tmp_path):
    """Where the images lie, and in how many files, changes no batch."""
    whole = npz(tmp_path / "whole.npz")
    with np.load(whole) as content:
        image, label = content["image"], content["label"]
    np.savez_compressed(tmp_path / "a.npz", image=image[:20], label=label[:20])
    np.savez(tmp_path / "b.npz", image=image[20:21], label=label[20:21])
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "image.npy", image[21:])
    np.save(tmp_path / "c" / "label.npy", label[21:])
    one = trainer(digits, extra_data=whole)
    parts = trainer(digits, extra_data=f"{tmp_path}/[ab].npz,{tmp_path}/c")
    for epoch in range(2):
        for ours, theirs in zip(parts.batches.epoch(epoch), one.batches.epoch(epoch), strict=True):
            assert torch.equal(ours.x, theirs.x)
            assert torch.equal(ours.y, theirs.y)


def test_parts_are_bound_by_their_order(digits, tmp_path):
    a, b = npz(tmp_path / "a.npz"), npz(tmp_path / "b.npz", count=50)
    digest = _extra.digest(f"{a},{b}")
    trainer(digits, extra_data=f"{a},{b}", extra_digest=digest)
    with pytest.raises(MismatchError, match="its digest is sha256:"):
        trainer(digits, extra_data=f"{b},{a}", extra_digest=digest)


def test_missing_extra_data_is_an_input_error(digits, tmp_path):
    with pytest.raises(InputError, match=r"gone\.npz: no such file"):
        trainer(digits, extra_data=str(tmp_path / "gone.npz"))


def test_all_extra_leaves_nothing_to_pass_over(digits, tmp_path):
    with pytest.raises(UsageError, match="0 of a batch theirs"):
        trainer(digits, extra_data=npz(tmp_path / "extra.npz"), extra_fraction=0.99)


# --- batches that BN cannot normalise ---


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
def test_one_image_is_refused_where_bn_sees_one_value_a_channel(digits, attack_bn):
    flags = {"arch": "resnet18", "attack_bn": attack_bn}
    with pytest.raises(UsageError, match=r"--batch-size 1: batch normalisation cannot train resn"):
        trainer(digits, batch_size=1, **flags)
    step(trainer(digits, batch_size=2, **flags))


def test_one_image_is_trained_on_where_its_maps_are_wider(digits):
    step(trainer(digits, batch_size=1, arch="small-cnn"))


@pytest.mark.parametrize(
    ("size", "world", "keep", "fewest"),
    [(8, 1, False, 8), (8, 2, False, 4), (8, 4, True, 1), (8, 1, True, 4), (10, 1, True, 10)],
)
def test_the_smallest_batch_is_the_last_that_is_kept(digits, size, world, keep, fewest):
    batches = Batches(digits, torch.arange(20), size, 0, CPU, world=world, keep=keep)
    assert batches.fewest == fewest

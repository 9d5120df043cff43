"""Architectures: sizes, names, normalisation, and the way into and out of a checkpoint."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from advkit import models
from advkit.artifacts import checkpoint
from advkit.errors import InputError, MismatchError, UsageError
from advkit.models._blocks import conv1x1
from tests.described import described

RGB = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
GREY = ((0.3,), (0.4,))
TINY = {"small-cnn": {"width": 4}, "resnet8": {"width": 4}, "resnet18": {"width": 4},
        "preact-resnet18": {"width": 4}, "wrn-10-1": {},
        "preact-resnet18 deepmind": {"width": 4, "form": "deepmind"},
        "wrn-10-1 deepmind": {"form": "deepmind"}}  # fmt: skip
"""Name, with what tells it from others of that name → options that make it small."""


def tiny(which: str, **options) -> nn.Module:
    return build(which.split()[0], **TINY[which], **options)


def build(arch: str, classes: int = 10, seed: int = 0, **options) -> nn.Module:
    return models.build(arch, classes, channels=3, statistics=RGB, seed=seed, **options)


def weigh(arch: str, classes: int = 10) -> int:
    with torch.device("meta"):  # nothing is filled in
        return sum(parameter.numel() for parameter in build(arch, classes).parameters())


def pictures(size: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("resnet18", 11_173_962),  # as published of the CIFAR form
        ("preact-resnet18", 11_171_146 + 1024),  # as published, and the last normalisation
        ("wrn-34-10", 46_160_474),  # as published
        ("wrn-28-10", 36_479_194),  # as published
        ("wrn-40-2", 2_243_546),  # as published
    ],
)
def test_parameter_counts_are_the_published_ones(arch, count):
    assert weigh(arch) == count


@pytest.mark.parametrize(("arch", "thousands"), [("small-cnn", 58), ("resnet8", 78)])
def test_small_nets_are_as_small_as_they_say(arch, thousands):
    assert round(weigh(arch) / 1000) == pytest.approx(thousands, abs=1)


def test_more_classes_widen_the_last_layer_alone():
    assert weigh("resnet18", 100) - weigh("resnet18", 10) == 90 * (512 + 1)


KEYS = {
    "resnet18": ["conv1.weight", "layer1.0.conv1.weight", "layer2.0.shortcut.0.weight",
                 "layer4.1.bn2.running_var", "linear.weight"],
    "preact-resnet18": ["conv1.weight", "layer1.0.bn1.weight", "layer2.0.shortcut.0.weight",
                        "linear.bias"],
    "wrn-10-2": ["conv1.weight", "block1.layer.0.convShortcut.weight", "bn1.running_mean",
                 "block3.layer.0.conv2.weight", "fc.weight"],
}  # fmt: skip


@pytest.mark.parametrize("arch", KEYS)
def test_key_names_are_robustbenchs(arch):
    state = build(arch).state_dict()
    assert set(KEYS[arch]) <= state.keys()
    plain = re.compile(r"(module|model|net)\.")
    assert not [name for name in state if plain.match(name)]


@pytest.mark.parametrize("arch", TINY)
def test_mean_and_deviation_are_buffers(arch):
    net = tiny(arch)
    assert net.state_dict()["mean"].flatten().tolist() == pytest.approx(RGB[0])
    assert net.state_dict()["std"].flatten().tolist() == pytest.approx(RGB[1])
    assert not {"mean", "std"} & {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize("arch", TINY)
def test_normalisation_happens_inside(arch):
    """A net without normalisation says of normalised pixels what the net says of pixels."""
    net, plain, x = tiny(arch).eval(), tiny(arch).eval(), pictures()
    plain.mean.zero_()
    plain.std.fill_(1)
    mean, std = (np.asarray(each, np.float32).reshape(3, 1, 1) for each in RGB)
    by_hand = torch.from_numpy((x.numpy() - mean) / std)
    torch.testing.assert_close(net(x), plain(by_hand), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", TINY)
def test_mean_zero_and_deviation_one_are_no_normalisation(arch, monkeypatch):
    """Bit for bit, so that what was trained on plain pixels stays what it is."""
    net, x = tiny(arch).eval(), pictures().requires_grad_()
    net.mean.zero_()
    net.std.fill_(1)
    normalised = net(x)
    (gradient,) = torch.autograd.grad(normalised.sum(), x)
    monkeypatch.setattr(net, "normalise", lambda pixels: pixels)
    assert torch.equal(net(x), normalised)
    assert torch.equal(torch.autograd.grad(net(x).sum(), x)[0], gradient)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("arch", TINY)
def test_every_parameter_gets_a_gradient(arch, size):
    net = tiny(arch).train()
    logits = net(pictures(size))
    assert logits.shape == (2, 10)
    assert bool(logits.isfinite().all())
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert not [name for name, each in net.named_parameters() if not each.grad.abs().max() > 0]


@pytest.mark.parametrize("inputs", [3, 4, 7, 8, 16])
def test_gradients_of_strided_shortcuts_are_those_in_double_precision(inputs):
    """oneDNN's strided 1×1 kernel crashes here, where inputs are few and channels come last."""
    layer = conv1x1(inputs, 2 * inputs, 2).to(memory_format=torch.channels_last)
    x = torch.rand(16, inputs, 32, 31, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    plain = layer.weight.detach().double().requires_grad_()
    out = F.conv2d(x.double(), plain, stride=2)
    (expected,) = torch.autograd.grad(out.square().sum(), plain)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_resnet18_computes_what_torchvisions_does():
    """With CIFAR's stem and torchvision's names, on its own weights."""
    from torchvision.models import resnet18

    mine = build("resnet18", seed=3).eval()
    theirs = resnet18(num_classes=10).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    renamed = {
        name.replace("shortcut", "downsample").replace("linear", "fc"): value
        for name, value in mine.state_dict().items()
        if name not in ("mean", "std")
    }
    theirs.load_state_dict(renamed)
    x = pictures()
    normalised = (x - torch.tensor(RGB[0]).view(3, 1, 1)) / torch.tensor(RGB[1]).view(3, 1, 1)
    torch.testing.assert_close(mine(x), theirs(normalised), rtol=1e-3, atol=1e-5)


def norm(state: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{each}"] for each in names))


def wide_by_hand(state: dict, x: torch.Tensor) -> torch.Tensor:
    """WRN-10-1, written out from the paper: the block of group 1 has an identity shortcut."""
    out = F.conv2d((x - state["mean"]) / state["std"], state["conv1.weight"], padding=1)
    for group, stride in ((1, 1), (2, 2), (3, 2)):
        block = f"block{group}.layer.0"
        pre = F.relu(norm(state, f"{block}.bn1", out))
        inner = F.conv2d(pre, state[f"{block}.conv1.weight"], stride=stride, padding=1)
        inner = F.relu(norm(state, f"{block}.bn2", inner))
        inner = F.conv2d(inner, state[f"{block}.conv2.weight"], padding=1)
        if group > 1:
            out = F.conv2d(pre, state[f"{block}.convShortcut.weight"], stride=stride)
        out = out + inner
    out = F.relu(norm(state, "bn1", out)).mean((2, 3))
    return out @ state["fc.weight"].T + state["fc.bias"]


def preact_by_hand(state: dict, x: torch.Tensor) -> torch.Tensor:
    """PreActResNet-18, written out: shortcuts start behind the first activation."""
    out = F.conv2d((x - state["mean"]) / state["std"], state["conv1.weight"], padding=1)
    for layer in (1, 2, 3, 4):
        for place in (0, 1):
            block, stride = f"layer{layer}.{place}", 2 if layer > 1 and place == 0 else 1
            pre = F.relu(norm(state, f"{block}.bn1", out))
            inner = F.conv2d(pre, state[f"{block}.conv1.weight"], stride=stride, padding=1)
            inner = F.relu(norm(state, f"{block}.bn2", inner))
            inner = F.conv2d(inner, state[f"{block}.conv2.weight"], padding=1)
            if f"{block}.shortcut.0.weight" in state:
                out = F.conv2d(pre, state[f"{block}.shortcut.0.weight"], stride=stride)
            out = out + inner
    out = F.relu(norm(state, "bn", out)).mean((2, 3))
    return out @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize(
    ("arch", "options", "formula"),
    [("wrn-10-1", {}, wide_by_hand), ("preact-resnet18", {"width": 4}, preact_by_hand)],
)
def test_preactivation_nets_compute_the_papers_blocks(arch, options, formula):
    net = build(arch, **options).eval()
    draw = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if "running" in name or ("bn" in name and value.is_floating_point()):
            value.uniform_(0.5, 1.5, generator=draw)
    torch.testing.assert_close(net(pictures()), formula(net.state_dict(), pictures()))


@pytest.mark.parametrize("arch", TINY)
def test_the_activation_can_be_silu_throughout(arch, monkeypatch):
    net, silu = (tiny(arch, activation=name).eval() for name in ("relu", "silu"))
    assert net.state_dict().keys() == silu.state_dict().keys()
    assert not torch.allclose(net(pictures()), silu(pictures()))
    monkeypatch.setattr(F, "relu", lambda *_: pytest.fail("relu was called"))
    silu(pictures())


def test_an_unknown_activation_is_refused():
    with pytest.raises(UsageError, match=r"unknown activation 'gelu'.*relu, silu"):
        build("small-cnn", activation="gelu")


@pytest.mark.parametrize(
    ("arch", "words"),
    [("wrn-35-10", "the depth must be 6n"), ("wrn-4-1", "--depth 4"), ("wrn-0", "--depth 0")],
)
def test_an_impossible_depth_is_refused(arch, words):
    with pytest.raises(UsageError, match=words):
        build(arch)


@pytest.mark.parametrize("arch", ["wrn-10-0", "small-cnn-0", "resnet8-0"])
def test_a_net_without_width_is_refused(arch):
    with pytest.raises(UsageError, match=arch.rsplit("-", 1)[0]):
        build(arch)


def test_an_option_of_another_architecture_is_refused():
    with pytest.raises(UsageError, match="depth"):
        build("small-cnn", depth=3)


def test_unknown_architectures_are_refused():
    with pytest.raises(UsageError, match=r"unknown architecture 'resnet19'.*'resnet18'"):
        build("resnet19")


def test_weights_are_a_function_of_the_seed_and_spare_the_global_generator():
    before = torch.get_rng_state()
    first, again, other = (build("small-cnn", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_grey_nets_take_one_channel():
    net = models.build("small-cnn", 4, channels=1, statistics=GREY, seed=0).eval()
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 4)


def describe(arch: str, **options) -> dict:
    model = {"arch": arch, "options": options, "input_shape": [3, 8, 8], "mean": RGB[0],
             "std": RGB[1]}  # fmt: skip
    return described("checkpoint", model=model)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of a small net and the net itself."""
    net = build("small-cnn", 3, seed=5, width=4)
    net.mean += 0.125
    checkpoint.write(tmp_path / "x", net.state_dict(), describe("small-cnn", width=4))
    return tmp_path / "x", net


def test_a_net_comes_back_from_its_checkpoint(saved):
    path, net = saved
    found, info = models.load(path)
    assert not any(module.training for module in found.modules())
    assert torch.equal(found(pictures(8)), net.eval()(pictures(8)))
    assert found.mean.flatten().tolist() == net.mean.flatten().tolist()
    assert info["model"]["arch"] == "small-cnn"


@pytest.mark.parametrize("which", TINY)
def test_every_architecture_comes_back_with_its_options(which, tmp_path):
    arch = which.split()[0]
    net = models.build(
        arch, 3, channels=3, statistics=RGB, seed=5, activation="silu", **TINY[which]
    )
    with torch.no_grad():
        net.train()(pictures())  # moves the statistics of batch normalisation
    description = describe(arch, activation="silu", **TINY[which])
    checkpoint.write(tmp_path / "x", net.state_dict(), description)
    found, _ = models.load(tmp_path / "x")
    assert torch.equal(found(pictures()), net.eval()(pictures()))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda state: state.pop("conv2.weight"), r"1 tensors? do.* not fit: conv2.weight is miss"),
        (lambda state: state.update(more=torch.zeros(1)), "more is not in the architecture"),
        (
            lambda state: state.update({"linear.bias": torch.zeros(4)}),
            r"linear\.bias is torch\.float32 \(4,\), not torch\.float32 \(3,\)",
        ),
        (
            lambda state: state.update({"linear.bias": torch.zeros(3).double()}),
            r"linear\.bias is torch\.float64 \(3,\), not torch\.float32 \(3,\)",
        ),
    ],
    ids=["missing", "extra", "misshaped", "mistyped"],
)
def test_tensors_of_another_net_do_not_fit(saved, change, what):
    path, net = saved
    state = net.state_dict()
    change(state)
    checkpoint.write(path, state, describe("small-cnn", width=4))
    with pytest.raises(MismatchError, match=what):
        models.load(path)


@pytest.mark.parametrize("arch", ["resnet8", "wrn-10-1"])
def test_tensors_of_another_architecture_do_not_fit(saved, arch):
    path, net = saved
    checkpoint.write(path, net.state_dict(), describe(arch))
    with pytest.raises(MismatchError, match=rf"{path}: \d+ tensors do not fit: .*;.*;"):
        models.load(path)


def test_a_checkpoint_without_a_model_is_an_input_error(saved):
    path, net = saved
    checkpoint.write(path, net.state_dict(), {"schema": 1, "kind": "checkpoint"})
    with pytest.raises(InputError, match=re.escape(str(path))):
        models.load(path)

"""DeepMind's form of WRN and PreActResNet-18, against its blocks written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from advkit import models
from advkit.artifacts import checkpoint
from advkit.errors import MismatchError, UsageError
from advkit.models import _deepmind
from tests.described import described

RGB = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
ACTIVATIONS = {"relu": lambda x: x.clamp(min=0), "silu": lambda x: x / (1 + (-x).exp())}


def build(arch: str, form: str = "deepmind", **options) -> nn.Module:
    return models.build(arch, 10, channels=3, statistics=RGB, seed=0, form=form, **options)


def shapes(arch: str, form: str = "deepmind") -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(each.shape) for name, each in build(arch, form).state_dict().items()}


def weigh(arch: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(arch).parameters())


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("wrn-34-10", 46_160_474),  # the forms differ in padding, not in shapes
        ("wrn-28-10", 36_479_194),
        # the original form with three 3×3 instead of 1×1 shortcuts
        ("preact-resnet18", 11_172_170 + 8 * (64 * 128 + 128 * 256 + 256 * 512)),
    ],
)
def test_parameter_counts(arch, count):
    assert weigh(arch) == count


def batchnorm(name: str) -> set[str]:
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{name}.{kind}" for kind in kinds}


def test_key_names_of_the_wide_net_are_robustbenchs():
    expected = {"mean", "std", "init_conv.weight", "logits.weight", "logits.bias"}
    expected |= batchnorm("batchnorm")
    for group in range(3):
        for place in range(2):
            block = f"layer.{group}.block.{place}"
            expected |= {f"{block}.conv_0.weight", f"{block}.conv_1.weight"}
            expected |= batchnorm(f"{block}.batchnorm_0") | batchnorm(f"{block}.batchnorm_1")
        expected.add(f"layer.{group}.block.0.shortcut.weight")
    found = shapes("wrn-16-2")
    assert found.keys() == expected
    assert found["layer.1.block.0.shortcut.weight"] == (64, 32, 1, 1)


def test_key_names_of_the_preactivation_net_are_robustbenchs():
    expected = {"mean", "std", "conv_2d.weight", "logits.weight", "logits.bias"}
    expected |= batchnorm("batchnorm")
    for layer in range(4):
        for place in range(2):
            block = f"layer_{layer}.{place}"
            expected |= {f"{block}.conv_2d_1.weight", f"{block}.conv_2d_2.weight"}
            expected |= batchnorm(f"{block}.batchnorm_0") | batchnorm(f"{block}.batchnorm_1")
    expected |= {f"layer_{layer}.0.shortcut.weight" for layer in (1, 2, 3)}
    found = shapes("preact-resnet18")
    assert found.keys() == expected
    assert found["layer_3.0.shortcut.weight"] == (512, 256, 3, 3)


def norm(state: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{each}"].view(-1, 1, 1)
        for each in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def conv(x: torch.Tensor, weight: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """3×3; padding 0 before and 1 behind puts a strided kernel's centre on every odd pixel."""
    full = F.conv2d(x, weight, padding=1)
    return full if stride == 1 else full[..., 1::2, 1::2]


def wide_by_hand(state: dict, x: torch.Tensor, act) -> torch.Tensor:
    """WRN-16-1: the shortcut is 1×1, on the activated input, where the width changes."""
    out = conv((x - state["mean"]) / state["std"], state["init_conv.weight"])
    for group in range(3):
        for place in range(2):
            block, stride = f"layer.{group}.block.{place}", 2 if group and not place else 1
            pre = act(norm(state, f"{block}.batchnorm_0", out))
            inner = conv(pre, state[f"{block}.conv_0.weight"], stride)
            inner = conv(
                act(norm(state, f"{block}.batchnorm_1", inner)), state[f"{block}.conv_1.weight"]
            )
            if stride == 2:
                weight = state[f"{block}.shortcut.weight"][:, :, 0, 0]
                out = torch.einsum("oi,bihw->bohw", weight, pre[..., ::2, ::2])
            out = out + inner
    out = act(norm(state, "batchnorm", out)).mean((2, 3))
    return out @ state["logits.weight"].T + state["logits.bias"]


def preact_by_hand(state: dict, x: torch.Tensor, act) -> torch.Tensor:
    """PreActResNet-18: the shortcut is 3×3, on the raw input of the block."""
    out = conv((x - state["mean"]) / state["std"], state["conv_2d.weight"])
    for layer in range(4):
        for place in range(2):
            block, stride = f"layer_{layer}.{place}", 2 if layer and not place else 1
            inner = conv(
                act(norm(state, f"{block}.batchnorm_0", out)),
                state[f"{block}.conv_2d_1.weight"], stride,
            )  # fmt: skip
            inner = conv(
                act(norm(state, f"{block}.batchnorm_1", inner)), state[f"{block}.conv_2d_2.weight"]
            )
            kept = conv(out, state[f"{block}.shortcut.weight"], 2) if stride == 2 else out
            out = kept + inner
    out = act(norm(state, "batchnorm", out)).mean((2, 3))
    return out @ state["logits.weight"].T + state["logits.bias"]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("arch", "options", "formula"),
    [("wrn-16-1", {}, wide_by_hand), ("preact-resnet18", {"width": 4}, preact_by_hand)],
)
def test_the_nets_compute_deepminds_blocks(arch, options, formula, activation, size):
    net = build(arch, activation=activation, **options).eval().double()
    draw = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if "batchnorm" in name and value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=draw)
    x = torch.rand(2, 3, size, size, generator=draw, dtype=torch.float64)
    by_hand = formula(net.state_dict(), x, ACTIVATIONS[activation])
    torch.testing.assert_close(net(x), by_hand, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_padding_is_tensorflows_same(size, stride):
    """Of what is missing for ⌈size/stride⌉ outputs, the smaller half goes before."""
    layer = _deepmind.SameConv(2, 3, stride)
    wanted = math.ceil(size / stride)
    missing = (wanted - 1) * stride + 3 - size
    pads = (missing // 2, missing - missing // 2)
    x = torch.rand(2, 2, size, 8)
    found = layer(x)
    assert found.shape == (2, 3, wanted, 8 // stride)
    wide = (1, 1) if stride == 1 else (0, 1)
    by_hand = F.conv2d(F.pad(x, (*wide, *pads)), layer.weight, stride=stride)
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("arch", ["wrn-10-1", "preact-resnet18"])
def test_odd_sizes_pass(arch):
    options = {"width": 4} if arch == "preact-resnet18" else {}
    assert build(arch, **options).eval()(torch.rand(1, 3, 27, 29)).isfinite().all()


def test_weights_start_from_pytorchs_defaults():
    """U(−b, b) with b = 1/√fan-in, and not N(0, 2/fan-out) as in the original form."""
    weight = build("wrn-10-4").state_dict()["layer.2.block.0.conv_1.weight"]
    bound = 1 / math.sqrt(9 * 256)
    assert 0.999 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
    weight = build("wrn-10-4", "original").state_dict()["block3.layer.0.conv2.weight"]
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)


@pytest.mark.parametrize("arch", ["wrn-10-1", "preact-resnet18"])
def test_the_form_is_original_unless_said_otherwise(arch):
    plain = models.build(arch, 10, channels=3, statistics=RGB, seed=0).state_dict()
    assert plain.keys() == build(arch, "original").state_dict().keys()
    assert not {"init_conv.weight", "conv_2d.weight"} & plain.keys()


@pytest.mark.parametrize("arch", ["wrn-10-1", "preact-resnet18"])
def test_an_unknown_form_is_refused(arch):
    with pytest.raises(UsageError, match=r"unknown --form 'deepmnd': did you mean 'deepmind'"):
        build(arch, "deepmnd")


def test_a_form_of_nets_without_forms_is_refused():
    with pytest.raises(UsageError, match="--form has no meaning for resnet18"):
        build("resnet18")


def test_a_checkpoint_of_one_form_does_not_fit_the_other(tmp_path):
    net = build("wrn-10-1")
    model = {"arch": "wrn-10-1", "options": {"form": "original"}, "input_shape": [3, 8, 8],
             "mean": RGB[0], "std": RGB[1]}  # fmt: skip
    description = described("checkpoint", 10, model=model)
    checkpoint.write(tmp_path / "x", net.state_dict(), description)
    with pytest.raises(MismatchError, match="do not fit"):
        models.load(tmp_path / "x")

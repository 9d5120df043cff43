"""Nets of torchvision and timm as architectures: their own names and answers, normalised inside."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch

from advkit import models, registry
from advkit.errors import UsageError
from advkit.models import _zoos

MEAN, STD = [0.5, 0.25, 0.125], [0.75, 0.5, 1.5]
TIMM = importlib.util.find_spec("timm") is None
NAMES = [
    "torchvision:squeezenet1_1",
    pytest.param("timm:resnet10t", marks=pytest.mark.skipif(TIMM, reason="no extra [timm] here")),
]


def built(arch: str, seed: int = 0) -> torch.nn.Module:
    return models.build(
        arch, 4, channels=3, statistics=(MEAN, STD), seed=seed, size=32
    ).eval()  # fmt: skip


@pytest.mark.parametrize("arch", NAMES)
def test_it_is_the_packages_net_behind_a_normalisation(arch):
    net = built(arch)
    package, _, name = arch.partition(":")
    if package == "torchvision":
        import torchvision

        original = torchvision.models.get_model(name, weights=None, num_classes=4)
    else:
        import timm

        original = timm.create_model(name, pretrained=False, num_classes=4)
    state = net.state_dict()
    means, stds = state.pop("mean"), state.pop("std")
    assert (means.flatten().tolist(), stds.flatten().tolist()) == (MEAN, STD)
    assert list(state) == list(original.state_dict())
    original.load_state_dict(state)
    x = torch.rand(2, 3, 32, 32)
    normalised = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(net(x), original.eval()(normalised), atol=1e-5)
        assert torch.equal(copy.deepcopy(net)(x), net(x))


def test_the_seed_decides_the_weights_and_the_global_generator_stays():
    before = torch.get_rng_state()
    arch = "torchvision:squeezenet1_1"
    one, again, other = (built(arch, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    name = "features.0.weight"
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])


@pytest.mark.parametrize(
    ("arch", "options", "words"),
    [
        ("torchvision:resnet1", {}, "unknown torchvision net 'resnet1'"),
        ("torchvision:", {}, "unknown torchvision net"),
        ("torchvision:squeezenet1_1", {"width": 3}, "--width has no meaning"),
        ("vision:resnet18", {}, "unknown architecture"),
    ],
)
def test_what_does_not_exist_is_told(arch, options, words):
    with pytest.raises(UsageError, match=words):
        models.build(arch, 4, channels=3, statistics=(MEAN, STD), seed=0, **options)


def test_channels_that_it_cannot_take():
    with pytest.raises(UsageError, match="3 channels, not 1"):
        models.build("torchvision:squeezenet1_1", 4, channels=1, statistics=([0], [1]), seed=0)


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(_zoos.importlib, "import_module", missing)
    with pytest.raises(UsageError, match="package timm: python -m pip install timm"):
        models.build("timm:resnet18", 4, channels=3, statistics=(MEAN, STD), seed=0)


def test_a_timm_name_carries_arguments():
    assert _zoos.split("timm:vit_tiny_patch16_224,patch_size=4,depth=2") == (
        "timm",
        "vit_tiny_patch16_224",
        {"patch_size": 4, "depth": 2},
    )
    assert _zoos.split("torchvision:resnet18") == ("torchvision", "resnet18", {})
    assert _zoos.arguments({"patch_size": 4, "pretrained": 1, "depth": True}) == {"patch_size": 4}


# A checkpoint's description names its net, and must not make timm download or unpickle anything.
@pytest.mark.parametrize(
    "rest",
    ["pretrained=1", "checkpoint_path=1", "patch_size=4,patch_size=4", "patch_size", "depth=-1",
     "depth=99999", "depth=٣", ""],
)  # fmt: skip
def test_other_arguments_are_refused(rest):
    with pytest.raises(UsageError, match="none of the arguments patch_size"):
        _zoos.split(f"timm:vit_tiny_patch16_224,{rest}")
    with pytest.raises(UsageError, match="nets of torchvision take no arguments"):
        _zoos.split(f"torchvision:vit_b_16,{rest}")


def test_a_timm_net_is_built_with_its_arguments():
    timm = pytest.importorskip("timm")
    name = "vit_tiny_patch16_224"
    net = built(f"timm:{name},patch_size=8,depth=1")
    original = timm.create_model(name, img_size=32, patch_size=8, depth=1, num_classes=4)
    shapes = {key: value.shape for key, value in original.state_dict().items()}
    ours = {key: value.shape for key, value in net.state_dict().items()}
    assert ours == {**shapes, "mean": (3, 1, 1), "std": (3, 1, 1)}
    assert models.given(net) == {"img_size": 32, "patch_size": 8, "depth": 1}


def test_the_registry_knows_them_without_importing_them():
    assert registry.split_numbers("timm:resnet18") == ("timm:resnet18", {})
    assert registry.part("models", "timm:resnet18").options == ()

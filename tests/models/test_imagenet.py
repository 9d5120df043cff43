"""torchvision's ResNet-50 and WRN-50-2 with the normalisation inside."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from advkit import models
from advkit.artifacts import checkpoint
from advkit.errors import UsageError
from tests.described import described

RGB = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSES = 3
THEIRS = {"resnet50": "resnet50", "wrn-50-2": "wide_resnet50_2"}


def build(arch: str, classes: int = CLASSES, statistics=RGB, **options) -> nn.Module:
    return models.build(arch, classes, channels=3, statistics=statistics, seed=0, **options)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A ResNet-50 with three classes; tests must leave it as it is, but for its statistics."""
    return build("resnet50")


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def torchvisions(net: nn.Module) -> nn.Module:
    """torchvision's own ResNet-50 with the weights of a net."""
    from torchvision.models import resnet50

    with torch.device("meta"):
        theirs = resnet50(num_classes=CLASSES)
    tensors = {name: value for name, value in net.state_dict().items()
               if name not in ("mean", "std")}  # fmt: skip
    theirs.load_state_dict(tensors, assign=True)
    return theirs.eval()


@pytest.mark.parametrize(
    ("arch", "count"),
    [("resnet50", 25_557_032), ("wrn-50-2", 68_883_240)],  # as torchvision publishes them
)
def test_parameter_counts_are_the_published_ones(arch, count):
    with torch.device("meta"):
        assert sum(each.numel() for each in build(arch, 1000).parameters()) == count


@pytest.mark.parametrize("arch", THEIRS)
def test_key_names_and_shapes_are_torchvisions(arch):
    import torchvision

    with torch.device("meta"):
        theirs = getattr(torchvision.models, THEIRS[arch])(num_classes=CLASSES)
        mine = build(arch)
    expected = {name: value.shape for name, value in theirs.state_dict().items()}
    expected |= {"mean": (3, 1, 1), "std": (3, 1, 1)}
    assert {name: value.shape for name, value in mine.state_dict().items()} == expected
    assert not {"mean", "std"} & {name for name, _ in mine.named_parameters()}


def test_the_net_computes_torchvisions_of_normalised_pixels(net):
    x = pictures()
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in RGB)
    found = net.eval()(x)
    torch.testing.assert_close(found, torchvisions(net)((x - mean) / std))
    assert bool((found - torchvisions(net)(x)).abs().max() > 1e-3)


def test_mean_zero_and_deviation_one_give_torchvisions_bits():
    net = build("resnet50", statistics=((0.0,) * 3, (1.0,) * 3)).eval()
    assert torch.equal(net(pictures()), torchvisions(net)(pictures()))


def test_every_parameter_gets_a_gradient(net):
    logits = net.train()(pictures())
    assert logits.shape == (2, CLASSES)
    assert bool(logits.isfinite().all())
    parameters = dict(net.named_parameters())
    gradients = torch.autograd.grad(
        F.cross_entropy(logits, torch.tensor([0, 1])), list(parameters.values())
    )
    silent = [
        name
        for name, gradient in zip(parameters, gradients, strict=True)
        if not gradient.abs().max() > 0
    ]
    assert silent == []


def test_a_net_comes_back_from_its_checkpoint(net, tmp_path):
    model = {"arch": "resnet50", "options": {}, "input_shape": [3, 64, 64], "mean": RGB[0],
             "std": RGB[1]}  # fmt: skip
    description = described("checkpoint", model=model)
    checkpoint.write(tmp_path / "x", net.state_dict(), description)
    found, _ = models.load(tmp_path / "x")
    assert torch.equal(found(pictures()), net.eval()(pictures()))


@pytest.mark.parametrize("arch", THEIRS)
def test_other_channels_and_activations_are_refused(arch):
    with pytest.raises(UsageError, match=f"{arch} takes images of 3 channels, not 1"):
        models.build(arch, 10, channels=1, statistics=((0.5,), (0.5,)), seed=0)
    with pytest.raises(UsageError, match=f"--activation has no meaning for {arch}"):
        build(arch, activation="silu")

"""The evaluation-time copy of a net: the same answers to rounding, and nothing else touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advkit.evaluation import folded
from advkit.models._blocks import SubsampledConv
from advkit.models._resnet import BasicBlock


def shaken(net: nn.Module) -> nn.Module:
    """Give every normalisation statistics and an affine map of its own."""
    rng = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                if tensor is not None:
                    tensor.data.copy_(0.3 * torch.randn(tensor.shape, generator=rng))
            for tensor in (module.running_var, module.weight):
                if tensor is not None:
                    tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=rng))
    return net


def gradient(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(net(x).square().sum(), x)
    return found


def left(net: nn.Module, x: torch.Tensor) -> int:
    """Return how many batch normalisations are still computed."""
    seen: list[int] = []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: seen.append(1))
    net(x)
    return len(seen)


def pair(**options: int) -> nn.Sequential:
    conv = nn.Conv2d(2, 6, 3, padding=1, **options)
    return shaken(nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())).eval()


X = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"groups": 2}, {"stride": 2}])
def test_by_hand(options):
    """γ (conv(x) + b − μ)/√(σ² + ε) + β, computed from the parts."""
    net = pair(**options)
    conv, norm = net[0], net[1]
    z = conv(X)
    shape = (1, -1, 1, 1)
    spread = (norm.running_var + norm.eps).sqrt().view(shape)
    centred = (z - norm.running_mean.view(shape)) / spread
    expected = (norm.weight.view(shape) * centred + norm.bias.view(shape)).relu().flatten(1)
    copy = folded.folded(net)
    assert torch.allclose(copy(X), expected, atol=1e-6)
    assert left(copy, X) == 0


def test_without_an_affine_map():
    net = shaken(nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, affine=False))).eval()
    assert torch.allclose(folded.folded(net)(X), net(X), atol=1e-6)


def test_a_strided_1x1_convolution_of_ours():
    net = shaken(nn.Sequential(SubsampledConv(2, 6, 1, 2, bias=False), nn.BatchNorm2d(6))).eval()
    copy = folded.folded(net)
    assert torch.allclose(copy(X), net(X), atol=1e-6)
    assert left(copy, X) == 0


class Twice(nn.Module):
    """Its convolution is read by the normalisation and by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)
        self.other, self.last = nn.Conv2d(6, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        kept = out + self.norm(out)
        rectified = torch.nn.functional.relu(kept)
        return self.last(self.other(rectified)).flatten(1) + kept.sum()


def test_what_others_read_stays():
    net = shaken(Twice()).eval()
    copy = folded.folded(net)
    assert torch.allclose(copy(X), net(X), rtol=1e-5, atol=1e-5)
    assert torch.allclose(gradient(copy, X), gradient(net, X), rtol=1e-4, atol=1e-4)
    assert left(copy, X) == 1


def test_a_sum_stays_on_the_convolution_that_it_alone_reads():
    net = shaken(BasicBlock(2, 2, 1, "relu")).eval()
    copy = folded.folded(net)
    assert [node.target for node in copy.graph.nodes if node.op == "call_method"] == ["add_"]
    kept = X.clone()
    assert torch.allclose(copy(X), net(X), atol=1e-6)
    assert torch.allclose(gradient(copy, X), gradient(net, X), rtol=1e-4, atol=1e-5)
    assert torch.equal(X, kept)


class Shared(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.second = nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.conv(self.first(self.conv(x)))).flatten(1)


def test_a_shared_convolution_is_no_pair():
    net = shaken(Shared()).eval()
    copy = folded.folded(net)
    assert copy is None or torch.allclose(copy(X), net(X), atol=1e-6)


class Branching(nn.Module):
    """Depends on what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = pair()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) if x.sum() > 0 else self.net(-x)


def test_nothing_to_fold_or_to_trace():
    assert folded.folded(nn.Sequential(nn.Flatten(), nn.Linear(50, 2))) is None
    assert folded.folded(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 6, 3))) is None
    assert folded.folded(Branching()) is None


def test_the_net_is_left_alone():
    net = pair().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    copy = folded.folded(net)
    copy(X)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(each.requires_grad for each in net.parameters())
    assert not any(each.requires_grad for each in copy.parameters())
    assert not any(module.training for module in copy.modules())
    kept = X.clone()
    copy(kept)
    assert torch.equal(kept, X)


def test_disagreement_is_seen():
    net = pair()
    copy = folded.folded(net)
    assert folded.agree(net, copy, X, 1e-5)
    copy.get_submodule("0").bias.data += 0.1
    assert not folded.agree(net, copy, X, 1e-3)
    copy.get_submodule("0").bias.data += torch.nan
    assert not folded.agree(net, copy, X, 1e-3)

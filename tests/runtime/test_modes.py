"""Mode contexts: what holds inside, and that everything is put back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from advkit.errors import UsageError
from advkit.runtime import modes


@pytest.fixture
def net() -> nn.Module:
    """A net whose modules are in mixed modes, with one frozen parameter."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    net.train()
    net[2].eval()
    net[0].weight.requires_grad_(False)
    return net


def marks(net: nn.Module) -> list:
    """Everything that a context may switch."""
    tracked = [getattr(module, "track_running_stats", None) for module in net.modules()]
    training = [module.training for module in net.modules()]
    return [tracked, training, [p.requires_grad for p in net.parameters()]]


def buffers(net: nn.Module) -> dict:
    return copy.deepcopy(dict(net.named_buffers()))


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


CONTEXTS = {
    "frozen": modes.frozen,
    "evaluating": modes.evaluating,
    **{f"attack-bn {how}": lambda net, how=how: modes.attack_bn(net, how)
       for how in modes.ATTACK_BN},
}  # fmt: skip


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("fails", [False, True])
def test_every_context_puts_back_what_it_found(net, name, fails):
    before = marks(net)
    try:
        with CONTEXTS[name](net):
            assert marks(net) != before
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert marks(net) == before


def test_contexts_nest(net):
    before = marks(net)
    with modes.attack_bn(net, "frozen"), modes.frozen(net), modes.attack_bn(net, "eval"):
        assert not any(module.training for module in net.modules())
    assert marks(net) == before


def test_frozen_lets_the_input_have_its_gradient(net):
    x = torch.ones(2, 3, requires_grad=True)
    with modes.frozen(net):
        net(x).sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(("how", "moves"), [("eval", False), ("train", True), ("frozen", False)])
def test_running_statistics_move_only_under_train(net, how, moves):
    before = buffers(net)
    with modes.attack_bn(net, how):
        net(torch.randn(8, 3))
    assert same(before, buffers(net)) is not moves


@pytest.mark.parametrize(("how", "batch"), [("eval", False), ("train", True), ("frozen", True)])
def test_attack_bn_normalises_with_the_promised_statistics(how, batch):
    norm = nn.BatchNorm1d(4)
    norm.running_mean += 3
    x = torch.randn(8, 4)
    expected = F.batch_norm(
        x, norm.running_mean.clone(), norm.running_var.clone(), training=batch, eps=norm.eps
    )
    with modes.attack_bn(norm, how):
        torch.testing.assert_close(norm(x), expected)


def test_attack_bn_by_hand():
    norm = nn.BatchNorm1d(1, eps=1e-12)
    x = torch.tensor([[1.0], [3.0]])
    with modes.attack_bn(norm, "eval"):
        assert norm(x).flatten().tolist() == pytest.approx([1, 3])
    with modes.attack_bn(norm, "frozen"):
        assert norm(x).flatten().tolist() == pytest.approx([-1, 1])
    assert norm.running_mean.item() == 0


def test_an_unknown_mode_is_refused_before_anything_changes(net):
    before = marks(net)
    with pytest.raises(UsageError, match=r"unknown attack-bn mode 'evl'.*'eval'"):
        modes.attack_bn(net, "evl").__enter__()
    assert marks(net) == before


# --- a pass counted again ---


class Twice(nn.Module):
    """Passes one norm twice, as a net that shares a layer does."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.norm(x).square())


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [nn.Sequential, Twice])
@pytest.mark.parametrize("between", [False, True])
def test_counted_again_is_passed_again(make, dtype, momentum, between):
    """Also where the gradient is taken afterwards, and where another pass came between."""
    draw = torch.Generator().manual_seed(0)
    x, other = (3 * torch.randn(9, 4, 2, 2, generator=draw, dtype=dtype) + 2 for _ in "ab")
    net = make(nn.BatchNorm2d(4, momentum=momentum, dtype=dtype)).train()
    net(other)
    passed = copy.deepcopy(net)
    with modes.counting(net) as again:
        logits = net(x)
    twice = [passed(x)]
    if between:
        logits, twice = logits + net(other), [*twice, passed(other)]
    again()
    logits.square().sum().backward()
    torch.testing.assert_close(logits, sum(twice), rtol=0, atol=0)
    passed(x)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    for ours, theirs in zip(net.buffers(), passed.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("how", ["eval", "frozen"])
def test_what_stands_still_is_not_counted(how):
    net = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)).train()
    net(torch.randn(5, 4, 2, 2))
    before = [buffer.clone() for buffer in net.buffers()]
    with modes.attack_bn(net, how):
        with modes.counting(net) as again:
            net(torch.randn(5, 4, 2, 2))
        again()
    assert all(torch.equal(*pair) for pair in zip(net.buffers(), before, strict=True))


@pytest.mark.parametrize(
    ("count", "side", "enough"), [(1, 2, False), (1, 4, True), (2, 2, True), (2, 4, True)]
)
def test_bn_needs_two_values_a_channel_and_asking_moves_nothing(count, side, enough):
    net = nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    assert modes.normalises(net, torch.rand(count, 3, side, side).fill_(0.5)) is enough
    torch.manual_seed(0)
    modes.normalises(net, torch.full((count, 3, side, side), 0.5))
    assert torch.equal(torch.rand(1), wanted)
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert not net[1]._forward_pre_hooks

"""Folded batch normalisation gives the values of the module that it replaces."""

import copy

import pytest
import torch
from torch import nn

from advkit import models
from advkit.attacks.pgd import pgd
from advkit.formulas import folding
from advkit.formulas.threat import Threat

NETS = {
    "small-cnn": {"width": 4}, "resnet8": {"width": 4}, "resnet18": {"width": 4},
    "preact_resnet18": {"width": 4}, "wrn-10-1": {},
    "preact-deepmind": {"width": 4, "form": "deepmind"}, "wrn-deepmind": {"form": "deepmind"},
}  # fmt: skip
ARCH = {"preact_resnet18": "preact-resnet18", "preact-deepmind": "preact-resnet18",
        "wrn-deepmind": "wrn-10-1"}  # fmt: skip


def net(name, channels=3, **options):
    """A net whose normalisation has moved, so that folding it changes weights and biases."""
    made = models.build(
        ARCH.get(name, name), 5, channels=channels, statistics=((0.5,) * channels,) * 2, seed=1,
        **{**NETS[name], **options},
    ).double()  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for each in (module.running_mean, module.bias):
                    each.copy_(torch.randn(each.shape, generator=draw))
                for each in (module.running_var, module.weight):
                    each.copy_(torch.rand(each.shape, generator=draw) + 0.5)
    return made.eval()


def by_hand(conv, norm, x):
    """Convolution, then (z − μ)/√(σ² + ε)·γ + β, in that order."""
    shape = (1, -1, 1, 1)
    z = conv(x)
    z = (z - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    return z * norm.weight.view(shape) + norm.bias.view(shape)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_one_pair_against_the_formula(bias, stride):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride, 1, bias=bias).double().requires_grad_(False)
    norm = nn.BatchNorm2d(4).double().requires_grad_(False).eval()
    norm.running_mean.copy_(torch.randn(4))
    norm.running_var.copy_(torch.rand(4) + 0.1)
    norm.weight.copy_(torch.randn(4))
    norm.bias.copy_(torch.randn(4))
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(
        folding.normed(conv, norm, x), by_hand(conv, norm, x), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nets_answer_and_steer_as_unfolded(name, dtype, monkeypatch):
    """Logits and the gradient for the images, frozen (folded) against learning (not folded)."""
    made, calls = net(name).to(dtype), []
    original = nn.BatchNorm2d.forward
    monkeypatch.setattr(
        nn.BatchNorm2d, "forward", lambda self, x: calls.append(1) or original(self, x)
    )
    x = torch.rand(3, 3, 16, 16, dtype=dtype)
    found = []
    for learns in (True, False):
        made.requires_grad_(learns)
        calls.clear()
        image = x.clone().requires_grad_(True)
        logits = made(image)
        (gradient,) = torch.autograd.grad(logits[:, 2].sum(), image)
        found.append((logits, gradient, len(calls)))
    (slow, slow_gradient, all_norms), (fast, fast_gradient, kept) = found
    assert kept < all_norms
    close = 1e-12 if dtype == torch.float64 else 1e-5
    for a, b in ((fast, slow), (fast_gradient, slow_gradient)):
        assert float((a - b).detach().abs().max()) <= close * float(b.detach().abs().max())


@pytest.mark.parametrize("bn", ["train", "learning"])
def test_where_anything_learns_nothing_is_folded(bn):
    made = net("small-cnn").requires_grad_(bn == "learning").train(bn == "train")
    before = made.bn1.num_batches_tracked.clone()
    logits = made(torch.rand(4, 3, 8, 8, dtype=torch.float64))
    if bn == "train":  # batch statistics, and the running ones move
        assert int(made.bn1.num_batches_tracked) == int(before) + 1
        return
    logits.sum().backward()
    assert all(each.grad is not None for each in made.parameters())


def test_a_pair_without_its_normalisation_stays_a_pair():
    conv = nn.Conv2d(3, 4, 3).requires_grad_(False)
    x = torch.rand(1, 3, 5, 5)
    assert torch.equal(folding.normed(conv, nn.Identity(), x), conv(x))
    fixed = nn.BatchNorm2d(4, track_running_stats=False).requires_grad_(False).eval()
    torch.testing.assert_close(folding.normed(conv, fixed, x), fixed(conv(x)))


def test_settled_folds_once_and_sees_changes(monkeypatch):
    made, calls = net("small-cnn").requires_grad_(False), []
    original = folding.fold
    monkeypatch.setattr(folding, "fold", lambda c, n: calls.append(n) or original(c, n))
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with folding.settled():
        first = made(x)
        assert torch.equal(made(x), first)
        assert len(calls) == 3
        made.conv2.weight.mul_(2)
        made.bn3.running_mean.add_(1)
        changed = made(x)
        assert len(calls) == 5
    assert torch.equal(changed, made(x))
    assert not torch.allclose(changed, first)
    assert folding._kept is None


def test_an_error_leaves_nothing_settled():
    with pytest.raises(KeyError), folding.settled():
        raise KeyError
    assert folding._kept is None


def test_pgd_takes_the_same_path_as_unfolded():
    made = net("resnet8")
    plain = copy.deepcopy(made)
    x, y = torch.rand(8, 3, 8, 8, dtype=torch.float64), torch.arange(8) % 5
    threat = Threat("linf", 0.1)
    found = pgd(made, x, y, threat, steps=10, random_start=False)
    x_adv = x.clone()
    for _ in range(10):  # parameters learn here, so that nothing is folded
        x_adv.requires_grad_(True)
        loss = nn.functional.cross_entropy(plain(x_adv), y)
        (gradient,) = torch.autograd.grad(loss, x_adv)
        moved = x_adv.detach() + 0.025 * gradient.sign()
        x_adv = torch.min(torch.max(moved, x - 0.1), x + 0.1).clamp(0, 1)
    torch.testing.assert_close(found, x_adv, rtol=0, atol=1e-9)

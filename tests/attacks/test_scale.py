"""A net and its positive multiples decide alike, and every attack of ours finds the same."""

import pytest
import torch
from torch import nn

from advkit import registry
from advkit.formulas.threat import Threat

FACTORS = (1e-3, 1e-2, 0.1, 0.3, 3.0, 10.0, 100.0, 1e3)
BALLS = {"linf": 0.04, "l2": 0.25, "l1": 1.5}
OURS = [
    name
    for name, part in registry.parts("attacks").items()
    if name == "none" or any(option.name == "loss" for option in part.options)
]
"""Attacks that ascend a loss of their own; PMA is another's, defined on probabilities."""


class Multiple(nn.Module):
    """k·z for the logits z of a net."""

    def __init__(self, net, k):
        super().__init__()
        self.net, self.k = net, k

    def forward(self, x):
        return self.k * self.net(x)


class Plane(nn.Module):
    """Logits (m, −m), with m the signed distance to the plane Σ(x − ½) = 0 in l2."""

    def __init__(self):
        super().__init__()
        self.normal = nn.Parameter(torch.ones(192) / 192**0.5)

    def forward(self, x):
        m = (x - 0.5).flatten(1) @ self.normal
        return torch.stack([m, -m], 1)


def attacked(name, net, x, y, threat):
    """Return whom the attack leaves standing, (B,)."""
    extra = {"surrogate": net} if name == "transfer" else {}
    generator = torch.Generator().manual_seed(0)
    x_adv = registry.load("attacks", name).attack(net, x, y, threat, generator=generator, **extra)
    with torch.no_grad():
        return net(x_adv).argmax(1) == y


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("norm", BALLS)
def test_half_lie_nearer_than_eps(name, norm):
    """Of 64 images every other one lies 0.3 from the plane, the rest 0.8; ε is 0.5 in l2."""
    distance = torch.where(torch.arange(64) % 2 == 0, 0.3, 0.8)
    x = (0.5 + distance[:, None] / 192**0.5).expand(64, 192).reshape(64, 3, 8, 8).clone()
    y = torch.zeros(64, dtype=torch.int64)
    eps = {"l2": 0.5, "linf": 0.5 / 192**0.5, "l1": 0.5 * 192**0.5}[norm]
    expected = torch.ones(64) == 1 if name == "none" else distance > 0.5
    for factor in (1.0, *FACTORS):
        standing = attacked(name, Multiple(Plane(), factor), x, y, Threat(norm, eps))
        assert torch.equal(standing, expected), factor


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("norm", BALLS)
def test_multiples_of_a_net(name, norm):
    """Ten classes, two layers with kinks: at most one of a hundred verdicts differs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    x = torch.rand(200, 1, 8, 8)
    y, threat = net(x).argmax(1), Threat(norm, BALLS[norm])
    first = attacked(name, net, x, y, threat)
    if name != "none":
        assert 20 < int(first.sum()) < 180  # neither all nor nothing: verdicts can differ
    for factor in FACTORS:
        standing = attacked(name, Multiple(net, factor), x, y, threat)
        assert int((standing != first).sum()) <= 2, factor

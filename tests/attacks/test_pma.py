"""PMA: its margin and gradients by hand, a run step by step in numpy, and who leaves when."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from advkit.attacks import pma
from advkit.formulas.threat import Threat

SHAPE = (5, 1, 2, 3)


class Linear(nn.Module):
    """Wx + b: the gradient of a probability fits on a line."""

    def __init__(self, scale=1.0):
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(scale * torch.randn(4, 6, generator=draw).double())
        self.bias = nn.Parameter(torch.zeros(4).double())

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


def images():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_golden():
    """max p_c − p_y of the logits 1, 1.5, 0, −.5 with y = 0."""
    z = torch.tensor([[1.0, 1.5, 0.0, -0.5]], dtype=torch.float64)
    assert float(pma.margin(z, torch.tensor([0]))) == pytest.approx(0.200239, abs=5e-7)
    assert float(pma.margin(z, torch.tensor([1]))) == pytest.approx(-0.200239, abs=5e-7)


def test_margin_against_numpy():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(20, 5)), rng.integers(5, size=20)
    p = softmax(z, axis=1)
    expected = [max(np.delete(row, label)) - row[label] for row, label in zip(p, y, strict=True)]
    assert pma.margin(torch.tensor(z), torch.tensor(y)).numpy() == pytest.approx(expected)


def gradient(weight, z, y, loss):
    """∂loss/∂x of one example of the linear net: Σ_c ∂loss/∂p_c · p_c(w_c − Σ_k p_k w_k)."""
    p = softmax(z)
    slope = np.zeros(len(p))
    rival = int(np.argmax(np.where(np.arange(len(p)) == y, -1, p)))
    if loss == "true":
        slope[y] = 1
    if loss in ("less true", "margin"):
        slope[y] = -1
    if loss in ("rival", "margin"):
        slope[rival] = 1
    mean = p @ weight
    return sum(slope[c] * p[c] * (weight[c] - mean) for c in range(len(p)))


@pytest.mark.parametrize("steps", [1, 2, 5, 6])
def test_a_restart_against_numpy(steps):
    """Nobody falls: the iterate of the greatest margin of both runs comes back."""
    net, x, threat = Linear(), images(), Threat("linf", 0.02)
    net.bias.data[0] = 4.0
    y = torch.zeros(5, dtype=torch.int64)
    weight, bias = net.weight.detach().numpy(), net.bias.detach().numpy()
    found = pma.attack(net, x, y, threat, generator=torch.Generator().manual_seed(1), steps=steps)
    draw, half = torch.Generator().manual_seed(1), max(1, steps // 2)
    starts = [threat.start(x, "uniform", draw).numpy().reshape(5, 6) for _ in range(2)]
    flat = x.numpy().reshape(5, 6)
    for k in range(5):
        path = []
        for start, side in zip(starts, ("less true", "rival"), strict=True):
            here = start[k]
            path.append(here)
            for step in range(steps):
                loss = "true" if step == 0 else side if step < half else "margin"
                place, length = (step, half) if step < half else (step - half, steps - half)
                size = 2 * 0.02 * (1 + np.cos(np.pi * place / length)) / 2
                move = size * np.sign(gradient(weight, weight @ here + bias, 0, loss))
                here = np.clip(np.clip(here + move, flat[k] - 0.02, flat[k] + 0.02), 0, 1)
                path.append(here)
        p = softmax(np.array(path) @ weight.T + bias, axis=1)
        margins = p[:, 1:].max(1) - p[:, 0]
        assert found[k].numpy().flatten() == pytest.approx(path[int(margins.argmax())])


class Counting(Linear):
    """Counts the images that it is asked about."""

    asked = 0

    def forward(self, x):
        self.asked += len(x)
        return super().forward(x)


def test_who_is_misclassified_leaves():
    """Two of five are wrong all over the ball: they are asked about once, at their start."""
    net, x = Counting(), images()
    net.bias.data[1] = 9.0
    y = torch.tensor([1, 0, 1, 0, 1])
    found = pma.attack(
        net, x, y, Threat("linf", 0.01), generator=torch.Generator().manual_seed(0), steps=4
    )
    start = Threat("linf", 0.01).start(x, "uniform", torch.Generator().manual_seed(0))
    assert torch.equal(found[[1, 3]], start[[1, 3]])
    # All once, and the three that stand four times more, then in a run of 4 steps and a last look.
    assert net.asked == 5 + 3 * 4 + 3 * 5


def test_an_example_does_not_depend_on_the_others_of_its_batch_standing():
    net, x, threat = Linear(), images(), Threat("l2", 0.05)
    net.bias.data[1] = 9.0
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    stand, some = torch.tensor([1] * 5), torch.tensor([1, 0, 1, 1, 0])
    first, second = (
        pma.attack(net, x, y, threat, generator=draw, steps=6)
        for y, draw in zip((stand, some), draws, strict=True)
    )
    assert torch.allclose(first[[0, 2, 3]], second[[0, 2, 3]])

"""Input landscapes: directions as defined, a linear net worked out by hand, which images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from advkit.analyses.drawing import plot
from advkit.analyses.input_landscape import _COLUMNS, analyze
from advkit.errors import NumericalError, UsageError
from advkit.runtime.reporting import Reporter
from tests.analyses.probing import linear, pixels, probe, small


class Told(Reporter):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def seen(asked, **options):
    """Return the result and every image that the net was shown, in order."""
    shown = []
    hook = asked.model.register_forward_pre_hook(lambda _, x: shown.append(x[0].detach().double()))
    result = analyze([asked], **options)
    hook.remove()
    return result, torch.cat(shown)


def columns(result, example):
    rows = [row for row in result.rows if row[0] == example]
    return dict(zip(_COLUMNS, np.array(rows, dtype=float).T, strict=True))


@pytest.mark.parametrize("batch_size", [250, 4])
def test_directions(batch_size):
    """r1 is the gradient's sign, r2 of random signs, and every point is x + a·r1 + b·r2."""
    asked = probe(linear(2, 64), shape=(1, 8, 8), n=2, batch_size=batch_size)
    result, shown = seen(asked, points=3, reach="0.1")
    signs = []
    for number, (x, y) in enumerate(zip(pixels(asked), asked.labels.tolist(), strict=True)):
        own = shown[number * 10 : (number + 1) * 10]
        assert torch.allclose(own[0], x[0], atol=1e-6)
        found, rest = own[1:], columns(result, number)
        r1, r2 = (found[7] - x) / 0.1, (found[5] - x) / 0.1
        weight = asked.model[1].weight.double()
        assert torch.allclose(r1[0].flatten(), (weight[1 - y] - weight[y]).sign(), atol=1e-5)
        assert torch.allclose(r2.abs(), torch.ones_like(r2), atol=1e-5)
        assert abs(float(r2.mean())) < 0.5  # 4 standard deviations of 64 fair signs
        signs.append(r2.sign())
        for image, a, b in zip(found, rest["a"], rest["b"], strict=True):
            assert torch.allclose(image, x + a * r1 + b * r2, atol=1e-6)
    assert not torch.equal(*signs)


@pytest.mark.parametrize(("seed", "norm"), [(0, "linf"), (3, "l2")])
def test_linear_net_by_hand(seed, norm):
    """ℓ = softplus(−margin), ‖∇ℓ‖ = σ(−margin)·‖Δ‖ with Δ = w_y − w_other."""
    asked = probe(linear(seed), n=3, norm=norm)
    result, shown = seen(asked, points=5, reach="1.5")
    weight, bias = (each.double().numpy() for each in (asked.model[1].weight, asked.model[1].bias))
    for number, y in enumerate(asked.labels.tolist()):
        delta, shift = weight[y] - weight[1 - y], bias[y] - bias[1 - y]
        own = shown[number * 26 : (number + 1) * 26].flatten(1).numpy()
        margin = own @ delta + shift
        losses = np.logaddexp(0, -margin)
        slopes = 1 / (1 + np.exp(margin))
        found = columns(result, number)
        assert found["loss"] == pytest.approx(losses[1:], rel=1e-4)
        norms = slopes * np.linalg.norm(delta)
        assert found["gradient_norm"] == pytest.approx(norms[1:], rel=1e-4)
        plane = losses[0] - slopes[0] * (own[1:] - own[0]) @ delta
        group = result.groups[number]
        assert group["loss"] == pytest.approx(losses[0], rel=1e-4)
        assert group["gradient_norm"] == pytest.approx(norms[1:].mean(), rel=1e-4)
        assert group["loss_range"] == pytest.approx(np.ptp(losses[1:]), rel=1e-4)
        bent = np.abs(losses[1:] - plane).max()
        assert group["nonlinearity"] == pytest.approx(bent, rel=1e-3)
    for name in ("loss", "gradient_norm", "loss_range", "nonlinearity"):
        assert result.numbers[name] == pytest.approx(np.mean([g[name] for g in result.groups]))


def test_all_nets_have_the_same_random_signs():
    """r2 belongs to the seed and the image alone, whatever the net and the other images."""
    x = pixels(probe(linear(0), n=4))
    steps = []
    for net, pick, seed in ((0, None, 0), (1, "2,1", 0), (1, "2", 5)):
        asked = dataclasses.replace(probe(linear(net), n=4), seed=seed)
        _, shown = seen(asked, points=3, reach="0.5", pick=pick)
        first = 2 * 10 if pick is None else 0
        steps.append((shown[first + 6] - x[2]).sign())
    assert torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[1], steps[2])


@pytest.mark.parametrize(
    ("norm", "length"), [("linf", 1.0), ("l2", np.sqrt(3 * 16)), ("l1", 3 * 16.0)]
)
def test_the_reach_is_two_eps(norm, length):
    asked = probe(linear(0, 48), shape=(3, 4, 4), norm=norm, eps=0.2, n=1)
    numbers = analyze([asked], points=3).numbers
    assert numbers["reach"] == pytest.approx(0.4 / length)


def test_reach_is_read_as_a_fraction():
    result = analyze([probe(linear(), n=1)], points=3, reach="51/255")
    assert columns(result, 0)["a"] == pytest.approx(np.repeat([-0.2, 0, 0.2], 3))
    assert columns(result, 0)["b"] == pytest.approx(np.tile([-0.2, 0, 0.2], 3))


@pytest.mark.parametrize(("channels", "classes", "n"), [(1, 2, 1), (3, 2, 3), (3, 5, 1)])
def test_any_net_and_even_one_example(channels, classes, n, tmp_path):
    net = small(channels, classes)
    before = {name: values.clone() for name, values in net.state_dict().items()}
    asked = probe(net, shape=(channels, 8, 8), classes=classes, n=n)
    result = analyze([asked], points=5)
    assert all(torch.equal(before[name], now) for name, now in net.state_dict().items())
    assert len(result.rows) == 25 * n
    assert [group["label"] for group in result.groups] == asked.labels.tolist()
    with torch.no_grad():
        losses = nn.functional.cross_entropy(net(pixels(asked).float()), asked.labels)
    assert result.numbers["loss"] == pytest.approx(float(losses), rel=1e-5)
    plot.save(tmp_path / "it.svg", [("a net", result)])
    text = (tmp_path / "it.svg").read_text()
    for k, label in enumerate(asked.labels.tolist()):
        assert f"<!-- example {k}, class class {label} -->" in text


def test_picked():
    asked = dataclasses.replace(probe(linear(), n=6), positions=torch.arange(2))
    result = analyze([asked], points=3, pick="4, 1,4")
    assert [group["example"] for group in result.groups] == [4, 1]
    assert [group["label"] for group in result.groups] == asked.images.labels[[4, 1]].tolist()
    assert result.numbers["n"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pick": "6"}, "positions 0 to 5"), ({"pick": "-1"}, "positions 0 to 5"),
        ({"pick": "1;2"}, "--pick"), ({"pick": ""}, "--pick"), ({"points": 6}, "odd number"),
        ({"reach": "0"}, "--reach"), ({"reach": "-1"}, "--reach"), ({"reach": "far"}, "number"),
    ],
)  # fmt: skip
def test_impossible_options(options, words):
    with pytest.raises(UsageError, match=words):
        analyze([probe(linear())], **options)


def test_a_net_without_gradient_is_told_and_drawn(tmp_path):
    """Logits far apart: the loss is exactly 0 in float32, and so is its gradient."""
    net = linear()
    net[1].weight.data.zero_()
    net[1].bias.data = torch.tensor([1000.0, 0.0])
    asked = dataclasses.replace(probe(net, n=1), reporter=Told())
    asked.images.labels[0] = 0
    result = analyze([asked], points=5)
    (line,) = asked.reporter.warnings
    assert "example 0" in line
    assert "no gradient" in line
    assert result.numbers["gradient_norm"] == result.numbers["loss_range"] == 0
    plot.save(tmp_path / "it.png", [("flat", result)])


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(NumericalError, match="example 0 is not finite"):
        analyze([probe(linear(), n=1)], points=3, reach="1e39")


def test_command_line(cli, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best, final = (tiny_run / f"{role}.safetensors" for role in ("best", "final"))
    words = ["analyze", "input-landscape", "--points", "5", "-q"]
    outcome = cli(*words, "--plot", "x.pdf", stdin=f"{best}\n{final}")
    assert outcome.code == 0, outcome.err
    assert [record["n"] for record in outcome.records] == [3, 3]
    labels = [group["label"] for group in outcome.records[0]["groups"]]
    assert len(set(labels)) == 3
    found = [cli(*words, best, "-o", f"{k}.json").record["digest"] for k in "ab"]
    assert found == [outcome.records[0]["digest"]] * 2
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (
        cli(*words, best, "--seed", "1").record["gradient_norm"]
        != outcome.records[0]["gradient_norm"]
    )
    picked = cli(*words, best, "--pick", "7").record
    assert [group["example"] for group in picked["groups"]] == [7]
    refused = cli(*words, best, "--pick", "seven")
    assert (refused.code, refused.out) == (2, "")

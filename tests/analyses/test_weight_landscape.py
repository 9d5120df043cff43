"""Weight landscapes: directions by their definition, a landscape worked out by hand, restoring."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from advkit.analyses.drawing import plot
from advkit.analyses.probing.landscape import direction, grid, moved
from advkit.analyses.weight_landscape import _COLUMNS, analyze
from advkit.errors import NumericalError, Stopped, UsageError
from advkit.runtime import seeding
from tests.analyses.probing import linear, pixels, probe, small


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def frozen_copy(model):
    return {name: values.clone() for name, values in model.state_dict().items()}


def same(model, before):
    after = model.state_dict()
    return all(torch.equal(after[name], values) for name, values in before.items())


def column(result, name, of=0):
    place = _COLUMNS.index(name)
    return np.array([row[place] for row in result.rows if row[0] == of])


# --- directions ---


def test_each_filter_is_as_long_as_the_weights():
    net = small(3)
    found = direction(net, generator())
    assert set(found) == {"conv1.weight", "conv2.weight", "conv3.weight", "linear.weight"}
    for name, values in found.items():
        weights = net.state_dict()[name].numpy()
        for d, w in zip(values.numpy(), weights, strict=True):
            assert np.sqrt((d.astype(float) ** 2).sum()) == pytest.approx(
                np.sqrt((w.astype(float) ** 2).sum()), rel=1e-5
            )


def test_directions_are_scaled_gaussian_draws():
    """The formula anew in numpy, from the same stream."""
    net, rng = small(), generator(3)
    found = direction(net, generator(3))
    for name, parameter in net.named_parameters():
        if parameter.dim() > 1:
            d = torch.randn(parameter.shape, generator=rng).numpy().reshape(len(parameter), -1)
            w = parameter.detach().numpy().reshape(len(parameter), -1)
            d *= np.linalg.norm(w, axis=1, keepdims=True) / np.linalg.norm(d, axis=1, keepdims=True)
            assert found[name].numpy().reshape(d.shape) == pytest.approx(d, rel=1e-5)


def test_a_filter_of_zeros_stays():
    net = linear()
    net[1].weight.data[0] = 0
    found = direction(net, generator())["1.weight"]
    assert float(found[0].abs().max()) == 0 < float(found[1].abs().max())


def test_moved_is_w_plus_alpha_d_inside_and_w_after():
    net = small()
    before, along = frozen_copy(net), direction(net, generator())
    with moved(net, along, -0.3):
        for name, now in net.state_dict().items():
            w = before[name].double()
            expected = w - 0.3 * along[name].double() if name in along else w
            assert torch.allclose(now.double(), expected, atol=1e-6, rtol=0)
    assert same(net, before)


@pytest.mark.parametrize("error", [KeyError, Stopped(2), KeyboardInterrupt])
def test_moved_restores_after_any_error(error):
    net = small()
    before = frozen_copy(net)
    with (
        pytest.raises((KeyError, Stopped, KeyboardInterrupt)),
        moved(net, direction(net, generator()), 0.7),
    ):
        raise error
    assert same(net, before)


@pytest.mark.parametrize(("points", "place"), [(3, 1), (7, 3), (25, 12)])
def test_grid_is_even_and_symmetric(points, place):
    found = grid(0.3, points)
    assert found[place] == 0
    assert found == tuple(-value for value in reversed(found))
    assert found == pytest.approx(np.linspace(-0.3, 0.3, points))


@pytest.mark.parametrize("points", [4, 1, 0])
def test_grid_needs_a_middle(points):
    with pytest.raises(UsageError, match="odd number"):
        grid(1.0, points)


# --- the landscape ---


def by_hand(asked, alphas, k, eps):
    """Return the linear two-class net's losses along direction k: softplus of −margin (+ ε‖Δ‖₁).

    On Δ = w_y − w_other, the worst point of the linf ball lowers the margin by ε‖Δ‖₁.
    """
    weight = asked.model[1].weight.double().numpy()
    bias = asked.model[1].bias.double().numpy()
    d = torch.randn(weight.shape, generator=seeding.generator(asked.seed, "direction", k))
    d = d.double().numpy()
    d *= np.linalg.norm(weight, axis=1, keepdims=True) / np.linalg.norm(d, axis=1, keepdims=True)
    x = pixels(asked).flatten(1).numpy()
    y = asked.labels.numpy()
    found = []
    for alpha in alphas:
        w = weight + alpha * d
        delta, shift = w[y] - w[1 - y], bias[y] - bias[1 - y]
        margin = (delta * x).sum(1) + shift - eps * np.abs(delta).sum(1)
        found.append((np.logaddexp(0, -margin).mean(), (margin > 0).mean()))
    return np.array(found).T


@pytest.mark.parametrize(("seed", "batch_size"), [(0, 250), (5, 4)])
def test_linear_net_by_hand(seed, batch_size):
    asked = probe(linear(1), n=9, seed=seed, batch_size=batch_size)
    result = analyze([asked], directions=2, points=5, reach=2.0)
    alphas = [-2, -1, 0, 1, 2]
    for k in range(2):
        assert column(result, "alpha", k) == pytest.approx(alphas)
        for name, eps in (("clean", 0.0), ("adversarial", 0.05)):
            loss, accuracy = by_hand(asked, alphas, k, eps)
            assert column(result, f"{name}_loss", k) == pytest.approx(loss, rel=1e-4)
            assert column(result, f"{name}_accuracy", k) == pytest.approx(accuracy)


def test_numbers_are_those_of_the_rows():
    result = analyze([probe(small(), n=8)], directions=3, points=9, attack_steps=3)
    numbers = result.numbers
    for name in ("clean", "adversarial"):
        losses = np.array([column(result, f"{name}_loss", k) for k in range(3)])
        rises = losses - losses[:, 4:5]
        means = [np.trapezoid(rise, dx=0.25) / 2 for rise in rises]
        assert numbers[f"{name}_loss"] == losses[0, 4] == losses[2, 4]
        assert numbers[f"{name}_mean_rise"] == pytest.approx(np.mean(means))
        assert numbers[f"{name}_mean_rise_sd"] == pytest.approx(np.std(means, ddof=1))
        assert numbers[f"{name}_rise_half"] == pytest.approx(rises[:, [2, 6]].mean())
        assert numbers[f"{name}_rise_full"] == pytest.approx(rises[:, [0, 8]].mean())
        assert [g[f"{name}_mean_rise"] for g in result.groups] == pytest.approx(means)


@pytest.mark.parametrize("points", [3, 7])
def test_half_the_reach_between_two_points(points):
    result = analyze([probe(linear(), n=4)], directions=1, points=points, attack_steps=2)
    losses, alphas = column(result, "clean_loss"), column(result, "alpha")
    ends = np.interp([-0.5, 0.5], alphas, losses) - losses[points // 2]
    assert result.numbers["clean_rise_half"] == pytest.approx(ends.mean())
    assert result.numbers["clean_mean_rise_sd"] is None


def test_rescaling_a_layer_against_the_next_changes_nothing():
    """What filter normalisation is for: ReLU nets of the same function have one landscape."""

    def net(scale):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = nn.Sequential(
                nn.Conv2d(1, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, 4, 2), nn.Flatten(),
                nn.Linear(4, 3),
            )  # fmt: skip
        found[0].weight.data *= scale
        found[2].weight.data /= scale
        return found

    results = [
        analyze([probe(net(s), classes=3, n=8)], directions=2, points=5) for s in (1.0, 10.0)
    ]
    for name in ("clean_loss", "adversarial_loss"):
        for k in range(2):
            first, second = (column(result, name, k) for result in results)
            assert second == pytest.approx(first, rel=1e-3)
    assert results[0].numbers["clean_rise_full"] > 0.01


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 2), (3, 5)])
@pytest.mark.parametrize("n", [1, 7])
def test_any_net_and_even_one_example(channels, classes, n):
    net = small(channels, classes)
    asked = probe(net, shape=(channels, 8, 8), classes=classes, n=n)
    before, flags = frozen_copy(net), [module.training for module in net.modules()]
    result = analyze([asked], directions=2, points=3, attack_steps=4)
    assert same(net, before)
    assert [module.training for module in net.modules()] == flags == [False] * len(flags)
    assert len(result.rows) == 6
    for row in result.rows:
        cells = dict(zip(_COLUMNS, row, strict=True))
        assert cells["adversarial_loss"] >= cells["clean_loss"]
        assert cells["adversarial_accuracy"] <= cells["clean_accuracy"]
    with torch.no_grad():
        logits = net(pixels(asked).float())
    expected = nn.functional.cross_entropy(logits, asked.labels)
    assert result.numbers["clean_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_examples_are_attacked_anew_at_each_point():
    """Attacked at w alone, the examples of another net would be much weaker ones."""
    asked = probe(linear(1), n=20)
    result = analyze([asked], directions=1, points=3, reach=5.0)
    x, y, _ = next(asked.batches())
    weight = asked.model[1].weight.detach()
    delta = weight[y] - weight[1 - y]
    stale = (x.flatten(1) - asked.threat.eps * delta.sign()).view_as(x)
    draw = seeding.generator(0, "direction", 0)
    with torch.no_grad(), moved(asked.model, direction(asked.model, draw), 5.0):
        old = float(nn.functional.cross_entropy(asked.model(stale), y))
    assert column(result, "adversarial_loss")[-1] > old + 0.05


@pytest.mark.parametrize("after", [1, 7, 17])
def test_weights_come_back_when_the_net_fails(after):
    net, calls = small(), []

    def fail(*_):
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("out of memory")

    net.register_forward_pre_hook(fail)
    before = frozen_copy(net)
    with pytest.raises(RuntimeError, match="out of memory"):
        analyze([probe(net, n=3)], directions=1, points=3, attack_steps=4)
    assert same(net, before)


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(NumericalError, match=r"alpha -1e\+30 of direction 0"):
        analyze([probe(small(), n=2)], directions=1, points=3, reach=1e30, attack_steps=1)


def test_nets_of_one_architecture_are_compared_along_the_same_draws():
    first, second = (direction(small(seed=s), generator()) for s in (0, 1))
    for name, values in first.items():
        lengths = [each[name].flatten(1).norm(dim=1) for each in (first, second)]
        one, two = (
            e[name].flatten(1) / n[:, None] for e, n in zip((first, second), lengths, strict=True)
        )
        assert not torch.equal(values, second[name])
        assert torch.allclose(one, two, atol=1e-6)


def test_seed_decides():
    def rows(seed):
        asked = dataclasses.replace(probe(small(), n=5), seed=seed)
        return analyze([asked], directions=1, points=3, attack_steps=2).rows

    assert rows(0) == rows(0) != rows(1)


# --- pictures and the command line ---


def test_several_lie_over_each_other(tmp_path):
    """One row of two panels for three nets, with a line for each in both."""
    results = [
        (f"net {s}", analyze([probe(small(seed=s), n=4)], directions=2, points=3, attack_steps=1))
        for s in range(3)
    ]
    sizes = []
    for name, chosen in (("one", results[:1]), ("all", results)):
        plot.save(tmp_path / f"{name}.svg", chosen)
        text = (tmp_path / f"{name}.svg").read_text()
        sizes.append(
            [float(re.search(rf'{side}="([\d.]+)pt"', text)[1]) for side in ("width", "height")]
        )
        assert text.count("<!-- net ") == len(chosen)
    (width, height), (wide, high) = sizes
    assert (wide, high) == pytest.approx((2 * width, height))


def test_command_line(cli, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best, final = (tiny_run / f"{role}.safetensors" for role in ("best", "final"))
    before = best.read_bytes()
    small = ["--points", "3", "--directions", "1", "--attack-steps", "2", "--limit", "11", "-q"]
    outcome = cli(
        "analyze", "weight-landscape", *small, "--plot", "x.png", stdin=f"{best}\n{final}"
    )
    assert outcome.code == 0, outcome.err
    assert [record["n"] for record in outcome.records] == [11, 11]
    assert (tmp_path / "x.png").exists()
    found = [cli("analyze", "weight-landscape", best, *small, "-o", f"{k}.json") for k in "ab"]
    assert found[0].record["digest"] == found[1].record["digest"] == outcome.records[0]["digest"]
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    kept = json.loads((tmp_path / "a.json").read_text())
    assert kept["advkit"]["config"]["directions"] == 1
    assert best.read_bytes() == before


@pytest.mark.parametrize("words", [["--points", "4"], ["--directions", "0"], ["--reach", "0"]])
def test_impossible_options(cli, tiny_run, words):
    outcome = cli("analyze", "weight-landscape", tiny_run / "best.safetensors", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert words[0] in outcome.err

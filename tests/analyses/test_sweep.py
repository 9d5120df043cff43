"""Robust accuracy against ε and steps: a linear model, where both are known in closed form."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from advkit.analyses import sweep
from advkit.analyses.probing.probe import Probe
from advkit.analyses.probing.sweep import Point, Standing, by_chance, half, parse_radii
from advkit.analyses.sweep import analyze
from advkit.errors import NumericalError, UsageError
from advkit.formulas.threat import Threat
from advkit.images.image_set import Images
from tests.conftest import TINY

PIXELS, N, EPS = 6, 60, 0.05
GRID = "0,eps/2,eps,2*eps,3*eps,0.19"


def linear(classes=2, seed=0):
    """A linear model whose margins on `probe`'s images lie around EPS times its slope."""
    draw = torch.Generator().manual_seed(seed)
    layer = nn.Linear(PIXELS * PIXELS, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, PIXELS * PIXELS, generator=draw))
        layer.bias.copy_(-layer.weight.sum(1) / 2)  # grey is on the border
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def probe(model, *, n=N, classes=2, eps=EPS, norm="linf", wrong=0, **more):
    """Images that no attack of radius 0.19 carries out of the box, labelled as the model sees
    them, but for the first `wrong`."""
    draw = torch.Generator().manual_seed(1)
    raw = torch.randint(75, 180, (n, 1, PIXELS, PIXELS), generator=draw).to(torch.uint8)
    y = model(raw.float() / 255).argmax(1)
    y[:wrong] = (y[:wrong] + 1) % classes
    names = tuple(str(each) for each in range(classes))
    info = {"model": {"input_shape": [1, PIXELS, PIXELS]}, "data": {"classes": list(names)}}
    images = Images("it", "test", raw, y, names, 0, False)
    more = {"batch_size": 16, **more}
    return Probe("x", info, model, images, torch.arange(n), Threat(norm, eps), str(eps), **more)


def margins(asked, dual):
    """Distance of each example from the border, in the norm whose dual is given; < 0 if wrong."""
    weight, bias = asked.model[1].weight.double().numpy(), asked.model[1].bias.double().numpy()
    x = asked.images.batch(asked.positions).double().numpy().reshape(len(asked.labels), -1) / 255
    y = asked.labels.numpy()
    slope = weight[y] - weight[1 - y]
    return ((slope * x).sum(1) + bias[y] - bias[1 - y]) / np.linalg.norm(slope, dual, axis=1)


def rows(result, which):
    found = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return [row for row in found if row["sweep"] == which]


@pytest.mark.parametrize(("norm", "dual", "eps"), [("linf", 1, EPS), ("l2", 2, 0.3)])
def test_linear_model_against_eps(norm, dual, eps):
    asked = probe(linear(), norm=norm, eps=eps, wrong=7)
    result = analyze([asked], eps_grid=GRID)
    far = margins(asked, dual)
    for row in rows(result, "eps"):
        assert row["accuracy"] == row["nested_accuracy"] == (far > row["eps"]).mean()
        interval = binomtest(int((far > row["eps"]).sum()), N).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    swept = [row["accuracy"] for row in rows(result, "eps")]
    assert len(set(swept)) >= 4  # the case is worth its name
    assert result.numbers["clean_accuracy"] == swept[0] == (N - 7) / N
    own = [row["eps"] for row in rows(result, "eps")].index(eps)
    assert result.numbers["robust_accuracy"] == swept[own]
    assert result.numbers["accuracy_at_largest_eps"] == swept[-1]
    assert (result.numbers["n"], result.numbers["monotone_eps"]) == (N, True)


def test_linear_model_against_steps():
    """From any start in the ball, eight steps of ε/4 reach the corner that is worst."""
    asked = probe(linear())
    result = analyze([asked], eps_grid="eps", steps_grid="64,8,1,8")
    one, *more = rows(result, "steps")
    assert [each["steps"] for each in (one, *more)] == [1, 8, 64]
    expected = (margins(asked, 1) > EPS).mean()
    assert [each["accuracy"] for each in more] == [expected, expected]
    assert one["accuracy"] > expected
    assert {each["step_size"] for each in more} == {EPS / 4}
    assert result.numbers["most_steps"] == 64
    assert result.numbers["accuracy_at_most_steps"] == expected
    assert result.numbers["monotone_steps"]


def test_step_size_in_pixels_stays():
    result = analyze([probe(linear())], eps_grid="eps,2*eps", step_size="0.01", steps_grid="2")
    assert [row[3] for row in result.rows] == [0.01] * 3


def test_a_wide_box_reaches_zero():
    numbers = analyze([probe(linear())], steps_grid="1").numbers
    assert (numbers["largest_eps"], numbers["accuracy_at_largest_eps"]) == (8 * EPS, 0.0)


@pytest.mark.parametrize("wrong", [0, 1])
def test_one_example(wrong):
    result = analyze([probe(linear(), n=1, wrong=wrong)], steps_grid="1,2")
    assert result.numbers["clean_accuracy"] == 1 - wrong
    assert result.numbers["monotone_eps"] is result.numbers["monotone_steps"] is True
    assert (result.numbers["eps_half"] is None) == bool(wrong)
    assert len(result.rows) == 11


def test_more_classes_and_reproducible():
    found = [analyze([probe(linear(5), classes=5)], steps_grid="1,4") for _ in "ab"]
    assert found[0].rows == found[1].rows
    alone = analyze([probe(linear(5), classes=5)], eps_grid="eps", steps_grid="4")
    assert rows(alone, "eps")[0]["accuracy"] == found[0].numbers["robust_accuracy"]
    assert rows(alone, "steps")[0] == pytest.approx(
        {**rows(found[0], "steps")[-1], "nested_accuracy": rows(alone, "steps")[0]["accuracy"]}
    )


def standing(*verdicts):
    points = [Point("eps", Threat("linf", 0.1 * place), 5, 0.1) for place in range(len(verdicts))]
    return Standing(points, torch.tensor(verdicts).bool())


def test_a_rise_beyond_noise():
    """Nine of nine changed verdicts in the defender's favour: 1/512; five of five: 1/32."""
    low, five, nine = [1] * 2 + [0] * 9, [1] * 7 + [0] * 4, [1] * 11
    assert standing(nine, low, five).rises == [None, None, pytest.approx(1 / 32)]
    assert standing(nine, low, five).monotone
    assert standing(nine, low, five, nine).rises[3] == pytest.approx(1 / 512)
    assert not standing(nine, low, five, nine).monotone
    assert standing(nine, five, low).monotone


def test_nested_verdicts():
    found = standing([1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 1, 1])
    assert found.accuracy == [0.75, 0.5, 0.75]
    assert found.nested == [0.75, 0.5, 0.25]


@pytest.mark.parametrize(("freed", "broken"), [(0, 0), (1, 4), (12, 3), (400, 350)])
def test_sign_test(freed, broken):
    expected = (
        binomtest(freed, freed + broken, alternative="greater").pvalue if freed + broken else 1.0
    )
    assert by_chance(freed, broken) == pytest.approx(expected)


def test_a_model_that_more_steps_do_not_break_is_flagged(monkeypatch):
    """An attack that loses its way as it takes more steps: the verdict must not be hidden."""
    attack = sweep.pgd.attack

    def lost(model, x, y, threat, *, steps, **more):
        return attack(model, x, y, threat, steps=steps, **more) if steps < 32 else x

    monkeypatch.setattr(sweep.pgd, "attack", lost)
    result = analyze([probe(linear())], eps_grid="eps")
    assert not result.numbers["monotone_steps"]
    assert result.numbers["monotone_eps"]
    last = rows(result, "steps")[-1]
    assert last["accuracy"] == 1 > last["nested_accuracy"]
    assert "rise_p" in result.text


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [([0.8, 0.6, 0.2], 0.2), ([0.8, 0.4, 0.2], 0.1), ([0.8, 0.7, 0.5], None), ([0.3] * 3, 0.0)],
)
def test_half(accuracy, expected):
    assert half([0.0, 0.1, 0.3], accuracy, 0.8) == (
        None if expected is None else pytest.approx(expected)
    )


def test_grid_of_radii():
    assert parse_radii("2*eps, 0, 8/255,eps", Threat("linf", 8 / 255), 64) == [
        0.0, 8 / 255, 16 / 255,
    ]  # fmt: skip
    assert parse_radii("4*eps,99*eps", Threat("l2", 1.0), 64) == [4.0, 8.0]
    assert parse_radii("4*eps,99*eps", Threat("l1", 1.0), 64) == [4.0, 64.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps_grid": "eps/x"}, "eps/x"),
        ({"eps_grid": "eps/0"}, "--eps-grid: 'eps/0'"),
        ({"eps_grid": ""}, "not a number"),
        ({"eps_grid": "0,8"}, "8/255"),
        ({"steps_grid": "1,0"}, "--steps-grid"),
        ({"steps_grid": "1,,2"}, "--steps-grid"),
        ({"steps_grid": "1.5"}, "--steps-grid"),
        ({"step_size": "0"}, "step size"),
    ],
)
def test_impossible_grids(options, words):
    with pytest.raises(UsageError, match=words):
        analyze([probe(linear())], **options)


def test_no_eps_to_sweep():
    with pytest.raises(UsageError, match="--eps 0"):
        analyze([probe(linear(), eps=0.0)])


def test_a_model_that_gives_nan():
    model = linear()
    model[1].bias.fill_(torch.nan)
    with pytest.raises(NumericalError, match="NaN"):
        analyze([probe(model)])


def test_in_a_pipe(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = cli("train", *TINY, "--method", "at", "--epochs", "1", "-q").out
    options = ["--limit", "30", "--steps", "10", "--steps-grid", "1,10", "-q"]
    found = cli("analyze", "sweep", *options, "--plot", "it.png", stdin=trained)
    assert found.code == 0, found.err
    assert found.record["n"] == 30
    attacked = cli("attack", "--attack", "none", "--limit", "30", "-q", stdin=trained).record
    assert found.record["clean_accuracy"] == attacked["clean_accuracy"]
    assert (tmp_path / "it.png").stat().st_size > 10_000
    refused = cli("analyze", "sweep", "--steps", "0", stdin=trained)
    assert (refused.code, "--steps 0 is not in [1," in refused.err) == (2, True)

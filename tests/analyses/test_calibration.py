"""Calibration against a loop over examples, torchmetrics and numpy."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from advkit.analyses import calibration
from advkit.analyses.calibration import adaptive_ece, analyze, brier, ece, reliability
from advkit.analyses.statistics.calibration import fitted_temperature, halves
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, UsageError


def sample(n=200, classes=4, seed=0, scale=2.0):
    """(logits, y) in float64, right about half of the time."""
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(n, classes)) * scale, rng.integers(classes, size=n)
    z[np.arange(n), y] += 1
    return z, y


def brute(p, y, bins):
    """Return (ECE, MCE) over bins (k/K, (k+1)/K], one example at a time."""
    inside = [[] for _ in range(bins)]
    for row, label in zip(p, y, strict=True):
        for k in range(bins):
            if k / bins < row.max() <= (k + 1) / bins:
                inside[k].append((row.max(), row.argmax() == label))
    gaps = [
        (len(b), abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b]))) for b in inside if b
    ]
    return sum(n * gap for n, gap in gaps) / len(y), max(gap for _, gap in gaps)


def logits_of(clean, y, adversarial=None):
    clean = torch.tensor(clean, dtype=torch.float32)
    if adversarial is not None:
        adversarial = torch.tensor(adversarial, dtype=torch.float32)
    return Logits(torch.arange(len(y)), torch.as_tensor(y), clean, {}, adversarial, path="it.h5")


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (50, 2), (400, 10)])
def test_ece_and_mce_by_brute_force(n, classes, bins):
    z, y = sample(n, classes, seed=bins)
    p = softmax(z, axis=1)
    expected, worst = brute(p, y, bins)
    assert ece(torch.tensor(p), torch.tensor(y), bins) == pytest.approx(expected, abs=1e-12)
    found = reliability(torch.tensor(p), torch.tensor(y), bins)
    assert float(found.gaps.max()) == pytest.approx(worst, abs=1e-12)
    assert int(found.count.sum()) == n


@pytest.mark.parametrize("bins", [5, 15])
def test_agrees_with_torchmetrics(bins):
    from torchmetrics.functional.classification import multiclass_calibration_error

    z, y = sample(300, 5)
    p = torch.tensor(softmax(z, axis=1))
    y, numbers = torch.tensor(y), analyze([logits_of(z, y)], bins=bins, resamples=1).numbers
    assert float(p.max()) < 1
    for norm, name in (("l1", "clean_ece"), ("max", "clean_mce")):
        theirs = multiclass_calibration_error(p, y, 5, n_bins=bins, norm=norm)
        assert numbers[name] == pytest.approx(float(theirs), abs=1e-5)


def test_full_confidence_is_in_the_last_bin():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.95, 0.05]])
    y = torch.tensor([0, 1, 0, 0])
    assert ece(p, y, 10) == pytest.approx(abs(3.95 / 4 - 3 / 4))


def test_edges_belong_below():
    found = reliability(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 0]), 4)
    assert found.low.tolist() == [0.25, 0.5]
    assert found.high.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(("n", "bins"), [(200, 15), (30, 15), (7, 15), (100, 1)])
def test_adaptive_ece_by_hand(n, bins):
    """Sorted by confidence and cut into parts of equal size, to within one."""
    z, y = sample(n)
    p = softmax(z, axis=1)
    confidence, right = p.max(1), p.argmax(1) == y
    parts = [part for part in np.array_split(np.argsort(confidence), bins) if len(part)]
    gaps = [len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts]
    found = adaptive_ece(torch.tensor(p), torch.tensor(y), bins)
    assert found == pytest.approx(sum(gaps) / n, abs=1e-12)
    counts = reliability(torch.tensor(p), torch.tensor(y), bins, equal_mass=True).count
    assert int(counts.max() - counts.min()) <= 1


def test_one_confidence_is_one_bin_of_adaptive_ece():
    """60 of 100 are right at confidence 0.6: calibrated, in whatever order the rows come."""
    p = torch.tensor([[0.6, 0.4]], dtype=torch.float64).repeat(100, 1)
    y = torch.tensor([0] * 60 + [1] * 40)
    assert adaptive_ece(p, y) == pytest.approx(0, abs=1e-12)
    found = reliability(p, y, 15, equal_mass=True)
    assert (found.low.tolist(), found.high.tolist(), found.count.tolist()) == ([0.6], [0.6], [100])


@given(st.integers(0, 10**6), st.integers(1, 20), st.sampled_from([1, 2, 5, 40]))
def test_adaptive_ece_of_any_order(seed, bins, values):
    """Few values of confidence, so that many are equal."""
    draw = torch.Generator().manual_seed(seed)
    top = 0.5 + torch.randint(values, (40,), generator=draw).double() / (2 * values)
    p, y = torch.stack([top, 1 - top], 1), torch.randint(2, (40,), generator=draw)
    order = torch.randperm(40, generator=draw)
    assert adaptive_ece(p[order], y[order], bins) == pytest.approx(adaptive_ece(p, y, bins))


def test_brier_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    by_hand = ((0.3**2 + 0.2**2 + 0.1**2) + (1 + 1)) / 2
    assert brier(p, torch.tensor([0, 2])) == pytest.approx(by_hand)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_numbers(scale):
    """Every figure of both conditions, from numpy."""
    z, y = sample(scale=scale)
    attacked = sample(seed=1)[0] * scale
    numbers = analyze([logits_of(z, y, attacked)], bins=10, resamples=1).numbers
    rows = np.arange(len(y))
    for name, logits in (("clean", z), ("adversarial", attacked)):
        p = softmax(logits, axis=1)
        expected = {
            "accuracy": (p.argmax(1) == y).mean(),
            "confidence": p.max(1).mean(),
            "nll": -np.log(p[rows, y]).mean(),
            "brier": ((p - np.eye(4)[y]) ** 2).sum(1).mean(),
            "ece": brute(p, y, 10)[0],
            "mce": brute(p, y, 10)[1],
        }
        found = {key: numbers[f"{name}_{key}"] for key in expected}
        assert found == pytest.approx(expected, abs=1e-5)
    assert (numbers["n"], numbers["bins"]) == (200, 10)


def test_table_adds_up():
    z, y = sample()
    result = analyze([logits_of(z, y)], bins=8, resamples=1)
    column = {name: [row[k] for row in result.rows] for k, name in enumerate(result.columns)}
    assert set(column["condition"]) == {"clean"}
    count, accuracy, confidence = (
        np.array(column[name]) for name in ("count", "accuracy", "confidence")
    )
    assert count.sum() == 200
    gap = (count * np.abs(accuracy - confidence)).sum() / 200
    assert result.numbers["clean_ece"] == pytest.approx(gap)
    assert all(
        low < c <= high
        for low, high, c in zip(column["low"], column["high"], confidence, strict=True)
    )


def test_clean_file_has_clean_figures_only():
    z, y = sample()
    assert not any(name.startswith("adv") for name in analyze([logits_of(z, y)]).numbers)


def test_needs_labels():
    z, y = sample()
    with pytest.raises(InputError, match=r"it\.h5: calibration needs labels"):
        analyze([logits_of(z, np.full_like(y, -1))])


@pytest.mark.parametrize("bins", [0, -1])
def test_needs_a_bin(bins):
    z, y = sample()
    with pytest.raises(UsageError, match="--bins"):
        analyze([logits_of(z, y)], bins=bins)


def test_takes_logits_one_by_one():
    assert calibration.KINDS == ("logits",)
    assert not getattr(calibration, "COMPARES", False)


# --- after the fact ---


def nll(z, y, t):
    p = softmax(z / t, axis=1)
    return -np.log(p[np.arange(len(y)), y]).mean()


@pytest.mark.parametrize("scale", [0.01, 0.5, 3.0, 1e4])
def test_fitted_temperature_against_a_fine_grid(scale):
    """Whatever the logits' scale, with the fault of logits times 10⁴ among them."""
    z, y = sample(400, 5, scale=1.0)
    found = fitted_temperature(torch.tensor(z * scale), torch.tensor(y), torch.arange(400))
    grid = scale * np.geomspace(0.1, 10, 2801)
    losses = [nll(z * scale, y, t) for t in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    assert nll(z * scale, y, found) <= min(losses) + 1e-9


def test_fitted_temperature_has_no_slope():
    z, y = (torch.tensor(each) for each in sample(300, 6, seed=3))
    rows = torch.arange(0, 300, 2)
    t = torch.tensor(fitted_temperature(z, y, rows), dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(z[rows] / t, y[rows]).backward()
    assert abs(float(t.grad)) < 1e-5


@pytest.mark.parametrize(
    ("z", "y"),
    [
        ([[2.0, 1, 0], [0.0, 3, 1]], [0, 1]),  # all right: the colder the better
        ([[2.0, 1, 0], [0.0, 3, 1]], [2, 0]),  # worse than guessing: the hotter the better
        ([[1.0, 1, 1]], [0]),  # no opinion: all the same
        ([[2.0, 2, 0]], [0]),  # a tie at the top: colder without end
    ],
)
def test_no_finite_temperature_is_best(z, y):
    assert fitted_temperature(torch.tensor(z), torch.tensor(y), torch.arange(len(y))) is None


def test_fitted_on_one_half_and_measured_on_the_other():
    z, y = sample(301, 4)
    fit, held = halves(301, 5)
    assert sorted([*fit.tolist(), *held.tolist()]) == list(range(301))
    assert (len(fit), len(held)) == (150, 151)
    numbers = analyze([logits_of(z, y)], seed=5, resamples=1).numbers
    z = np.float32(z).astype(float)
    t = numbers["clean_temperature"]
    assert t == pytest.approx(fitted_temperature(torch.tensor(z), torch.tensor(y), fit))
    for name, temperature in (("held", 1), ("fitted", t)):
        there, y_there = z[held], y[held]
        assert numbers[f"clean_nll_{name}"] == pytest.approx(nll(there, y_there, temperature))
        expected = brute(softmax(there / temperature, axis=1), y_there, 15)[0]
        assert numbers[f"clean_ece_{name}"] == pytest.approx(expected, abs=1e-9)
    assert analyze([logits_of(z, y)], seed=6, resamples=1).numbers["clean_temperature"] != t


def test_what_was_fitted_helps_an_overconfident_model():
    z, y = sample(2000, 5)
    numbers = analyze([logits_of(z * 4, y)], resamples=1).numbers
    assert numbers["clean_temperature"] > 2
    assert numbers["clean_nll_fitted"] < numbers["clean_nll_held"] - 1
    assert numbers["clean_ece_fitted"] < numbers["clean_ece_held"] / 3


# --- intervals ---


def test_brier_interval_against_scipy():
    z, y = sample(150, 4)
    p = softmax(np.float32(z).astype(float), axis=1)
    each = ((p - np.eye(4)[y]) ** 2).sum(1)
    low, high = analyze([logits_of(z, y)], resamples=4000).numbers["clean_brier_ci95"]
    theirs = scipy.stats.bootstrap(
        (each,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=4e-3)


def test_ece_interval_against_scipy():
    """Far from 0 it is the basic bootstrap interval."""
    z, y = sample(300, 4, scale=5.0)
    p = softmax(np.float32(z).astype(float), axis=1)
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    place = np.ceil(confidence * 10).astype(int) - 1

    def statistic(rows):
        gaps = np.bincount(place[rows], weights=(right - confidence)[rows], minlength=10)
        return np.abs(gaps).sum() / len(rows)

    theirs = scipy.stats.bootstrap(
        (np.arange(300),), statistic, n_resamples=3000, method="basic", vectorized=False,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    found = analyze([logits_of(z, y)], bins=10, resamples=3000).numbers["clean_ece_ci95"]
    assert found == pytest.approx([theirs.low, theirs.high], abs=6e-3)


def test_ece_interval_of_a_calibrated_model_holds_zero():
    """Its ECE is above 0 by chance, by as much as is said; a percentile interval never holds 0."""
    rng = np.random.default_rng(0)
    hits, figures = 0, []
    for _ in range(40):
        z = rng.normal(size=(150, 4)) * 2
        y = np.array([rng.choice(4, p=row) for row in softmax(z, axis=1)])
        numbers = analyze([logits_of(z, y)], resamples=200).numbers
        low, high = numbers["clean_ece_ci95"]
        assert low <= numbers["clean_ece"] <= high
        hits += low == 0
        figures.append((numbers["clean_ece"], numbers["clean_ece_if_calibrated"]))
    assert hits >= 36
    found, expected = np.mean(figures, axis=0)
    assert expected == pytest.approx(found, rel=0.1)


def test_same_seed_same_interval():
    z, y = sample()
    first, second, other = (
        analyze([logits_of(z, y)], seed=seed, resamples=50).numbers["clean_ece_ci95"]
        for seed in (1, 1, 2)
    )
    assert first == second != other


def test_accuracy_interval():
    z, y = sample()
    right = int((z.argmax(1) == y).sum())
    ends = scipy.stats.binomtest(right, 200).proportion_ci(method="wilson")
    found = analyze([logits_of(z, y)], resamples=1).numbers["clean_accuracy_ci95"]
    assert found == pytest.approx([ends.low, ends.high])


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("classes", [2, 5])
def test_few_examples(n, classes):
    """Nothing to fit on, or nothing to resample: null, and no crash."""
    z, y = sample(n, classes)
    result = analyze([logits_of(z, y, -z)], resamples=20)
    assert (result.numbers["clean_ece_ci95"] is None) == (n == 1)
    if n == 1:
        assert result.numbers["clean_temperature"] is result.numbers["clean_nll_fitted"] is None
        assert result.numbers["clean_nll_held"] == pytest.approx(result.numbers["clean_nll"])
    assert all(value is None or np.isfinite(value).all() for value in result.numbers.values())


def test_pieces_do_not_show(monkeypatch):
    z, y = sample(50)
    expected = analyze([logits_of(z, y)], resamples=5).numbers
    monkeypatch.setattr("advkit.artifacts.rows.PIECE", 7)
    found = analyze([logits_of(z, y)], resamples=5).numbers
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_needs_a_resample():
    with pytest.raises(UsageError, match="--resamples"):
        analyze([logits_of(*sample())], resamples=0)

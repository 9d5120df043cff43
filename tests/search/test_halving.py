"""ADR's search without Optuna: its space, its rungs, its lines, its options."""

import pytest
import torch

from advkit.errors import UsageError
from advkit.search import halving, sampling, space, trials
from advkit.search.options import AdrOptions
from tests.faults._runs import refused

LEAST = {name: low for name, (low, _, _) in space.RANGES.items()}
MOST = {name: high for name, (_, high, _) in space.RANGES.items()}


def test_the_ends_of_the_space():
    assert space.at(LEAST) == space.Point("0.75:0.75", "0.2:0.2", 0.9995)
    assert space.at(MOST) == space.Point("5:0.5", "0.9:0.99", 0.95)


@pytest.mark.parametrize("published", ["2.5:2 0.7:0.95", "1.5:1 0.7:0.95", "2:1.5 0.5:0.9"])
def test_the_papers_settings_lie_well_within(published):
    point = space.Point(*published.split(), 0.995)
    shares = point.coordinates
    for name, (low, high, _) in space.RANGES.items():
        assert low < shares[name] < high
    assert space.at(shares) == point


@pytest.mark.parametrize("seed", range(20))
def test_every_draw_keeps_to_the_order_and_is_found_again(seed):
    draw = torch.Generator().manual_seed(seed)
    spread = {name: torch.rand((), generator=draw).item() for name in space.RANGES}
    point = space.at({k: LEAST[k] + spread[k] * (MOST[k] - LEAST[k]) for k in spread})
    (tau, tau_end), (trust, trust_end) = (
        [float(end) for end in text.split(":")] for text in (point.tau, point.lambda_)
    )
    assert tau >= tau_end >= 0.5
    assert 0.2 <= trust <= trust_end <= 0.99
    assert space.at(point.coordinates) == point


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(1, (1,)), (2, (1, 2)), (5, (2, 3, 5)), (80, (20, 40, 80))]
)
def test_rungs(epochs, rungs):
    assert halving.rungs(epochs) == rungs


def test_half_go_on():
    """By hand: with scores 5, 4, 6, 5.5, 5.2 the better half so far is 1, 1, 1, 2, 2 of them."""
    scores = [5, 4, 6, 5.5, 5.2]
    went = [halving.goes_on(score, scores[:place]) for place, score in enumerate(scores)]
    assert went == [True, False, True, True, False]
    assert halving.goes_on(5.5, scores)  # as good as the last one of the half


LINE = {
    "kind": "adr", "number": 0, "tau": "2:1", "lambda": "0.5:0.9", "ema_decay": 0.99, "epochs": 1,
    "clean_accuracy": 0.5, "robust_accuracy": 0.25, "pgd_accuracy": 0.5, "masking_alarm": False,
    "digest": "sha256:0", "standing": "80",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"lambda": None}, "lambda is no text"),
        ({"tau": "hot"}, "tau is no range START:END"),
        ({"robust_accuracy": 2}, "robust_accuracy is not in 0..1"),
        ({"standing": "8x"}, "standing is no hexadecimal"),
        ({"kind": "plain"}, "trials is missing"),
        ({"kind": "ltd"}, "kind is none of plain, adr"),
    ],
)
def test_what_is_wrong_with_a_line(change, wrong):
    assert trials.rung_fault({**LINE, **change}) == wrong


def test_a_trial_without_its_number_is_none():
    line = {key: value for key, value in LINE.items() if key != "number"}
    assert trials.rung_fault(line) == "number is missing"


def test_an_alarm_is_worse_than_anything():
    assert trials.score(LINE) == 0.25
    assert trials.score({**LINE, "masking_alarm": True, "robust_accuracy": 1.0}) == 0


@pytest.mark.parametrize("n", [1, 8, 13, 300])
def test_verdicts_go_through_hex(n):
    bits = torch.rand(n, generator=torch.Generator().manual_seed(n)) > 0.5
    assert torch.equal(trials.unpacked(trials.packed(bits), n), bits)


@pytest.mark.parametrize("given", [{}, {"trials": 2, "budget": "1h"}])
def test_one_of_trials_and_budget(given):
    with pytest.raises(UsageError, match="one of the two"):
        AdrOptions(**given)


def test_a_budget_in_seconds():
    assert AdrOptions(budget="1.5h").seconds == 5400
    with pytest.raises(UsageError, match="--budget soon"):
        AdrOptions(budget="soon")


def test_without_optuna(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sampling, "find_spec", lambda name: None)
    outcome = cli("search", "adr", "--data", "digits", "--trials", "2")
    refused(outcome, 2, "optuna is not installed", "python -m pip install optuna")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data digits", "--trials N or --budget"),
        ("--data digits --trials 2 --tau 2:1", "No such option: --tau"),
        ("--data digits --trials 2 --objective natural --attack-steps 0", "attacks nothing"),
        ("--data digits --trials 2 --awp-warmup 3", "--awp-warmup has no effect"),
    ],
)
def test_what_makes_no_search(cli, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sampling, "find_spec", lambda name: True)
    refused(cli("search", "adr", *words.split()), 2, said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 7, 200])
def test_what_a_trial_is_expected_to_take(epochs):
    """Beside a sum over the rungs: half of the trials go on at each."""
    rungs = halving.rungs(epochs)
    taken = sum(
        0.5**place * (rungs[place] - (rungs[place - 1] if place else 0)) / epochs
        for place in range(len(rungs))
    )
    judged = sum(0.5**place for place in range(len(rungs)))
    assert halving.expected(rungs) == pytest.approx((taken, judged))
    assert halving.expected((epochs,)) == (1.0, 1.0)

"""Masking: planted faults are found by the right check, honest nets pass; exact statistics."""

import copy
import dataclasses
import math

import pytest
import scipy.stats
import torch
from torch import nn

from advkit import registry
from advkit.analyses import masking
from advkit.analyses.probing import battery, gradients
from advkit.analyses.probing import checks as _checks
from advkit.analyses.probing.battery import Measured, Plan
from advkit.analyses.probing.probe import Probe
from advkit.errors import MismatchError, UsageError
from advkit.formulas.stats import tail
from advkit.formulas.threat import Threat
from advkit.runtime.reporting import Reporter
from tests.analyses import _planted, probing
from tests.analyses._planted import FAULTS, LIGHT, Detached, Quantised, Staircase
from tests.attacks.planted import known
from tests.heard import Heard

QUICK = {**LIGHT, "more_steps": 20, "queries": 100, "points": 20}
PLAN = Plan(10, 100)


COUNT = 100


@pytest.fixture(scope="module")
def robust():
    """A planted net: half of its examples stand any attack, and what falls falls to any gradient.

    So the shares behind every verdict are 0, 1/2 or 1 whatever the rounding.
    """
    return known(10, COUNT, names=tuple("0123456789"))


def asked(planted, limit=COUNT, plant=None, *, norm="linf", eps="0.05", reporter=None):
    """Return a probe of a planted net, or of what `plant` makes of it."""
    model = plant(planted.model) if plant else planted.model
    return Probe(
        "run/best.safetensors", copy.deepcopy(planted.info), model.eval().requires_grad_(False),
        planted.images, torch.arange(min(limit, len(planted.y))), Threat(norm, float(eps)), eps,
        reporter=reporter or Reporter(),
    )  # fmt: skip


@pytest.fixture
def fine(monkeypatch):
    """Stairs that are low beside ε: they take the gradient and leave the planted verdicts."""
    monkeypatch.setattr(Quantised, "steps", 64)


def failed(found):
    return {name for name in found.numbers["failed"].split(",") if name}


def verdicts(found):
    return {row[0]: row[1] for row in found.rows}


def measured(n=500, **standing):
    """Measured values of a model without fault, of which half the examples stand every attack."""
    masks = {name: first(n, n // 2) for name in (*battery.WHITE_BOX, "random", "square")}
    masks |= {name: first(n, n // 2) for name in (*battery.GROWING, "plain")}
    masks |= {"clean": first(n, n), "large_eps": first(n, 0), **standing}
    none, every = first(n, 0), first(n, n)
    return Measured(n, masks, flat=none, crooked=none, compared=every, answers=10)


def first(n, count):
    return torch.arange(n) < count


def verdict(name, found):
    return next(check for check in _checks.judge(found, PLAN) if check.name == name)


# --- planted nets ---


def test_an_honest_net_passes_every_check(robust):
    found = masking.analyze([asked(robust)], **QUICK)
    assert not failed(found)
    assert set(verdicts(found).values()) == {True}
    assert found.numbers["masked"] is False
    assert found.verdict == ""
    for attack in ("pgd", "pgd_more", "margin"):
        assert found.numbers[f"{attack}_accuracy"] == 0.5
    assert (found.numbers["clean_accuracy"], found.numbers["large_eps_accuracy"]) == (1, 0)


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_found_by_its_check(robust, fault):
    plant, check = FAULTS[fault]
    found = masking.analyze([asked(robust, plant=plant)], **QUICK, fail_on=check)
    assert check in failed(found)
    assert found.numbers["masked"] is True
    assert check in found.verdict


@pytest.mark.usefixtures("fine")
def test_a_false_gradient_is_found_by_the_finite_difference_alone(robust):
    found = masking.analyze([asked(robust, plant=Staircase)], **QUICK)
    assert failed(found) == {"gradient-honest"}


def test_a_cut_graph_counts_as_a_zero_gradient(robust):
    found = masking.analyze([asked(robust, 60, Detached)], **QUICK)
    assert found.numbers["zero_gradient"] == 1
    assert "gradients-present" in failed(found)
    assert verdicts(found)["gradient-honest"] is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_no_verdict_is_wrong_on_ten_seeds(tmp_path, seed):
    robust = _planted.honest(tmp_path / "at", seed)
    student = _planted.distilled(tmp_path, seed)
    teacher = tmp_path / "teacher" / "best.safetensors"
    for checkpoint in (robust, teacher):
        assert not failed(masking.analyze([_planted.asked(checkpoint, seed=seed)], **LIGHT))
    assert "logit-scale" in failed(
        masking.analyze([_planted.asked(student, None, seed=seed)], **LIGHT)
    )
    for plant, check in FAULTS.values():
        assert check in failed(
            masking.analyze([_planted.asked(robust, 200, plant, seed=seed)], **LIGHT)
        )


def test_one_example_is_too_few_and_says_so(robust):
    found = masking.analyze([asked(robust, 1)], **QUICK)
    assert found.numbers["masked"] is False
    assert verdicts(found).pop("deterministic-forward") is True
    judged = {name for name, passed in verdicts(found).items() if passed is not None}
    assert judged == {"deterministic-forward"}
    assert len(found.numbers["not_judged"].split(",")) == 9


def test_two_classes(robust):
    class Parity(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x).unflatten(1, (5, 2)).logsumexp(1)

    probe = asked(robust, 40, Parity)
    labels = robust.y % 2
    probe = dataclasses.replace(probe, images=dataclasses.replace(robust.images, labels=labels))
    found = masking.analyze([probe], **QUICK)
    with torch.no_grad():
        right = Parity(robust.model)(robust.x[:40]).argmax(1) == labels[:40]
    assert found.numbers["clean_accuracy"] == right.double().mean() > 0.5
    assert found.numbers["large_eps_accuracy"] == 0


@pytest.mark.parametrize(("norm", "eps"), [("l2", "0.25"), ("l1", "0.8")])
def test_other_norms(norm, eps):
    planted = known(10, 30, norm, float(eps))
    found = masking.analyze([asked(planted, norm=norm, eps=eps)], **QUICK)
    assert not failed(found)
    assert (found.numbers["clean_accuracy"], found.numbers["large_eps_accuracy"]) == (1, 0)
    assert found.numbers["pgd_accuracy"] == 0.5


def test_a_surrogate_is_a_second_black_box(robust, monkeypatch):
    """The net itself as its surrogate: its images break what they broke there."""
    monkeypatch.setattr(masking.models, "load", lambda path, device: (robust.model, robust.info))
    found = masking.analyze([asked(robust, 40)], **QUICK, surrogate="it.safetensors")
    assert found.numbers["transfer_accuracy"] == 0.5
    assert any("transfer" in row[4] for row in found.rows)


# --- how it judges ---


@pytest.mark.parametrize(
    ("count", "n", "p"),
    [(0, 5, 0.1), (1, 5, 0.1), (7, 355, 0.01), (60, 500, 0.1), (500, 500, 0.5), (90, 10000, 0.01)],
)
def test_the_tail_is_the_binomial_distributions(count, n, p):
    assert tail(count, n, p) == pytest.approx(scipy.stats.binom.sf(count - 1, n, p))


def test_a_figure_on_its_threshold_is_no_alarm():
    """Over the draws of an example-wise chance equal to the threshold, 0.1 % alarm at most."""
    for threshold in (0.01, 0.1):
        alarms = [k for k in range(501) if _checks.beyond(k, 500, threshold)]
        assert scipy.stats.binom.sf(alarms[0] - 1, 500, threshold) < 0.001
        assert scipy.stats.binom.sf(alarms[0] - 2, 500, threshold) >= 0.001


def test_paired_outcomes_need_both_significance_and_size():
    exact = scipy.stats.binomtest(40, 60, 0.5, alternative="greater").pvalue
    assert exact > _checks.ALPHA
    assert not _checks.exceeds(40, 20, 500, 0.01)
    assert _checks.exceeds(60, 20, 500, 0.01)
    assert not _checks.exceeds(15, 0, 10000, 0.01)


def test_a_model_without_fault_passes():
    assert all(check.passed for check in _checks.judge(measured(), PLAN))


@pytest.mark.parametrize(
    ("name", "standing"),
    [
        ("iterative-beats-one-step", {"fgsm": first(500, 200)}),
        ("white-box-beats-black-box", {"square": first(500, 200)}),
        ("white-box-beats-black-box", {"transfer": first(500, 200)}),
        ("large-eps-reaches-zero", {"large_eps": first(500, 50)}),
        ("more-steps-never-help", {"pgd_more": first(500, 300)}),
        ("more-steps-never-help", {"pgd_more": first(500, 150)}),
        ("random-search-finds-nothing", {"random": first(500, 200)}),
        ("success-grows-with-eps", {"half_eps": first(500, 200)}),
        ("success-grows-with-eps", {"four_eps": first(500, 300)}),
        ("logit-scale", {"plain": first(500, 400)}),
    ],
)
def test_each_check_sees_its_own_fault(name, standing):
    assert verdict(name, measured(**standing)).passed is False


def test_checks_of_gradients_see_theirs():
    found = measured()
    found.flat, found.crooked, found.unsteady = first(500, 20), first(500, 100), 0.01
    assert verdict("gradients-present", found).passed is False
    assert verdict("deterministic-forward", found).passed is False
    assert verdict("gradient-honest", found).passed is None
    found.unsteady = 0.0
    assert verdict("gradient-honest", found).passed is False


def test_ever_weaker_attacks_than_chance_explains_are_no_fault():
    few = measured(square=first(500, 247), margin=first(500, 230), pgd_more=first(500, 245))
    assert all(check.passed for check in _checks.judge(few, PLAN))


def test_a_model_with_nothing_right_has_nothing_to_break():
    nothing = first(500, 0)
    found = measured(**dict.fromkeys(("clean", *battery.WHITE_BOX, "random", "square"), nothing))
    judged = {check.name for check in _checks.judge(found, PLAN) if check.passed is not None}
    assert judged == {"gradients-present", "gradient-honest", "deterministic-forward"}


def test_a_model_with_one_answer_cannot_be_pushed_to_another():
    found = measured()
    found.answers = 1
    judged = {check.name for check in _checks.judge(found, PLAN) if check.passed is not None}
    assert judged == {"gradients-present", "gradient-honest", "deterministic-forward"}


def test_names_thresholds_and_choices_agree():
    names = [check.name for check in _checks.judge(measured(), PLAN)]
    assert names == list(_checks.THRESHOLDS) == list(masking.WORDS["fail_on"][1:])
    assert registry.part("analyses", "masking").constants["WORDS"] == masking.WORDS


# --- what it measures ---


class Line(nn.Module):
    """Logits (a·Σx, 0) of one-pixel images."""

    def __init__(self, slope=1.0, curve=None):
        super().__init__()
        self.slope, self.curve = slope, curve

    def forward(self, x):
        z = self.slope * x.flatten(1).sum(1)
        z = self.curve(z) if self.curve else z
        return torch.stack([z, torch.zeros_like(z)], 1)


def pixels(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_flat_where_the_gradient_is_zero_or_not_finite():
    x, y, threat = pixels(0.25, 0.5, 0.75), torch.zeros(3, dtype=torch.long), Threat("linf", 0.01)

    def look(model):
        return gradients.flat(model, x, y, threat, torch.Generator()).tolist()

    assert look(Line()) == [False] * 3
    assert look(Line(curve=lambda z: (z - 0.6).relu())) == [True, True, False]
    assert look(Line(curve=lambda z: (z - 0.75).abs().sqrt())) == [False, False, True]
    assert look(Line(1e3)) == [False] * 3  # where cross-entropy underflows, log-odds do not


@pytest.mark.parametrize(("factor", "off"), [(1.0, False), (1.9, False), (2.1, True), (0.4, True),
                                             (-1.0, True)])  # fmt: skip
def test_crooked_beyond_a_factor_of_two(factor, off):
    """The gradient claims the slope 1 where it is `factor`."""

    def curve(z):
        return factor * z.detach() + z - z.detach()

    x, y = pixels(0.5), torch.zeros(1, dtype=torch.long)
    found, compared = gradients.crooked(Line(curve=curve), x, y, Threat("linf", 0.1))
    assert (found.tolist(), compared.tolist()) == ([off], [True])


def test_nothing_to_compare_without_a_gradient():
    x, y = pixels(0.5), torch.zeros(1, dtype=torch.long)
    found, compared = gradients.crooked(Line(0.0), x, y, Threat("linf", 0.1))
    assert (found.tolist(), compared.tolist()) == ([False], [False])


def test_forward_change_and_gap():
    assert gradients.unsteady(Line(), pixels(0.5, 0.2)) == 0
    calls = iter((1.0, 1.0, 1.5))
    assert gradients.unsteady(Line(curve=lambda z: z * next(calls)), pixels(0.5)) == 0.5
    assert gradients.gaps(torch.tensor([[1.0, 4.0, 9.0]])).tolist() == [5.0]
    assert gradients.saturated(torch.tensor([[0.0, 16.0], [0.0, 18.0]])).tolist() == [False, True]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_large_ball_holds_every_image(norm):
    threat = battery.large(Threat(norm, 0.1), 12)
    black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    assert float(threat.distance(black, white)) == pytest.approx(threat.eps)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_points_stay_inside_and_reach_the_surface(norm):
    seen = []

    class Watching(Line):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    x, threat = torch.full((2, 1, 3, 3), 0.5), Threat(norm, 0.2)
    run = battery._random(threat, 10)
    found = run(Watching(), x, torch.zeros(2, dtype=torch.long), torch.Generator().manual_seed(0))
    assert torch.equal(found, x)  # logit 0 stays positive everywhere: nothing is found
    lengths = torch.cat([threat.distance(each, x) for each in seen])
    assert len(seen) == 10
    assert float(lengths.max()) == pytest.approx(0.2, rel=1e-4)
    assert int((lengths < 0.199).sum()) >= 8


def test_random_search_keeps_what_it_finds():
    x, y = pixels(0.5, 0.9), torch.zeros(2, dtype=torch.long)
    model = Line(curve=lambda z: z - 0.45)
    found = battery._random(Threat("linf", 0.1), 20)(model, x, y, torch.Generator().manual_seed(1))
    assert model(found).argmax(1).tolist() == [1, 0]
    assert torch.equal(found[1], x[1])


def test_an_answer_that_is_not_finite_is_never_right():
    y = torch.zeros(2, dtype=torch.long)
    assert battery._right(Line(math.nan), pixels(0.5, 0.9), y).tolist() == [False, False]


# --- refusals and the command line ---


@pytest.mark.parametrize(
    ("options", "words"),
    [({"fail_on": "nothing"}, "--fail-on"), ({"steps": 10, "more_steps": 10}, "--more-steps")],
)
def test_refuses_what_makes_no_sense(robust, options, words):
    with pytest.raises(UsageError, match=words):
        masking.analyze([asked(robust, 10)], **options)


def test_refuses_a_ball_without_size(robust):
    with pytest.raises(UsageError, match="eps"):
        masking.analyze([asked(robust, 10, eps="0")])


def test_refuses_a_surrogate_of_another_shape(robust, tiny_run):
    with pytest.raises(MismatchError, match="input shape"):
        masking.analyze([asked(robust, 10)], surrogate=str(tiny_run / "best.safetensors"))


def test_a_check_that_was_asked_for_and_not_judged_is_told(robust):
    class Heard(Reporter):
        def __init__(self):
            self.warnings = []

        def warn(self, text):
            self.warnings.append(text)

    heard = Heard()
    found = masking.analyze([asked(robust, 1, reporter=heard)], **QUICK, fail_on="logit-scale")
    assert found.verdict == ""
    assert len(heard.warnings) == 1
    assert "logit-scale" in heard.warnings[0]


def test_the_command_line(cli, tmp_path, tiny_run, tiny_logits):
    best = tiny_run / "best.safetensors"
    few = ["--limit", "10", "--more-steps", "12", "--queries", "5", "--points", "5"]
    picture, table = tmp_path / "masking.svg", tmp_path / "masking.csv"
    done = cli("analyze", "masking", best, *few, "--plot", picture, "-o", table)
    assert done.code == 0
    assert done.record["n"] == 10
    assert {row["check"] for row in done.record["rows"]} == set(masking.WORDS["fail_on"][1:])
    assert "logit-scale" in done.err
    assert table.read_text().count("\n") == 11
    assert picture.stat().st_size > 1000

    again = cli("analyze", "masking", best, *few, "--surrogate", best)
    assert again.record["transfer_accuracy"] is not None
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(best.read_bytes())
    same = cli("analyze", "masking", best, *few, "--surrogate", moved)
    assert same.record["digest"] == again.record["digest"] != done.record["digest"]

    missing = cli("analyze", "masking", best, *few, "--surrogate", tmp_path / "missing.safetensors")
    assert missing.code == 3
    wrong = cli("analyze", "masking", tmp_path / "missing.safetensors", "--fail-on", "logitscale")
    assert wrong.code == 2
    assert "logit-scale" in wrong.err
    assert cli("analyze", "masking", best, *few, "--fail-on", "").code == 2
    assert cli("analyze", "masking", tiny_logits).code == 3


def test_a_negative_verdict_is_exit_8_after_the_record(cli, tiny_run, monkeypatch):
    best = tiny_run / "best.safetensors"
    checks = [_checks.Check(name, name != "logit-scale", 0.5, 0.1, "planted")
              for name in _checks.THRESHOLDS]  # fmt: skip
    monkeypatch.setattr(masking, "judge", lambda found, plan: checks)
    few = ["--limit", "4", "--more-steps", "12", "--queries", "5", "--points", "2"]
    for fail_on, code in (
        ("any", 8),
        ("gradients-present, logit-scale", 8),
        ("large-eps-reaches-zero", 0),
    ):
        done = cli("analyze", "masking", best, *few, "--fail-on", fail_on)
        assert done.code == code
        assert done.record["masked"] is True
        assert "logit-scale" in done.record["failed"]
    assert cli("analyze", "masking", best, *few).code == 0


def test_progress_moves_with_each_attack_where_all_images_are_one_batch():
    heard = Heard()
    looked_at = dataclasses.replace(probing.probe(probing.linear(), n=6), reporter=heard)
    battery.measure(looked_at, Plan(steps=2, more_steps=2, queries=2, points=2))
    named = [what for what, _, done in heard.inner if what and not done]
    assert named[:3] == ["gradients", "fgsm", "pgd"]
    assert heard.units == [6] * (len(named) - 1)
    assert sum(heard.units) == heard.total

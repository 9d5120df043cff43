"""LTD's search for a temperature: its two steps, its ledger, and eq. 9 in both readings."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from advkit import data, models
from advkit.artifacts import soft_labels
from advkit.attacks import pgd
from advkit.config.resolve import resolve
from advkit.errors import InputError, MismatchError, UsageError
from advkit.formulas.threat import Threat
from advkit.images.batches import Batch
from advkit.runtime import modes, seeding
from advkit.search import evaluator, ledger, temperature
from advkit.search.evaluator import Suite, judge, plain
from advkit.search.temperature import Machine, Plan, TemperatureSearch
from advkit.softlabels.source import Stored
from tests.softlabels.test_labelling import Heard, label, teach

CPU = torch.device("cpu")
GRID = (1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0)
SMALL = {
    "data": "digits", "method": "ltd", "limit": 60, "epochs": 1, "batch_size": 32, "width": 4,
    "attack_steps": 1, "eps": "0.1",
}  # fmt: skip
"""Searches are compared with themselves or recomputed, figures of trials planted: any nets do."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return teach(tmp_path_factory.mktemp("teacher") / "run", epochs=1)


@pytest.fixture(scope="module")
def labels(teacher):
    path = teacher.parent / "labels.h5"
    label(teacher, path)
    return path


@pytest.fixture
def searching(labels, tmp_path):
    """Make a search in a folder; options of the plan by name, of training with `train`."""

    def make(name="search", reporter=None, train=(), **plan):
        plan = {"grid": GRID, "criterion": "robust", "threshold": 0.5, "refine": 0, **plan}
        flags = {**SMALL, "soft_labels": str(labels), **dict(train)}
        machine = Machine(CPU, 1, None, reporter or Heard())
        return TemperatureSearch([(flags, "flag")], Plan(**plan), tmp_path / name, machine)

    return make


def planted(made, robust, clean=lambda t: 0.9, alarm=lambda t: False, ce=lambda t: t):
    """Replace trials by figures; return the list of what was asked for."""
    asked = []

    def trial(kind, t):
        asked.append((kind, t))
        for found in made.ledger.trials:
            if (found["kind"], found["temperature"]) == (kind, t):
                return found
        found = {"kind": kind, "temperature": t, "clean_accuracy": clean(t)}
        if kind == "ltd":
            found |= {
                "robust_accuracy": robust(t), "masking_alarm": alarm(t), "loss_ce": ce(t),
                "loss_kl": -ce(t),
            }  # fmt: skip
        made.ledger.trials.append(found)
        return found

    made._trial = trial
    return asked


@pytest.mark.parametrize("peak", [1.0, 1.3, 4.2, 6.0, 11.0, 20.0])
def test_golden_section_finds_the_peak(searching, peak):
    made = searching(refine=14)
    planted(made, lambda t: 1 - abs(math.log(t / peak)))
    choice, _ = made.run()
    assert choice["temperature"] == pytest.approx(peak, rel=0.01)
    assert choice["robust_accuracy"] == pytest.approx(1, abs=0.01)


def test_refinement_stays_between_the_neighbours_of_the_best(searching):
    made = searching(refine=6)
    asked = planted(made, lambda t: -abs(t - 5.5))
    made.run()
    more = [t for kind, t in asked if kind == "ltd" and t not in GRID]
    assert len(set(more)) == 7  # two to begin with, one for each step but the last's own
    assert all(3 < t < 8 for t in more)
    left, right = more[:2]
    width = math.log(8 / 3)
    golden = (math.sqrt(5) - 1) / 2
    assert left == pytest.approx(8 * math.exp(-golden * width), abs=1e-4)
    assert right == pytest.approx(3 * math.exp(golden * width), abs=1e-4)


def test_without_refinement_the_grid_alone(searching):
    made = searching(refine=0)
    asked = planted(made, lambda t: -abs(t - 9.0))
    choice, trials = made.run()
    assert [t for kind, t in asked if kind == "ltd"] == list(GRID)
    assert choice["temperature"] in (8.0, 10.0)
    assert choice["trials"] == len(trials) == 2 * len(GRID)


def test_judging_is_a_work_of_its_own_that_moves(monkeypatch):
    """The attacks are left out: a suite that says what it does in their place."""
    told = []
    reporter = SimpleNamespace(
        begin=lambda what, total: told.append(f"{what} 0/{total}"),
        advance=lambda units: told.append(units),
        end=lambda: told.append("end"),
    )
    suite = SimpleNamespace(
        standing=lambda x, y, said: told.append(said is reporter) or torch.ones(len(y)).bool()
    )
    monkeypatch.setattr(evaluator, "BATCH", 2)
    monkeypatch.setattr(evaluator.Suite, "of", lambda *_: suite)
    digits = data.load("digits", "train")
    standing = evaluator.standing(torch.nn.Linear(1, 1), digits, torch.arange(3), None, reporter)
    assert standing.tolist() == [True] * 3
    assert told == ["judging by APGD 0/3", True, 2, True, 1, "end"]


def test_tau_max_is_the_first_substitute_below_the_threshold(searching):
    heard = Heard()
    made = searching(threshold=0.8, reporter=heard)
    asked = planted(made, lambda t: t, clean=lambda t: 0.95 if t < 10 else 0.7)
    choice, _ = made.run()
    assert [t for kind, t in asked if kind == "substitute"] == [1, 2, 3, 5, 8, 10]
    assert [t for kind, t in asked if kind == "ltd"] == [1, 2, 3, 5, 8]
    assert (choice["tau_max"], choice["temperature"]) == (10.0, 8.0)
    assert any("tau_max 10" in note and "0.700" in note for note in heard.notes)


def test_at_the_threshold_is_not_below_it(searching):
    made = searching(threshold=0.8)
    planted(made, lambda t: -t, clean=lambda t: 0.8)
    choice, _ = made.run()
    assert choice["tau_max"] is None
    assert choice["temperature"] == 1


def test_no_feasible_temperature(searching):
    made = searching(threshold=0.99)
    asked = planted(made, lambda t: t)
    with pytest.raises(InputError, match=r"clean accuracy at 0\.990"):
        made.run()
    assert asked == [("substitute", 1.0)]


def test_the_threshold_where_none_is_given(searching):
    """The teacher's own accuracy less 0.05, on all its views or on what is held out."""
    made = searching(threshold=None)
    planted(made, lambda t: -t, clean=lambda t: 1.0)  # above it, however good the teacher is
    choice, _ = made.run()
    stored, held = made.evaluator.source.labels, made.evaluator.held_out
    own = (stored.logits[held, 4].argmax(1) == stored.labels[held]).double().mean()
    known = (float(own), made.labels_info["teacher_accuracy"])
    assert stored.views[0, 4].tolist() == [1, 1, 0]
    assert min(known) - 1e-9 <= choice["threshold"] + 0.05 <= max(known) + 1e-9


def test_alarmed_trials_are_never_chosen(searching):
    made = searching(refine=3)
    planted(made, lambda t: t / 100, alarm=lambda t: t > 7)
    choice, _ = made.run()
    assert 5 <= choice["temperature"] <= 7
    assert choice["masking_alarm"] is False
    assert choice["by_robust"] == choice["temperature"]


def test_all_alarmed(searching):
    made = searching()
    planted(made, lambda t: 1.0, alarm=lambda t: True)
    choice, _ = made.run()
    assert choice["by_robust"] is None
    assert choice["masking_alarm"] is True
    assert choice["temperature"] == 1


@pytest.mark.parametrize("criterion", ["robust", "loss"])
def test_ties_go_to_the_lower_temperature(searching, criterion):
    made = searching(criterion=criterion)
    planted(made, lambda t: 0.5 if t in (3, 8, 15) else 0.1, ce=lambda t: 1 + (t not in (2, 10)))
    choice, _ = made.run()
    assert choice["temperature"] == {"robust": 3, "loss": 2}[criterion]
    assert choice["by_robust"] == 3


def test_criterion_loss_is_the_papers_letter(searching):
    made = searching(criterion="loss")
    planted(made, lambda t: -abs(t - 5), ce=lambda t: abs(t - 15), alarm=lambda t: t > 12)
    choice, _ = made.run()
    assert (choice["criterion"], choice["temperature"]) == ("loss", 15)
    assert (choice["by_robust"], choice["by_loss_ce"], choice["by_loss_kl"]) == (5, 15, 1)


@pytest.mark.parametrize(
    ("plan", "what"), [({"criterion": "best"}, "--criterion"), ({"refine": -1}, "--refine")]
)
def test_wrong_plans(searching, plan, what):
    with pytest.raises(UsageError, match=what):
        searching(**plan)


def test_needs_a_labels_file(searching, teacher):
    with pytest.raises(UsageError, match="--soft-labels"):
        searching(train={"soft_labels": None, "teacher": str(teacher)})


REAL = {"grid": (1.0, 5.0), "threshold": 0.0, "refine": 1}


class Cut(Exception):
    """The process dies here."""


@pytest.fixture(scope="module")
def whole(labels, tmp_path_factory):
    """The ledger and the choice of a search that nobody stopped."""
    path = tmp_path_factory.mktemp("whole") / "search"
    flags = {**SMALL, "soft_labels": str(labels)}
    plan = Plan(REAL["grid"], "robust", REAL["threshold"], REAL["refine"])
    made = TemperatureSearch([(flags, "flag")], plan, path, Machine(CPU, 1, None, Heard()))
    choice, trials = made.run()
    return (path / "trials.jsonl").read_text(), choice, trials


def test_a_real_search(whole):
    text, choice, trials = whole
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line.pop("chain") for line in lines}) == len(lines)
    assert lines == trials
    kinds = [(each["kind"], each["temperature"]) for each in trials]
    assert kinds[:4] == [("substitute", 1), ("substitute", 5), ("ltd", 1), ("ltd", 5)]
    assert len(kinds) == 6
    for each in trials:
        assert 0 <= each["clean_accuracy"] <= 1
    for each in trials[2:]:
        assert each["robust_accuracy"] <= each["clean_accuracy"]
        assert each["loss_kl"] < each["loss_ce"]
    assert choice["temperature"] in [each["temperature"] for each in trials[2:]]


@pytest.mark.parametrize("after", [0, 4])
def test_killed_between_training_and_ledger(whole, searching, monkeypatch, after):
    """Same bytes and same choice, whatever was finished; nothing finished runs again."""
    original, lines = ledger.files.append_line, []

    def append(path, line):
        if path.name != "trials.jsonl":
            return original(path, line)
        if len(lines) == after:
            raise Cut
        lines.append(line)
        return original(path, line)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.files, "append_line", append)
        with pytest.raises(Cut):
            searching(**REAL).run()
    made = searching(**REAL)
    trained, train = [], temperature.train

    def counted(*arguments, **more):
        trained.append(train(*arguments, **more))
        return trained[-1]

    monkeypatch.setattr(temperature, "train", counted)
    choice, trials = made.run()
    assert len(trained) == 6 - after
    assert trained.count(True) == 5 - after  # the one that was cut had its weights in place
    assert (made.ledger.path.read_text(), choice, trials) == whole


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_line(whole, searching, cut):
    """What a killed process or machine leaves: a line without its end."""
    made = searching(**REAL)
    made.open()
    lines = whole[0].splitlines(keepends=True)
    made.ledger.path.write_text("".join(lines[:-1]) + lines[-1][:-cut])
    choice, _ = made.run()
    assert (made.ledger.path.read_text(), choice) == whole[:2]


@pytest.mark.parametrize(
    ("more", "train"),
    [
        ({"grid": (1.0, 8.0)}, {}), ({"refine": 2}, {}), ({"threshold": 0.1}, {}),
        ({}, {"epochs": 2}), ({}, {"seed": 1}), ({}, {"eps": "0.2"}),
    ],
)  # fmt: skip
def test_other_options_in_the_same_folder(searching, more, train):
    made = searching(**REAL)
    planted(made, lambda t: t)
    made.run()
    other = searching(**{**REAL, **more}, train=train)
    planted(other, lambda t: t)
    with pytest.raises(MismatchError, match="other options"):
        other.run()
    same = searching(**REAL)
    planted(same, lambda t: t)
    assert same.run()[0]["temperature"] == 5


def gap(p_logits, q_logits):
    p, q = (softmax(z.double().numpy(), axis=1) for z in (p_logits, q_logits))
    return scipy.stats.entropy(p, q, axis=1)


@pytest.mark.parametrize("t", [1.0, 5.0])
def test_eq_9_in_both_readings(teacher, labels, t):
    digits = data.load("digits", "train")
    source = Stored(soft_labels.read(labels), digits, Heard())
    flags = {**SMALL, "temperature": t, "beta": 2.5, "soft_labels": str(labels)}
    settings = resolve((flags, "flag")).settings
    held = torch.arange(3, 33)
    model, _ = models.load(teacher)
    found = judge(model, digits, held, source, settings)
    x, y = digits.images[held].float() / 255, digits.labels[held]
    draw = seeding.generator(settings.seed, "judge", 0)
    with modes.frozen(model), torch.no_grad():
        x_adv = pgd.attack(model, x, y, Threat("linf", 0.1), generator=draw, steps=10, loss="ce")
        clean, adversarial, z = model(x), model(x_adv), model(x)
    target = softmax(z.double().numpy() / t, axis=1)
    ce = -(target * log_softmax(clean.double().numpy(), axis=1)).sum(1)
    kl = ce - scipy.stats.entropy(target, axis=1)
    robust = 2.5 * gap(clean, adversarial)
    assert found["loss_ce"] == pytest.approx((ce + robust).mean(), abs=1e-4)
    assert found["loss_kl"] == pytest.approx((kl + robust).mean(), abs=1e-4)
    standing = float((adversarial.argmax(1) == y).double().mean())
    assert found["pgd_accuracy"] == pytest.approx(standing)
    assert found["robust_accuracy"] <= float((clean.argmax(1) == y).double().mean())
    if t == 1:  # the teacher against its own labels: nothing but the robust term
        assert found["loss_kl"] == pytest.approx(robust.mean(), abs=1e-4)


class Saturated(nn.Module):
    """Four classes, the first one right by 5 units of a sum over 100 pixels; logits in millions.

    So large that cross-entropy has no gradient, while the DLR loss has the one it always had.
    """

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1e6))

    def forward(self, x):
        second = (x - 0.5).flatten(1).sum(1) - 5
        rest = [torch.full_like(second, value) for value in (-10.0, -20.0)]
        return self.scale * torch.stack([torch.zeros_like(second), second, *rest], 1)


@pytest.mark.parametrize(("eps", "stands"), [("0.1", False), ("0.04", True)])
def test_apgd_t_aims_at_other_classes(eps, stands):
    """At 0.1 a hundred pixels can move the sum by 10, at 0.04 by 4; random noise by far less."""
    settings = resolve(({"data": "digits", "eps": eps}, "flag")).settings
    suite = Suite.of(Saturated(), SimpleNamespace(classes=tuple("abcd")), settings)
    x, y = torch.full((3, 1, 10, 10), 0.5), torch.zeros(3, dtype=torch.int64)
    assert suite.standing(x, y).tolist() == [stands] * 3
    assert suite.standing(x, y + 1).tolist() == [False] * 3  # wrong to begin with


def test_flat_targets_make_the_kl_reading_vanish_and_bound_the_other(teacher, labels):
    """Why minimising eq. 9 over T is nearly degenerate, on a student that answers uniformly."""
    digits = data.load("digits", "train")
    source = Stored(soft_labels.read(labels), digits, Heard())
    model, _ = models.load(teacher)
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.bias.zero_()
    found = {}
    for t in (1.0, 1000.0):
        flags = {**SMALL, "temperature": t, "soft_labels": str(labels)}
        held = torch.arange(9)
        found[t] = judge(model, digits, held, source, resolve((flags, "flag")).settings)
    assert found[1000.0]["loss_kl"] < 1e-4 < found[1.0]["loss_kl"]
    for each in found.values():
        assert each["loss_ce"] == pytest.approx(math.log(10), abs=1e-5)


def test_the_plain_view_is_the_one_judged(labels):
    digits = data.load("digits", "train")
    stored = soft_labels.read(labels)
    batch = plain(digits, torch.arange(5, 25), Stored(stored, digits, Heard()), CPU)
    assert isinstance(batch, Batch)
    assert stored.views[batch.index, batch.view].tolist() == [[1, 1, 0]] * 20
    np.testing.assert_array_equal(batch.x, digits.images[5:25].float() / 255)


def test_what_changes_no_result_makes_no_other_search(searching):
    searching().open()
    searching(train={"workers": 1}).open()
    with pytest.raises(MismatchError, match="other options"):
        searching(train={"lr": 0.05}).open()


STUDENT = {
    "kind": "ltd", "temperature": 2.0, "clean_accuracy": 0.5, "digest": "sha256:0",
    "masking_alarm": False, "robust_accuracy": 0.25, "loss_ce": 2.0, "loss_kl": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, r"temperature is not in"),
        ({"robust_accuracy": "0.25"}, r"robust_accuracy is no number"),
        ({"kind": "teacher"}, r"kind is none of substitute, ltd"),
        ({"loss_ce": None}, r"loss_ce is no number"),
    ],
)
def test_a_trial_is_checked_when_read_and_when_written(tmp_path, wrong, message):
    trials = ledger.Ledger(tmp_path)
    trials.open("plan", {})
    trials.add(STUDENT)
    with pytest.raises(ValueError, match=message):
        trials.add({**STUDENT, **wrong})
    with trials.path.open("a") as file:
        file.write(json.dumps({**STUDENT, **wrong}) + "\n")
    with pytest.raises(InputError, match=rf"trials.jsonl: corrupt: in line 2 {message}"):
        ledger.Ledger(tmp_path).open("plan", {})


def test_a_students_trial_without_what_the_search_chooses_by_is_corrupt(tmp_path):
    trials = ledger.Ledger(tmp_path)
    trials.open("plan", {})
    trials.path.write_text(json.dumps({k: v for k, v in STUDENT.items() if k != "loss_kl"}) + "\n")
    with pytest.raises(InputError, match="in line 1 loss_kl is missing"):
        ledger.Ledger(tmp_path).open("plan", {})


def opened(folder):
    trials = ledger.Ledger(folder)
    return trials.open("plan\n", PARTS), trials.trials


PARTS = {"objectives/trades": "sha256:1"}
SUBSTITUTE = {"kind": "substitute", "temperature": 2.0, "clean_accuracy": 0.5}


@pytest.fixture
def two(tmp_path):
    """A search's folder with two trials."""
    trials = ledger.Ledger(tmp_path / "search")
    trials.open("plan\n", PARTS)
    trials.add(SUBSTITUTE)
    trials.add(STUDENT)
    return trials


FORGED = {
    "figures": lambda lines: [lines[0], lines[1].replace("0.25", "0.75")],
    "a temperature": lambda lines: [lines[0].replace("2.0", "3.0"), lines[1]],
    "one left out": lambda lines: lines[1:],
    "one twice": lambda lines: [lines[0], *lines],
    "another order": lambda lines: lines[::-1],
    "one more": lambda lines: [*lines, json.dumps({**STUDENT, "temperature": 9.0})],
    "without a chain": lambda lines: [lines[0], json.dumps(STUDENT)],
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_trial_that_was_edited_is_not_believed(two, forged):
    assert opened(two.folder) == (0, [SUBSTITUTE, STUDENT])
    lines = FORGED[forged](two.path.read_text().splitlines())
    two.path.write_text("".join(f"{line}\n" for line in lines))
    before = two.path.read_text()
    with pytest.raises(MismatchError, match=r"trials.jsonl: line \d was edited .* or remove it"):
        opened(two.folder)
    assert two.path.read_text() == before


def test_trials_of_another_search_are_not_believed(two, tmp_path):
    other = ledger.Ledger(tmp_path / "other")
    other.open("another plan\n", PARTS)
    other.path.write_text(two.path.read_text())
    with pytest.raises(MismatchError, match="line 1 was edited or is of another search"):
        ledger.Ledger(tmp_path / "other").open("another plan\n", PARTS)


def test_accuracies_are_in_range(two):
    two.path.write_text(two.path.read_text().replace("0.25", "9.0"))
    with pytest.raises(InputError, match="in line 2 robust_accuracy is not in"):
        opened(two.folder)


def test_an_edited_part_makes_another_search(two):
    with pytest.raises(MismatchError, match="a search of before a part was edited"):
        ledger.Ledger(two.folder).open("plan\n", {"objectives/trades": "sha256:2"})


def test_a_folder_of_something_else_is_no_search(tmp_path):
    (tmp_path / "config.toml").write_text("lr = 0.1\n")
    with pytest.raises(MismatchError, match=r"not empty and has no search\.toml"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_a_search_of_earlier_is_measured_again(whole, searching, monkeypatch):
    """Its lines have no chain; its runs are there, so that nothing is trained again."""
    made = searching(**REAL)
    made.run()
    lines = [json.loads(line) for line in made.ledger.path.read_text().splitlines()]
    for line in lines:
        line.pop("chain")
    lines[0]["clean_accuracy"] = 1.0
    made.ledger.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    mark = made.out / "search.toml"
    mark.write_text(mark.read_text().partition("# part ")[0])
    heard, trained, train = Heard(), [], temperature.train

    def counted(*arguments, **more):
        trained.append(train(*arguments, **more))
        return trained[-1]

    monkeypatch.setattr(temperature, "train", counted)
    again = searching(**REAL, reporter=heard)
    choice, trials = again.run()
    assert (again.ledger.path.read_text(), choice, trials) == whole
    assert trained == [False] * 6
    assert any("6 trials of an earlier version" in note for note in heard.notes)

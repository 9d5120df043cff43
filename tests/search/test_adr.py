"""ADR's search on Optuna: draws, halving, the choice, and that a killed search ends in the same."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import pytest
import torch
from scipy.stats import norm

from advkit.artifacts import files
from advkit.errors import InputError, MismatchError
from advkit.runtime.reporting import Reporter
from advkit.search import adr, adr_stage, evaluator, sampling
from advkit.search.adr import AdrSearch, Plan
from advkit.search.machine import Machine
from advkit.search.options import AdrOptions
from advkit.search.sampling import Told
from advkit.search.space import PAPER, RANGES, at
from advkit.training.options import TrainOptions
from tests.faults._runs import ROOT, contents
from tests.softlabels.test_labelling import Heard

optuna = pytest.importorskip("optuna")
CPU = torch.device("cpu")
TINY = {
    "data": "digits", "limit": 60, "epochs": 2, "batch_size": 32, "width": 2, "attack_steps": 1,
    "eps": "0.1", "labels": "adr", "wa": False,
}  # fmt: skip


def by_weights(model, images, held_out, settings, reporter):
    """Judge a net by its weights: another bit in one of them is another verdict on every image."""
    total = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    seed = int.from_bytes(hashlib.sha256(total).digest()[:6], "big")
    return torch.rand(len(held_out), generator=torch.Generator().manual_seed(seed)) > 0.5


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """APGD costs seconds, and searches are compared with themselves."""
    monkeypatch.setattr(evaluator, "standing", by_weights)


def searched(folder, trials=3, reporter=None, **more):
    """Search to the end; return the records."""
    runs = TrainOptions(out=str(folder), device="cpu", settings={**TINY, **more})
    told = reporter or Reporter()
    return list(adr_stage.search(AdrOptions(trials=trials), runs, told, lambda text: None))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the records of a search that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "standing", by_weights)
        return folder, searched(folder)


def bare(records):
    """Return records without the places of their files."""
    return [{key: value for key, value in one.items() if key != "path"} for one in records]


def result(folder):
    return [(folder / name).read_bytes() for name in ("trials.jsonl", "search.json", "search.toml")]


def told(folder):
    """Return what Optuna itself reads in the journal."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    study = optuna.load_study(study_name="adr", storage=optuna.storages.JournalStorage(backend))
    return [
        (one.number, one.state.name, one.params, one.intermediate_values, one.values)
        for one in study.trials
    ]


def test_a_search(whole):
    folder, (plain, *runs, choice) = whole
    assert [(one["kind"], one["trial"]) for one in (plain, *runs)] == [
        ("checkpoint", None), ("checkpoint", 0), ("checkpoint", 1), ("checkpoint", 2),
    ]  # fmt: skip
    assert (plain["method"], runs[0]["method"]) == ("at", "adr")
    assert (runs[0]["tau"], runs[0]["lambda"], runs[0]["ema_decay"]) == ("2.5:2", "0.7:0.95", 0.995)
    ended = [one for one in runs if one["ended"]]
    best = max(one["robust_accuracy"] for one in ended)
    assert choice["robust_accuracy"] == best
    assert choice["trial"] == next(o["trial"] for o in ended if o["robust_accuracy"] == best)
    assert choice["difference"] == pytest.approx(best - plain["robust_accuracy"])
    assert (choice["kind"], choice["plain"], choice["ended"]) == ("analysis", "at", len(ended))
    table = json.loads((folder / "search.json").read_text())
    assert [row[0] for row in table["rows"]] == [None, 0, 1, 2]
    for number, state, params, scores, values in told(folder):
        run = runs[number]
        assert at(params).options == {key: run[key] for key in ("tau", "lambda", "ema_decay")}
        assert state == ("COMPLETE" if run["ended"] else "PRUNED")
        assert max(scores) == run["epochs"]
        assert values == [run["robust_accuracy"]]


def test_found_again(whole):
    heard = Heard()
    before = contents(whole[0])
    assert bare(searched(whole[0], reporter=heard)) == bare(whole[1])
    assert contents(whole[0]) == before
    assert any("already done" in note for note in heard.notes)


class Cut(BaseException):
    """The process dies here: nothing that handles failures sees it."""


@pytest.mark.parametrize("first", [1, 2, 3])
def test_killed_again_and_again(whole, tmp_path, monkeypatch, first):
    """Cut off at every third line that anything writes, each time going on from there."""
    append, left, cuts = files.append_line, [first], 0

    def cutting(path, line):
        append(path, line)
        left[0] -= 1
        if left[0] == 0:
            raise Cut

    monkeypatch.setattr(files, "append_line", cutting)
    records = None
    while records is None:
        try:
            records = searched(tmp_path / "search")
        except Cut:
            cuts, left[0] = cuts + 1, 3
    assert cuts > 5
    assert bare(records) == bare(whole[1])
    assert result(tmp_path / "search") == result(whole[0])
    assert told(tmp_path / "search") == told(whole[0])


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


@pytest.mark.parametrize("torn", ["trials.jsonl", "journal.log"])
def test_a_torn_last_line(whole, copy, torn):
    text = (copy / torn).read_text()
    (copy / torn).write_text(text[: text.rstrip().rindex("\n") + 20])
    assert bare(searched(copy)) == bare(whole[1])
    assert (result(copy), told(copy)) == (result(whole[0]), told(whole[0]))


def test_a_journal_that_is_gone_is_made_again(whole, copy):
    (copy / "journal.log").unlink()
    assert bare(searched(copy)) == bare(whole[1])
    assert told(copy) == told(whole[0])


JOURNALS = {
    "a score": (lambda text: text.replace('"step":2,', '"step":2,"trial_id":0,', 1).replace(
        '"intermediate_value":0', '"intermediate_value":1', 1), MismatchError, "of trial 0"),
    "a value": (lambda text: text.replace('"params":{"tau_start":', '"params":{"tau_start":1', 1),
                MismatchError, "of trial 0"),
    "one more": (lambda text: text + text.splitlines()[1] + "\n", MismatchError, "of trial 3"),
    "a study": (lambda text: text.replace('"adr"', '"ltd"', 1), MismatchError, "not the journal"),
    "text": (lambda text: text + "rhubarb\n", InputError, "corrupt"),
    "a list": (lambda text: text + "[]\n", InputError, "corrupt"),
    "no such thing": (lambda text: text + '{"op_code":99}\n', InputError, "corrupt"),
}  # fmt: skip


@pytest.mark.parametrize("what", JOURNALS)
def test_a_journal_that_was_edited(copy, what):
    change, error, said = JOURNALS[what]
    path = copy / "journal.log"
    edited = change(path.read_text())
    assert edited != path.read_text()
    path.write_text(edited)
    with pytest.raises(error, match=said):
        searched(copy)
    assert path.read_text() == edited


def test_a_line_that_was_edited(copy):
    path = copy / "trials.jsonl"
    path.write_text(path.read_text().replace('"tau": "2.5:2"', '"tau": "2.5:1"', 1))
    with pytest.raises(MismatchError, match=r"line 2 was edited .* choose another -o"):
        searched(copy)


@pytest.mark.parametrize("more", [{"trials": 2}, {"epochs": 3}, {"seed": 1}, {"eps": "0.2"}])
def test_other_options_in_the_same_folder(whole, more):
    before = contents(whole[0])
    with pytest.raises(MismatchError, match="other options"):
        searched(whole[0], **more)
    assert contents(whole[0]) == before


def test_a_run_that_somebody_trained_on(copy, monkeypatch):
    """Its best checkpoint is no longer that of the rung: nothing is judged by it."""
    lines = (copy / "trials.jsonl").read_text().splitlines(keepends=True)
    (copy / "trials.jsonl").write_text("".join(lines[:1]))
    (copy / "journal.log").unlink()
    with pytest.raises(MismatchError, match=r"trial-0000: trained to epoch 2, .* at 1: remove it"):
        searched(copy)
    for path in copy.glob("trial-*"):
        shutil.rmtree(path)
    searched(copy)
    assert (copy / "trials.jsonl").read_text() == "".join(lines)


def test_the_command_trains_the_chosen_run(whole, cli, monkeypatch):
    folder, records = whole
    words = shlex.split(records[-1]["command"])
    assert words[:2] == ["advkit", "train"]
    shown = cli(*words[1:], "--print-config")
    assert shown.code == 0, shown.err
    run = tomllib.loads((folder / f"trial-{records[-1]['trial']:04}" / "config.toml").read_text())
    assert tomllib.loads(shown.out) == run


def made(folder, epochs=8, **plan):
    flags = {**TINY, "epochs": epochs}
    plan = Plan(**{"trials": None, "seconds": None, **plan})
    return AdrSearch([(flags, "flag")], plan, folder, Machine(CPU, 1, None, Heard()))


def planted(search, robust, plain="0f"):
    """Replace training by figures: `robust` of number and epochs; return what was asked for."""
    asked = []
    figures = {"clean_accuracy": 1.0, "pgd_accuracy": 1.0, "digest": "sha256:0"}

    def judged(resolved, folder, epochs):
        name = folder.path.name
        if name == "plain":
            return {**figures, "epochs": epochs, "robust_accuracy": 0.5, "masking_alarm": False,
                    "standing": f"{plain}00"}, 10.0  # fmt: skip
        number = int(name.removeprefix("trial-"))
        asked.append((number, epochs))
        value = robust(number, epochs)
        return {**figures, "epochs": epochs, "robust_accuracy": abs(value), "standing": "ff00",
                "masking_alarm": value < 0}, 10.0  # fmt: skip

    search._judged = judged
    return asked


def test_who_trains_on(tmp_path):
    """By hand: at epoch 2 the better half so far, at 4 likewise among those that came there."""
    at_two, at_four = (0.5, 0.4, 0.6, 0.55), {0: 0.5, 2: 0.3, 3: 0.5}
    search = made(tmp_path / "s", trials=4)
    asked = planted(search, lambda n, epochs: {2: at_two[n], 4: at_four.get(n), 8: n / 10}[epochs])
    lines = list(search.run())
    assert asked == [(0, 2), (0, 4), (0, 8), (1, 2), (2, 2), (2, 4), (3, 2), (3, 4), (3, 8)]
    assert [line["epochs"] for line in lines] == [8, 8, 2, 4, 8]
    assert search.choice(lines)["trial"] == 3
    states = [row[1] for row in told(tmp_path / "s")]
    assert states == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]


def test_alarmed_trials_are_not_chosen(tmp_path):
    search = made(tmp_path / "s", epochs=1, trials=3)
    planted(search, lambda n, _: (0.1, -0.9, 0.1)[n])
    assert search.choice(list(search.run()))["trial"] == 0  # of equals the earlier


@pytest.mark.parametrize(
    ("plain", "verdict"),
    [("f0", "no difference seen"), ("00", "better"), ("fe", "no difference seen")],
)
def test_the_interval_is_paired_over_images(tmp_path, plain, verdict):
    """Twelve images, the trial right on the first eight; Bonett and Price's interval anew."""
    search = made(tmp_path / "s", epochs=1, trials=1)
    planted(search, lambda n, _: 8 / 12, plain)
    choice = search.choice(list(search.run()))
    gained = 8 - int(plain, 16).bit_count()
    q, share, n = norm.ppf(0.975), (gained + 1) / 14, 14
    gap = share - 1 / 14
    spread = q * ((share + 1 / 14 - gap**2) / n) ** 0.5
    ends = (choice["difference_low"], choice["difference_high"])
    assert ends == pytest.approx((gap - spread, gap + spread))
    assert choice["difference"] == pytest.approx(gained / 12)
    assert choice["verdict"] == verdict


def test_a_budget_becomes_a_number_of_trials_once(tmp_path, monkeypatch):
    """By hand: 1000 s less 110 of hard labels and 130 of a whole trial leave 760, at 67.5 each."""
    search = made(tmp_path / "s", seconds=1000.0)
    assert search._fitting(trained=100.0, judged=10.0) == 1 + 11
    assert search._fitting(trained=1000.0, judged=10.0) == 1
    assert "takes about 1030 s and the budget has 0 s left" in search.machine.reporter.warnings[-1]
    planted(search, lambda n, epochs: 0.5)
    monkeypatch.setattr(search, "_fitting", lambda trained, judged: 2)
    monkeypatch.setattr(adr.RunFolder, "rows", lambda self: [{"seconds": 100.0}])
    assert len(list(search.run())) == 3
    again = made(tmp_path / "s", seconds=1000.0)  # slower now: the number stays
    monkeypatch.setattr(again, "_fitting", lambda trained, judged: 9)
    assert len(list(again.run())) == 3


def past(n, shift=0.0):
    draw = torch.Generator().manual_seed(5)
    points = [
        at({k: low + torch.rand((), generator=draw).item() * (high - low)
            for k, (low, high, _) in RANGES.items()})
        for _ in range(n)
    ]  # fmt: skip
    return [
        Told(i, p, {1: (i * 7 % 10) / 10 + shift * (i == 0)}, whole=i % 2 == 0)
        for i, p in enumerate(points)
    ]


@pytest.mark.parametrize("n", [1, 12])
def test_a_draw_is_a_function_of_seed_number_and_past(n):
    """At random to begin with, later by the sampler's model."""
    drawn = sampling.draw(3, n, past(n))
    assert sampling.draw(3, n, past(n)) == drawn
    assert sampling.draw(4, n, past(n)) != drawn
    assert (sampling.draw(3, n, past(n, shift=5.0)) != drawn) == (n > sampling.STARTUP)
    assert sampling.draw(3, 0, []) == PAPER


@pytest.mark.slow
def test_killed_for_good(tmp_path):
    """SIGKILL twice while it works, with APGD as it is, and the same end as without."""
    words = ["--data", "digits", "--limit", "60", "--epochs", "2", "--batch-size", "32"]
    words += ["--width", "2", "--attack-steps", "1", "--eps", "0.1", "--trials", "3", "-q"]
    command = [sys.executable, "-m", "advkit", "search", "adr", *words, "--device", "cpu", "-o"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def run(folder):
        return subprocess.Popen(
            [*command, folder], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )

    alone = run("alone").communicate()[0]
    for lines in (2, 4):
        child, ledger = run("killed"), tmp_path / "killed" / "trials.jsonl"
        while child.poll() is None:
            if ledger.exists() and len(ledger.read_text().splitlines()) >= lines:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.02)
        child.communicate()
    out = run("killed").communicate()[0]
    assert out.replace("killed/", "alone/") == alone
    assert result(tmp_path / "killed") == result(tmp_path / "alone")

"""Two seeds of real runs through a pipe: the table of the recipe, and what it cost."""

import functools
import json
import statistics
from pathlib import Path

import h5py
import pytest
import torch

from advkit.analyses import calibration
from advkit.analyses.tables import pictures
from advkit.artifacts import artifact, hdf5, page
from advkit.artifacts.hdf5 import Logits
from tests.conftest import TINY

ATTACK = ["attack", "--attack", "fgsm", "--limit", "40", "-q"]
TRAIN = ["train", *TINY, "--method", "at", "--epochs", "1", "--emit", "all", "-q"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe")


@pytest.fixture(scope="module")
def done():
    """What was said when the runs were made and attacked: once for all tests."""
    return {}


@pytest.fixture
def runs(cli, place, done, monkeypatch):
    """Checkpoint records of two seeds, best and final.

    Tests compare figures with figures of the same runs, whatever accuracies training reached.
    """
    monkeypatch.chdir(place)
    if "runs" not in done:
        done["runs"] = "".join(cli(*TRAIN, "--seed", seed).out for seed in (0, 1))
    return done["runs"]


@pytest.fixture
def attacked(cli, runs, done):
    """Logits records of the same, in the same order."""
    if "attacked" not in done:
        done["attacked"] = cli(*ATTACK, stdin=runs).out
    return done["attacked"]


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without the seconds of drawing, which `test_documents` looks at."""
    monkeypatch.setattr(pictures, "svg", lambda panel: b"<svg></svg>")
    few = functools.partial(calibration.analyze, resamples=20)
    monkeypatch.setattr(calibration, "analyze", few)


def test_two_seeds_share_a_line(cli, attacked):
    records = [json.loads(line) for line in attacked.splitlines()]
    assert [(each["seed"], each["role"]) for each in records] == [
        (0, "best"), (0, "final"), (1, "best"), (1, "final"),
    ]  # fmt: skip
    outcome = cli("analyze", "table", stdin=attacked)
    (group,) = outcome.record["groups"]
    assert (group["method"], group["seeds"], group["n"]) == ("at", 2, 40)
    for what in ("robust", "clean"):
        best, final = ([r[f"{what}_accuracy"] for r in records[place::2]] for place in (0, 1))
        assert group[f"{what}_best_mean"] == pytest.approx(statistics.mean(best))
        assert group[f"{what}_best_sd"] == pytest.approx(statistics.stdev(best))
        assert group[f"{what}_final_mean"] == pytest.approx(statistics.mean(final))
        gaps = [a - b for a, b in zip(best, final, strict=True)]
        assert group[f"{what}_difference_mean"] == pytest.approx(statistics.mean(gaps))
    assert [row["group"] for row in outcome.record["rows"]] == [1] * 4
    assert " ± " in outcome.err
    assert len(outcome.out.splitlines()) == 1


def test_another_setting_is_another_line(cli, attacked):
    """The logits files alone tell how their checkpoints were trained."""
    other = cli(*ATTACK, stdin=cli(*TRAIN, "--lr", "0.05", "--name", "slow").out).out
    outcome = cli("analyze", "table", stdin=attacked + other)
    assert [(each["settings"], each["seeds"]) for each in outcome.record["groups"]] == [
        ({"lr": 0.1}, 2), ({"lr": 0.05}, 1),
    ]  # fmt: skip
    assert "lr=0.05" in outcome.err


@pytest.mark.usefixtures("undrawn")
def test_other_epochs_are_named_and_labels_passed_over(cli, runs, attacked):
    """`runs/*/*.h5` finds labels too; runs of one and of two epochs make no fair comparison."""
    longer = cli(*TRAIN[:-5], "--epochs", "2", "--emit", "best", "--name", "long", "-q").out
    other = cli(*ATTACK, stdin=longer).out
    teacher = json.loads(runs.splitlines()[0])["path"]
    labels = cli("softlabels", teacher, "--views", "1", "-q").out
    assert json.loads(labels)["kind"] == "labels"
    lines = labels + attacked.splitlines()[0] + "\n" + other
    note = "not the same in all lines: epochs 1 ({0}), 2 ({0}); nothing is bold across it"
    for name, mark in (("u.md", "**1"), ("u.tex", "textbf"), ("u.html", "<strong>")):
        outcome = cli("analyze", "table", "-o", name, "--overwrite", stdin=lines)
        assert note.format("PGD-AT") in Path(name).read_text()
        assert mark not in Path(name).read_text()
    assert f"note: {note.format('at')}" in outcome.err
    assert outcome.err.count("passed over") == 1
    assert outcome.record["differs"] == {"epochs": [1, 2]}
    assert [group["differs"] for group in outcome.record["groups"]] == [
        {"epochs": 1}, {"epochs": 2},
    ]  # fmt: skip
    alone = cli("analyze", "table", "-q", stdin=labels)
    assert (alone.code, alone.out) == (3, "")
    assert "labels" in alone.err
    assert "logits" in alone.err


def test_logits_name_no_path_of_training(attacked):
    path = Path(json.loads(attacked.splitlines()[0])["path"])
    trained = artifact.read_info(path)["trained"]
    assert (trained["method"], trained["epochs"], trained["seed"]) == ("at", 1, 0)
    assert not {"teacher", "soft_labels"} & trained.keys()


@pytest.mark.parametrize("name", ["t.json", "t.csv", "t.h5"])
def test_the_rows_are_in_every_format(cli, attacked, name):
    record = cli("analyze", "table", "-o", name, "--overwrite", stdin=attacked).record
    if name == "t.csv":
        head, *lines = Path(name).read_text().splitlines()
        assert head.endswith(",group,differs")
        assert [line[-3:] for line in lines] == [",1,"] * 4
        return
    assert artifact.read_info(Path(name))["digest"] == record["digest"]
    if name == "t.json":
        assert json.loads(Path(name).read_text())["groups"] == record["groups"]
    else:
        with h5py.File(name) as file:
            assert file["group"][()].tolist() == [1] * 4


def test_the_same_run_twice(cli, attacked):
    first = attacked.splitlines()[0]
    outcome = cli("analyze", "table", "-q", stdin=f"{attacked}{first}\n")
    assert (outcome.code, outcome.out) == (3, "")
    assert "give one of them" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_other_examples(cli, runs, attacked):
    more = cli("attack", "--attack", "fgsm", "--limit", "30", "-q", stdin=runs).out
    final = attacked.splitlines()[1]
    outcome = cli("analyze", "table", "-q", stdin=f"{more.splitlines()[0]}\n{final}\n")
    assert (outcome.code, outcome.out) == (4, "")
    assert "30 and 40 examples" in outcome.err


def test_cost(cli, runs):
    outcome = cli("analyze", "cost", "-o", "cost.json", "--overwrite", stdin=runs)
    record = outcome.record
    assert (record["kind"], record["runs"]) == ("analysis", 2)
    for row, path in zip(record["rows"], ("s0", "s1"), strict=True):
        (line,) = Path(f"runs/digits-small-cnn-at-{path}/metrics.jsonl").read_text().splitlines()
        metrics = json.loads(line)
        assert row["seconds_per_epoch"] == metrics["seconds"]
        assert row["images_per_second"] == pytest.approx(metrics["n"] / metrics["seconds"])
        assert (row["epochs"], row["planned_epochs"], row["device"]) == (1, 1, "cpu")
    assert record["rows"][0]["ratio"] == 1
    assert outcome.err.startswith("cost\n")
    parents = json.loads(Path("cost.json").read_text())["advkit"]["parents"]
    assert [parent["role"] for parent in parents] == ["best", "final"] * 2


def test_cost_of_what_is_no_run(cli, runs, attacked, tmp_path):
    best = Path(json.loads(runs.splitlines()[0])["path"])
    lone = tmp_path / "best.safetensors"
    lone.write_bytes(best.read_bytes())
    logits = json.loads(attacked.splitlines()[0])["path"]
    for given, words in [
        ([lone], ["no metrics.jsonl", "best.safetensors"]),
        ([best.with_name("none.safetensors")], ["none.safetensors"]),
        ([logits], [logits]),
        ([tmp_path], [str(tmp_path)]),
    ]:
        outcome = cli("analyze", "cost", *given, "-q")
        assert (outcome.code, outcome.out) == (3, ""), outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert all(word in outcome.err for word in words)
    outcome = cli("analyze", "cost", stdin=attacked)
    assert outcome.code == 3
    assert "got a logits record, wanted: checkpoint" in outcome.err


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("suffix", [".md", ".tex", ".html"])
def test_documents_through_the_pipe(cli, attacked, suffix):
    out = f"it{suffix}"
    line = ("analyze", "table", "-o", out, "--against", "adr-table1")
    first = cli(*line, "-q", stdin=attacked)
    assert (first.code, first.record["path"], first.record["matched"]) == (0, out, 0)
    assert len(first.record["published"]) == 24
    assert "digits here; cifar10" in first.record["protocol_differences"][0]
    before = Path(out).read_bytes()
    assert b"24 published lines of other data, nets or radii are not shown" in before
    assert b"48.81" not in before
    again = cli(*line, stdin=attacked)
    assert (again.code, again.record) == (0, first.record)
    assert f"{out}: already done" in again.err
    other = cli("analyze", "table", "-o", out, "-q", stdin=attacked.splitlines()[0])
    assert (other.code, other.out) == (4, "")
    assert Path(out).read_bytes() == before
    other = cli("analyze", "table", "-o", out, "-q", "--overwrite", stdin=attacked)
    assert other.code == 0
    assert b"published" not in Path(out).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_any_name_on_the_page(cli, attacked):
    name = "<script>alert(1)<&|script>"
    folder = Path(name)
    folder.mkdir()
    source = Path(json.loads(attacked.splitlines()[0])["path"])
    (folder / source.name).write_bytes(source.read_bytes())
    assert cli("analyze", "table", folder / source.name, "-o", "evil.html").code == 0
    text = Path("evil.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count(f"<script>{page.SCRIPT}</script>") == 1
    assert "&lt;script&gt;alert(1)&lt;&amp;|script&gt;" in text


def test_the_picture_of_a_table(cli, attacked):
    assert cli("analyze", "table", "--plot", "it.png", "-q", stdin=attacked).code == 0
    assert Path("it.png").read_bytes().startswith(b"\x89PNG")
    source = hdf5.read_logits(json.loads(attacked.splitlines()[0])["path"])
    config = {**source.info["config"], "attack": "none"}
    info = {**source.info, "config": config, "attacks": []}
    outside = Logits(source.index, torch.full_like(source.labels, -1), source.clean, info)
    hdf5.write_logits(Path("outside.h5"), outside)
    found = cli("analyze", "table", "outside.h5", "--plot", "none.png", "-o", "out.html", "-q")
    assert (found.code, found.out, len(found.err.splitlines())) == (3, "", 1)
    assert "hold nothing that could be drawn" in found.err
    assert "reliability" not in Path("out.html").read_text(encoding="utf-8")


def test_cost_as_a_document(cli, runs):
    """Seconds of other data and nets are in the record alone; why none stand beside is told."""
    outcome = cli("analyze", "cost", "-o", "c.html", "--against", "adr-table6", stdin=runs)
    assert (outcome.code, outcome.record["matched"]) == (0, 0)
    assert 5127 in [line["published"] for line in outcome.record["published"]]
    for told in (outcome.err, Path("c.html").read_text(encoding="utf-8")):
        assert "nothing here matches a published line" in told
        assert "5127" not in told

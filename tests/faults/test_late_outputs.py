"""Rows 59 and 60: late failures, and odd places."""

from __future__ import annotations

import os
import shutil

import pytest

from advkit import registry
from advkit.artifacts.result import Result
from advkit.errors import StorageError
from tests.faults._lines import EVERY
from tests.faults._outputs import ANALYSES, full, mostly, plainly, source
from tests.faults._pairs import STAGES
from tests.faults._runs import litter, refused

# 59: failures of drawing and of late outputs


def odd(*_, **__):
    raise RuntimeError("no such font")


def full_disk(*_, **__):
    raise StorageError("cannot write it: the disk is full")


@pytest.mark.parametrize("part", ANALYSES.values(), ids=lambda part: part.name)
@pytest.mark.parametrize(("fails", "code"), [(odd, 1), (full_disk, 6)], ids=["odd", "full"])
@pytest.mark.parametrize("how", ["-o", "--plot"])
def test_row_59_no_record_where_a_late_output_fails(
    cli, part, fails, code, how, logits, labels, teacher, tmp_path, monkeypatch
):
    """What an analysis does before is not the question: it gives a plain result."""
    if how == "--plot" and not part.constants.get("PICTURE", True):
        pytest.skip("it has no picture")
    plain = Result({"ece": 0.5}, ("x",), ((1.0,),), panels=(lambda axes: axes.plot([1]),))
    monkeypatch.setattr(registry.load("analyses", part.name), "analyze", lambda *_, **__: plain)
    place = "analyses.drawing.plot.save" if how == "--plot" else "artifacts.analysis.write"
    monkeypatch.setattr(f"advkit.{place}", fails)
    given = source(part, logits, labels, teacher)
    name = tmp_path / ("x.png" if how == "--plot" else "x.json")
    files = [given, given] if part.constants.get("COMPARES") or how == "--plot" else [given]
    outcome = cli("analyze", part.name, *files, how, name, "-q", "--json")
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fails", [odd, full_disk])
def test_row_59_what_went_before_is_not_printed_either(cli, fails, logits, tmp_path, monkeypatch):
    """The table is in place, the picture is not: the same command again finds the one."""
    out, plot = tmp_path / "x.json", tmp_path / "x.png"
    words = ["analyze", "calibration", logits, "-o", out, "--plot", plot, "-q", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr("advkit.analyses.drawing.plot.save", fails)
        assert cli(*words).out == ""
    assert os.listdir(tmp_path) == ["x.json"]
    again = cli(*words)
    assert again.code == 0
    assert again.record["path"].endswith("x.json")
    assert plot.exists()


def test_row_59_an_input_that_fails_keeps_the_others_picture_and_records(cli, logits, tmp_path):
    (tmp_path / "bad.h5").write_text("none")
    plot = tmp_path / "x.png"
    files = [logits, tmp_path / "bad.h5", logits]
    done = cli("analyze", "calibration", *files, "--plot", plot, "-q", "--json")
    assert (done.code, len(done.records), plot.exists()) == (3, 2, True)


LATE = {
    "train": "advkit.training.run_folder.RunFolder.rows",
    "attack": "advkit.artifacts.hdf5.write_logits",
    "softlabels": "advkit.artifacts.soft_labels.write",
    "search": "advkit.artifacts.analysis.write",
}


@pytest.mark.parametrize("name", LATE)
def test_row_59_no_record_where_a_stages_last_file_fails(cli, stages, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, output = stages(name)
    monkeypatch.setattr(LATE[name], full_disk)
    outcome = cli(*command, "-o", output)
    assert (outcome.code, outcome.out) == (6, "")
    assert "the disk is full" in outcome.err.splitlines()[-1]
    assert litter(tmp_path) == []


# 60: odd places


@mostly("train", "attack")
def test_row_60_the_root_of_the_file_system(server, stages, tmp_path, name):
    """A folder with no name of its own; a search begins in any folder that it may write."""
    if name == "search" and os.access("/", os.W_OK):
        pytest.skip("root's own folder would take it")
    outcome = plainly(server, stages(name)[0], tmp_path, "-o", "/")
    refused(outcome, 2, "/")
    assert not os.path.lexists("/.lock")


@pytest.mark.parametrize("name", ["attack", *(pytest.param(n, marks=full) for n in STAGES[2:4])])
def test_row_60_a_folder_that_may_be_written_but_not_listed(server, stages, tmp_path, name):
    command, output = stages(name)
    (tmp_path / "p").mkdir()
    (tmp_path / "p").chmod(0o300)
    first = plainly(server, command, tmp_path, "-o", f"p/{output}")
    assert first.code == 0, first.err
    again = plainly(server, command, tmp_path, "-o", f"p/{output}")
    assert (again.code, again.record["digest"]) == (0, first.record["digest"])


def test_row_60_a_run_folder_that_may_not_be_listed(server, stages, tmp_path):
    """Nobody can say whether it is empty."""
    command, _ = stages("train")
    (tmp_path / "p").mkdir()
    (tmp_path / "p").chmod(0o300)
    refused(plainly(server, command, tmp_path, "-o", "p"), 6, "p: cannot be listed")


@mostly("train", "analyze")
def test_row_60_a_name_that_is_too_long(server, stages, tmp_path, name):
    command, output = stages(name)
    outcome = server.run(*command, "-o", "x" * 300 + output, cwd=tmp_path)
    refused(outcome, 2, "more than 200 bytes")


@pytest.mark.parametrize("name", ["$x^{2$", "a$b", "$$"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_row_60_a_dollar_in_the_name_of_a_run(cli, logits, tmp_path, name, suffix):
    (tmp_path / name).mkdir()
    shutil.copy(logits, tmp_path / name / "best.h5")
    plot = tmp_path / f"x.{suffix}"
    done = cli("analyze", "calibration", tmp_path / name / "best.h5", "--plot", plot, "-q")
    assert done.code == 0, done.err
    assert plot.exists()


TAKING = [(words, command) for words, command in EVERY if command.argument]


@pytest.mark.parametrize("words", [words for words, _ in TAKING], ids=" ".join)
@pytest.mark.parametrize("place", ["/", ".", "..", "", " ", "x/.."])
def test_row_60_an_input_that_has_no_name(cli, words, place, tmp_path, monkeypatch):
    """Its output would lie beside it, under a name made of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    more = {"analyze": ["-o", "a.json"], "export": ["--to", "hf"]}
    outcome = cli(*words, place, *more.get(words[0], []))
    assert outcome.code in (0, 2, 3), outcome.err
    assert len(outcome.err.splitlines()) <= 1


@pytest.mark.parametrize("place", ["/", ".", ".."])
def test_row_60_an_exports_place_that_has_no_name(cli, place, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = cli("export", teacher / "best.safetensors", "--to", "state-dict", "-o", place)
    assert outcome.code in (2, 4, 6), outcome.err
    assert len(outcome.err.splitlines()) == 1

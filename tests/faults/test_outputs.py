"""Rows 55 to 58: one output under several names, links, inputs, shared folders."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from advkit.cli.app import commands, groups
from tests.conftest import TINY
from tests.faults._outputs import ANALYSES, full, mostly, plainly, source
from tests.faults._pairs import started
from tests.faults._runs import contents, digest, litter, refused

NOBODY = 65534
"""Another user."""


# 55: one lock for one output


@mostly("attack", "analyze")
def test_row_55_two_names_of_one_output(server, stages, tmp_path, name):
    """One works, the other is told who does; the files are those of one that was alone."""
    command, output = stages(name)
    alone = server.run(*command, "-o", output, cwd=tmp_path)
    assert alone.code == 0, alone.err
    expected = contents(tmp_path)
    both = started(server, command, output, tmp_path / "both", random.Random(name))
    loser, winner = sorted(both, key=lambda outcome: -outcome.code)
    refused(loser, 7, output, "is being written by pid ", "wait for it")
    assert winner.code == 0, winner.err
    assert winner.record["digest"] == alone.record["digest"]
    assert contents(tmp_path / "both" / "real") == expected
    assert litter(tmp_path) == []


def test_row_55_a_linked_run_folder_is_one_folder(server, tmp_path):
    """`ln -s real alias`: both would train, and the folder would hold files of either."""
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    slow = ["train", *TINY, "--epochs", "1000"]
    first = server.start(
        *slow, "--method", "natural", "-o", "real", cwd=tmp_path, signals=[["step", 1, "SIGSTOP"]]
    )
    try:
        while not (tmp_path / "real" / "config.toml").exists():
            assert first.wait(0.02) is None
        second = server.run(*slow, "--method", "at", "-o", "alias", cwd=tmp_path)
        refused(second, 7, f"alias is being written by pid {first.pid}")
    finally:
        first.send(signal.SIGKILL)
        first.wait()


# 56: nothing through a link

LOCKS = {
    "train": ("run", "run/.lock"),
    "search": ("run", "run/.lock"),
    "attack": ("out.h5", ".out.h5.lock"),
    "softlabels": ("out.h5", ".out.h5.lock"),
    "analyze": ("out.json", ".out.json.lock"),
}


@mostly("train", "attack")
@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_row_56_a_link_in_the_place_of_a_lock(server, stages, tmp_path, name, there):
    command, output = stages(name)
    lock = tmp_path / LOCKS[name][1]
    lock.parent.mkdir(exist_ok=True)
    keep = tmp_path / "keep.txt"
    if there:
        keep.write_text("mine")
    lock.symlink_to(keep)
    outcome = server.run(*command, "-o", output, cwd=tmp_path)
    refused(outcome, 6, output, "a link is in the place of its lock", lock.name, "remove it")
    assert keep.exists() == there
    assert not there or keep.read_text() == "mine"
    assert lock.is_symlink()


@pytest.mark.parametrize("name", ["attack", "analyze", pytest.param("softlabels", marks=full)])
@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_row_56_a_link_in_the_place_of_an_output(server, stages, tmp_path, name, more):
    command, output = stages(name)
    (tmp_path / output).symlink_to("nowhere")
    outcome = server.run(*command, "-o", output, *more, cwd=tmp_path)
    refused(outcome, 6, output, "a link is in its place")
    assert os.listdir(tmp_path) == [output]


def test_row_56_a_finished_output_is_found_through_a_link(server, stages, tmp_path):
    """To read it changes nothing."""
    command, output = stages("attack")
    assert server.run(*command, "-o", "whole.h5", cwd=tmp_path).code == 0
    (tmp_path / output).symlink_to("whole.h5")
    again = server.run(*command, "-o", output, cwd=tmp_path)
    assert (again.code, again.record["path"]) == (0, output)
    over = server.run(*command, "-o", output, "--overwrite", cwd=tmp_path)
    refused(over, 6, "a link is in its place")


@pytest.mark.parametrize("file", ["config.toml", "metrics.jsonl", "best.safetensors"])
def test_row_56_a_link_among_the_files_of_a_run(server, stages, tmp_path, file):
    command, output = stages("train")
    (tmp_path / "run").mkdir()
    (tmp_path / "keep").write_text("mine")
    planted = tmp_path / "run" / file
    # The configuration comes first: a folder without one that is not empty is no run's.
    once = server.run(*command, "-o", output, cwd=tmp_path, kill=["step", 1])
    assert once.code == -9
    planted.unlink(missing_ok=True)
    planted.symlink_to("../keep")
    outcome = server.run(*command, "--resume", "-o", output, cwd=tmp_path)
    assert outcome.code in (3, 4, 6), outcome.err
    assert (tmp_path / "keep").read_text() == "mine"


# 57: nothing over an input


@pytest.mark.parametrize("part", ANALYSES.values(), ids=lambda part: part.name)
@pytest.mark.parametrize("how", ["-o", "--plot"])
@pytest.mark.parametrize("stdin", [False, True], ids=["named", "piped"])
def test_row_57_no_analysis_writes_over_its_input(
    cli, part, how, stdin, logits, labels, teacher, tmp_path, monkeypatch
):
    """Neither by its name nor by a link's; not the first input, and not one that comes later."""
    if how == "--plot" and not part.constants.get("PICTURE", True):
        pytest.skip("it has no picture")
    monkeypatch.chdir(tmp_path)
    name = "x.h5" if how == "-o" else "x.png"
    (tmp_path / "in").mkdir()
    shutil.copy(source(part, logits, labels, teacher), tmp_path / "in" / name)
    (tmp_path / "alias").symlink_to("in")
    before = digest(tmp_path / "in" / name)
    files = [f"in/{name}"] if how == "-o" else [f"in/{name}", f"in/{name}"]
    given = {"stdin": "".join(f"{file}\n" for file in files)} if stdin else {}
    named = [] if stdin else files
    for out in (f"in/{name}", f"alias/{name}"):
        outcome = cli("analyze", part.name, *named, how, out, "--overwrite", "-q", **given)
        refused(outcome, 2, out, "is one of the inputs")
    assert digest(tmp_path / "in" / name) == before
    assert os.listdir(tmp_path / "in") == [name]


OVER = {
    "attack": "attack in.h5 --attack fgsm -o in.h5 --overwrite",
    "attack, surrogate": "attack t.safetensors --attack transfer --surrogate in.h5 -o in.h5",
    "attack --merge": "attack --merge in.h5 -o in.h5 --overwrite",
    "softlabels": "softlabels in.h5 -o in.h5 --overwrite",
    "softlabels --merge": "softlabels --merge in.h5 -o in.h5 --overwrite",
    "train": "train --method ltd --data digits --soft-labels run/best.x.h5 --temperature 2 "
    "-o run --overwrite",
    "train, teacher": "train --method ltd --data digits --teacher run/best.safetensors "
    "--temperature 2 -o run --overwrite",
    "train, config": "train --data digits --config run/config.toml -o run --overwrite",
    "pretrain-teacher": "pretrain-teacher --data digits --config run/config.toml -o run "
    "--overwrite",
    "search temperature": "search temperature run/search.json --data digits -o run",
    "search adr": "search adr --data digits --extra-data run/search.json --trials 1 -o run",
    "search adr, config": "search adr --data digits --config run/journal.log --trials 1 -o run",
    "import": "import t.safetensors --arch small-cnn --data digits -o t.safetensors",
    "export": "export t.safetensors --to state-dict -o t.safetensors --overwrite",
    "bench": "bench --data digits --arch small-cnn --config c.json -o c.json --overwrite",
}
WITHOUT = {"inspect", "presets", "list", "info", "fetch", "copy", "check", "new"}
"""Commands that have no output, or write anew what the package holds."""


@pytest.mark.parametrize("what", OVER)
def test_row_57_no_stage_writes_over_its_input(cli, what, teacher, labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = teacher / "best.safetensors"
    shutil.copy(labels if "merge" in what else best, "in.h5")
    shutil.copy(best, "t.safetensors")
    shutil.copytree(teacher, "run")
    shutil.copy(labels, "run/best.x.h5")
    shutil.copy(labels, "run/search.json")
    Path("run/journal.log").write_text("epochs = 1\n", encoding="utf-8")
    Path("c.json").write_text("epochs = 1\n", encoding="utf-8")
    before = contents(tmp_path)
    outcome = cli(*OVER[what].split())
    refused(outcome, 2, "is one of the inputs")
    assert contents(tmp_path) == before


def test_row_57_every_command_with_an_output_is_tried():
    every = [*commands(), *(each for name, (_, group) in groups().items() if name != "analyze"
                          for each in group)]  # fmt: skip
    tried = {what.split(",")[0].removesuffix(" --merge").removeprefix("search ") for what in OVER}
    assert {each.name for each in every} - WITHOUT == tried
    named = {option.name for each in every if each.name in WITHOUT for option in each.options}
    assert not named & {"out", "plot"}


# 58: shared folders


@mostly("train", "attack")
def test_row_58_what_is_done_is_found_in_a_read_only_folder(server, stages, tmp_path, name):
    command, output = stages(name)
    (tmp_path / "p").mkdir()
    first = plainly(server, command, tmp_path, "-o", f"p/{output}")
    assert first.code == 0, first.err
    for path in [*(tmp_path / "p").rglob("*"), tmp_path / "p"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    again = plainly(server, command, tmp_path, "-o", f"p/{output}")
    assert again.code == 0, again.err
    assert again.record["digest"] == first.record["digest"]
    assert litter(tmp_path) == []


@pytest.mark.parametrize("name", ["train", pytest.param("search", marks=full)])
def test_row_58_a_folder_that_may_be_written_in_one_that_may_not(server, stages, tmp_path, name):
    command, output = stages(name)
    (tmp_path / "p" / output).mkdir(parents=True)
    (tmp_path / "p").chmod(0o555)
    outcome = plainly(server, command, tmp_path, "-o", f"p/{output}")
    assert outcome.code == 0, outcome.err
    assert litter(tmp_path) == []


@pytest.mark.parametrize("mode", [0o444, 0o000])
@pytest.mark.parametrize("name", ["train", "attack", pytest.param("analyze", marks=full)])
def test_row_58_a_lock_that_another_user_left(server, stages, tmp_path, name, mode):
    """What may be read is seen to be left and is taken over; what may not, may be held."""
    command, output = stages(name)
    place = tmp_path / "p"
    lock = place / LOCKS[name][1]
    (place / LOCKS[name][1]).parent.mkdir(parents=True)
    lock.write_text("pid 4194305 on nowhere")
    lock.chmod(mode)
    outcome = plainly(server, command, tmp_path, "-o", f"p/{output}")
    if mode:
        assert outcome.code == 0, outcome.err
        assert litter(tmp_path) == []
    else:
        refused(outcome, 7, output, "belongs to", "wait for them, or have them remove the lock")


@pytest.mark.skipif(os.geteuid() != 0, reason="a lock that is another's needs root")
def test_row_58_a_lock_that_another_user_left_for_good(server, stages, tmp_path):
    """In a folder like /tmp nobody removes what is another's."""
    command, output = stages("attack")
    place = tmp_path / "p"
    place.mkdir()
    lock = place / ".out.h5.lock"
    lock.write_text("pid 4194305 on nowhere")
    for path, mode in ((lock, 0o644), (place, 0o1777)):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(mode)
    outcome = plainly(server, command, tmp_path, "-o", f"p/{output}")
    refused(outcome, 6, "its lock p/.out.h5.lock was left by nobody", "have them remove it")
    assert lock.exists()

"""Sharded attacks and labels: by hand, in processes of torchrun, and merged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
import torch

from advkit import data
from advkit.__main__ import main
from advkit.artifacts import hdf5, sharing
from advkit.attacks.upstream import autoattack
from advkit.images.image_set import pixels
from tests import planted
from tests.conftest import SEED, THREADS

BEST = "run/best.safetensors"
FGSM = ["--attack", "fgsm", "--eps", "0.1"]
FIELDS = ("index", "labels", "clean", "adversarial", "norm", "broken_by", "images")
WHOLE = "run/best.fgsm-linf-0.1-n7.h5"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A net after an epoch: its users compare files and records of one net, whatever it says."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["--data", "digits", "--epochs", "1", "--width", "8", "--seed", str(SEED)]
    assert main(["train", "--method", "natural", *words, "-o", str(folder), "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A net whose verdicts are known, with the same bits in batches of any size."""
    return planted.plant(tmp_path_factory.mktemp("known"))


@pytest.fixture(autouse=True)
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def ranked(cli, monkeypatch):
    """Run a command line as one process of torchrun."""

    def run(rank, world, *words):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        return cli(*words)

    return run


def attack(cli, *words, net=BEST):
    """Run quietly and return the record."""
    done = cli("attack", net, *words, "-q")
    assert (done.code, done.err) == (0, ""), done.err
    return done.record


def in_shards(cli, count, *words, net=BEST):
    """Run every shard, the last one first; return their records in their order."""
    order = range(count, 0, -1)
    found = [attack(cli, *words, "--shard", f"{number}/{count}", net=net) for number in order]
    return found[::-1]


def refused(outcome, code, *words):
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    (line,) = outcome.err.splitlines()
    assert not [word for word in words if word not in line], line


def same(one, other):
    """Whether two logits files hold the same arrays and descriptions."""
    a, b = hdf5.read_logits(one), hdf5.read_logits(other)
    tensors = [(getattr(a, name), getattr(b, name)) for name in FIELDS]
    assert all((x is None and y is None) or torch.equal(x, y) for x, y in tensors)
    return a.info == b.info


def lines(records):
    return "".join(json.dumps(each) + "\n" for each in records)


@pytest.fixture
def known_here(known, place):
    """The known net's run in this test's folder, so that nothing is written beside the original."""
    shutil.copytree(known.parent, place / "known")
    return "known/best.safetensors"


@pytest.mark.parametrize(
    "words", [["--attack", "none"], [*FGSM, "--save-images"]], ids=["none", "fgsm"]
)
def test_merged_is_whole(cli, words, known_here):
    """Seven examples in three shards: 3, 2 and 2 of them, every third each."""
    parts = in_shards(cli, 3, *words, "--limit", "7", net=known_here)
    assert [each["n"] for each in parts] == [3, 2, 2]
    assert [each["shard"] for each in parts] == [[1, 3], [2, 3], [3, 3]]
    indices = [hdf5.read_logits(each["path"]).index.tolist() for each in parts]
    joined = cli("attack", "--merge", "-q", stdin=lines(parts)).record
    merged = hdf5.read_logits(joined["path"])
    assert [merged.index[k::3].tolist() for k in range(3)] == indices
    expected = attack(cli, *words, "--limit", "7", "-o", "whole.h5", net=known_here)
    assert same(joined["path"], "whole.h5")
    assert Path(joined["path"]).read_bytes() == Path("whole.h5").read_bytes()
    own = {"path", "seconds"}
    assert {k: v for k, v in joined.items() if k not in own} == {
        k: v for k, v in expected.items() if k not in own
    }
    assert joined["path"] == parts[0]["path"].replace(".shard-1-of-3", "")


def test_accuracies_are_counts(cli, known_here):
    """What the merged record says is what the shards' verdicts say, and what is known."""
    words = ["--attack", "fgsm", "--save-images"]
    parts = in_shards(cli, 3, *words, net=known_here)
    joined = cli("attack", "--merge", *(each["path"] for each in parts), "-q").record
    level, labels = planted.levels()
    right, standing = planted.verdicts(level, labels)
    clean, robust, n = int(right.sum()), int(standing.sum()), planted.COUNT
    assert 0 < robust < clean < n, "what is planted tells the three apart"
    count = 0
    for each in parts:
        with h5py.File(each["path"]) as file:
            count += int((file["/adversarial/broken_by"][()] == -1).sum())
    assert count == robust
    assert joined["robust_accuracy"] == joined["accuracy_after"]["fgsm"] == robust / n
    assert joined["clean_accuracy"] == clean / n
    assert joined["n"] == n
    merged = hdf5.read_logits(joined["path"])
    assert torch.equal(merged.broken_by == -1, torch.tensor(standing)[merged.index])
    moved = merged.images.mean((1, 2, 3)).double() - torch.tensor(level)[merged.index] / 255
    assert bool((moved.abs() <= planted.EPS + 1e-6).all())


def test_a_shard_draws_starts_of_its_own(cli):
    """PGD's random starts: as good as one process's, and other ones in each shard."""
    words = ["--attack", "pgd", "--steps", "1", "--step-size", "0.0001", "--eps", "0.1"]
    parts = in_shards(cli, 2, *words, "--limit", "20", "--save-images")
    images = data.load("digits", "test").images
    moved = []
    for each in parts:
        found = hdf5.read_logits(each["path"])
        assert bool((found.norm <= 0.1 + 1e-6).all())
        moved.append(found.images - pixels(images[found.index], "cpu"))
    inside = (moved[0].abs() > 1e-3) & (moved[1].abs() > 1e-3)
    assert not torch.allclose(moved[0][inside], moved[1][inside], atol=1e-2)


def test_autoattack(cli, monkeypatch, known_here):
    """Batches, and so Square's and the restarts' draws, differ: no verdict does."""
    original = autoattack.AutoAttack._set_version

    def lighter(suite, version="standard"):
        original(suite, version)
        suite.fab.n_iter, suite.square.n_queries = 5, 60
        suite.apgd.n_iter = suite.apgd_targeted.n_iter = 8

    monkeypatch.setattr(autoattack.AutoAttack, "_set_version", lighter)
    words = ["--autoattack", "--batch-size", "16"]
    parts = in_shards(cli, 3, *words, net=known_here)
    joined = cli("attack", "--merge", "-q", "-o", "m.h5", stdin=lines(parts)).record
    attack(cli, *words, "-o", "whole.h5", net=known_here)
    merged, whole = (hdf5.read_logits(each) for each in ("m.h5", "whole.h5"))
    assert merged.info == {**whole.info, "digest": joined["digest"]}
    assert torch.equal(merged.index, whole.index)
    assert torch.equal(merged.clean, whole.clean)
    _, standing = planted.verdicts(*planted.levels())
    for each in (merged, whole):
        assert torch.equal(each.broken_by == -1, torch.tensor(standing)[each.index])


def test_fail_under_judges_the_whole(cli):
    refused(cli("attack", BEST, *FGSM, "--shard", "1/2", "--fail-under", "0.5"), 2, "--merge")
    parts = in_shards(cli, 2, *FGSM, "--limit", "20")
    judged = cli("attack", "--merge", "--fail-under", "1", "-q", stdin=lines(parts))
    assert judged.code == 8
    assert judged.record["n"] == 20
    refused(cli("attack", "--merge", "--fail-under", "2", stdin=lines(parts)), 2, "--fail-under")
    plain = in_shards(cli, 2, "--attack", "none", "--limit", "20")
    judged = cli("attack", "--merge", "--fail-under", "1", stdin=lines(plain))
    refused(judged, 2, "--fail-under", "none")


def test_done_already(cli):
    words = [*FGSM, "--limit", "7"]
    parts = in_shards(cli, 2, *words)
    again = cli("attack", BEST, *words, "--shard", "2/2")
    assert "already done" in again.err
    assert again.record == {**parts[1], "seconds": 0}
    files = [each["path"] for each in parts]
    first = cli("attack", "--merge", *files)
    second = cli("attack", "--merge", *files)
    assert "already done" in second.err
    assert {**second.record, "seconds": 0} == {**first.record, "seconds": 0}
    assert "already done" in cli("attack", BEST, *words).err, "the whole one is there"
    attack(cli, *words, "--batch-size", "3", "--overwrite")
    refused(cli("attack", "--merge", *files), 4, "batch_size: 3 -> 250", "--overwrite")
    assert (
        cli("attack", "--merge", *files, "--overwrite").record["digest"] == (first.record["digest"])
    )


def test_bare_paths_find_their_checkpoint(cli):
    parts = in_shards(cli, 2, *FGSM, "--limit", "7")
    stdin = "".join(f"{each['path']}\n" for each in parts)
    assert cli("attack", "--merge", "-q", stdin=stdin).record["checkpoint"] == BEST
    os.mkdir("else")
    moved = [shutil.copy(each["path"], "else") for each in parts]
    alone = cli("attack", "--merge", *moved, "-q").record
    assert (alone["checkpoint"], alone["run"], alone["n"]) == (None, "else", 7)


def test_wrong_merges(cli):
    parts = [each["path"] for each in in_shards(cli, 3, *FGSM, "--limit", "7")]
    words = ["--attack", "fgsm", "--limit", "7", "--shard", "2/3"]
    eps = attack(cli, *words, "--eps", "0.2")["path"]
    final = cli("attack", "run/final.safetensors", *FGSM, *words[2:], "-q").record["path"]
    whole = attack(cli, *FGSM, "--limit", "7", "-o", "whole.h5")["path"]
    merge = ["attack", "--merge", "-o", "m.h5"]
    refused(cli(*merge, *parts[:2]), 4, "3/3", "missing")
    refused(cli(*merge, *parts, parts[1]), 4, "2/3", "twice")
    refused(cli(*merge, parts[0], eps, parts[2]), 4, eps, "eps: 0.1 -> 0.2")
    refused(cli(*merge, parts[0], final, parts[2]), 4, final, "checkpoint:")
    refused(cli(*merge, *parts, whole), 4, "whole.h5 is no shard")
    refused(cli(*merge, *parts, BEST), 3, BEST)
    refused(cli(*merge, *parts, "gone.h5"), 3, "gone.h5")
    refused(cli(*merge, stdin=""), 3, "stdin")
    assert not Path("m.h5").exists()
    os.rename(parts[0], "renamed.h5")
    refused(cli("attack", "--merge", "renamed.h5", *parts[1:]), 2, "-o")
    assert cli(*merge, "renamed.h5", *parts[1:], "-q").record["n"] == 7


def test_wrong_usage(cli, monkeypatch):
    refused(cli("attack", BEST, *FGSM, "--shard", "4/3"), 2, "--shard 4/3")
    refused(cli("attack", BEST, *FGSM, "--shard", "8/8", "--limit", "7"), 2, "only 7 examples")
    refused(cli("attack", "--merge", "a.h5", "--limit", "7"), 2, "--limit", "--merge")
    refused(cli("attack", "--merge", "a.h5", "--shard", "1/2"), 2, "--shard", "--merge")
    refused(cli("softlabels", BEST, "--shard", "4/4"), 2, "only 3 batches", "--batch-size")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(cli("attack", *FGSM, stdin=BEST), 2, "stdin")
    refused(cli("attack", "--merge", "a.h5"), 2, "--merge", "torchrun")
    assert not list(Path("run").glob("*.h5*"))


def test_as_processes_of_torchrun(cli, ranked):
    """Rank 1 first: it does its share without a word; rank 0 merges and tidies up."""
    words = ["attack", BEST, *FGSM, "--limit", "7"]
    quiet = ranked(1, 2, *words)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    done = ranked(0, 2, *words)
    assert done.record["path"] == WHOLE
    assert "shard" not in done.record
    assert [each.name for each in Path("run").glob("*.h5*")] == [Path(WHOLE).name]
    again = [ranked(rank, 2, *words) for rank in (1, 0)]
    assert [each.code for each in again] == [0, 0]
    assert again[0].out + again[0].err == ""
    assert "already done" in again[1].err
    assert again[1].record == {**done.record, "seconds": 0}
    refused(ranked(0, 2, *words, "--batch-size", "9", "-o", WHOLE), 4, "batch_size")
    assert ranked(1, 2, *words, "--batch-size", "9", "--overwrite").out == ""
    assert ranked(0, 2, *words, "--batch-size", "9", "--overwrite").record["n"] == 7
    assert hdf5.read_logits(WHOLE).info["config"]["batch_size"] == 9
    assert len(list(Path("run").glob("*.h5*"))) == 1


def test_what_another_call_left(cli, ranked, monkeypatch):
    """A shard of other work where rank 1's belongs: refused, or with --overwrite waited out."""
    words = ["attack", BEST, *FGSM, "--limit", "7"]
    assert ranked(1, 2, *words, "-q").code == 0
    other = [*words, "--batch-size", "9", "-q"]
    refused(ranked(0, 2, *other), 4, "shard-2-of-2", "batch_size: 9 -> 250")
    naps = []

    def nap(seconds):
        naps.append(seconds)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        assert ranked(1, 2, *other, "--overwrite").code == 0
        monkeypatch.setenv("RANK", "0")

    monkeypatch.setattr(time, "sleep", nap)
    assert ranked(0, 2, *other, "--overwrite").code == 0
    assert naps == [sharing.EVERY]
    assert hdf5.read_logits(WHOLE).info["config"]["batch_size"] == 9


def test_the_parent_is_gone(ranked, monkeypatch):
    parents = iter([100, 100, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    refused(ranked(0, 2, "attack", BEST, *FGSM, "--limit", "7", "-q"), 129, "torchrun is gone")
    assert len(naps) == 1
    assert Path("run/best.fgsm-linf-0.1-n7.shard-1-of-2.h5").exists()


def torchrun(*words):
    """Run the command line in two processes of torchrun."""
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "advkit"]
    quiet = {name: value for name, value in os.environ.items() if name not in ("RANK",)}
    return subprocess.run(
        [*line, *words], env={**quiet, "OMP_NUM_THREADS": THREADS},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_two_processes_at_once(cli, server, known_here, place):
    """As torchrun starts them: the first waits for the other and merges."""
    words = [*FGSM, "--limit", "25", "--save-images"]
    running = [
        server.start("attack", known_here, *words, "-q", cwd=place,
                     env={"RANK": str(rank), "WORLD_SIZE": "2"})
        for rank in range(2)
    ]  # fmt: skip
    first, second = (each.end() for each in running)
    assert (first.code, second.code, second.out) == (0, 0, ""), (first, second)
    attack(cli, *words, "-o", "whole.h5", net=known_here)
    assert same(first.record["path"], "whole.h5")
    assert len(list(Path("known").glob("*.h5*"))) == 1


@pytest.mark.slow  # what torchrun adds to the two processes above is its own code
def test_torchrun(cli, known_here):
    words = [*FGSM, "--limit", "25", "--save-images"]
    done = torchrun("attack", known_here, *words, "-q")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    attack(cli, *words, "-o", "whole.h5", net=known_here)
    assert same(json.loads(line)["path"], "whole.h5")
    assert len(list(Path("known").glob("*.h5*"))) == 1


@pytest.mark.slow
def test_torchrun_autoattack(cli, known_here):
    words = ["--autoattack", "--limit", "24", "-q"]
    done = torchrun("attack", known_here, *words)
    assert done.returncode == 0, done.stderr
    merged = hdf5.read_logits(json.loads(done.stdout)["path"])
    _, standing = planted.verdicts(*planted.levels())
    assert torch.equal(merged.broken_by == -1, torch.tensor(standing)[merged.index])


@pytest.mark.slow
def test_torchrun_ends_when_a_process_fails():
    done = torchrun("attack", BEST, *FGSM, "--limit", "1", "-q")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "only 1 examples" in done.stderr


def test_a_killed_shard_goes_on(cli, server, place):
    words = [
        "attack", BEST, "--attack", "square", "--queries", "60", "--eps", "0.05",
        "--batch-size", "2", "--limit", "60", "--shard", "2/3", "--save-images",
    ]  # fmt: skip
    out = Path("run/best.square-linf-0.05-n60-queries-60.shard-2-of-3.h5")
    running = server.start(*words, "-q", cwd=place)
    unfinished = out.with_name(f"{out.name}.part")
    limit = time.monotonic() + 200
    while not unfinished.exists() and time.monotonic() < limit:
        time.sleep(0.01)
    running.send(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    assert unfinished.exists()
    assert not out.exists()
    gone_on = cli(*words)
    assert "going on" in gone_on.err
    assert not unfinished.exists()
    undisturbed = cli(*words, "-o", "other.h5", "-q").record
    assert gone_on.record["path"] == str(out)
    assert gone_on.record["digest"] == undisturbed["digest"]


LABELS = [
    pytest.param(["--views", "all", "--batch-size", "100"], id="all"),
    pytest.param(
        ["--views", "2", "--top-k", "3", "--dtype", "float16", "--batch-size", "100"], id="top-k"
    ),
    pytest.param(["--batch-size", "100"], id="plain"),
]


@pytest.mark.parametrize("words", LABELS)
def test_labels_merged_are_whole(cli, monkeypatch, words):
    """Parts of 200 examples and three shards, whose ends lie within parts."""
    from advkit.softlabels import labelling

    monkeypatch.setattr(labelling, "part_rows", lambda classes, views: 200)
    monkeypatch.setattr("advkit.softlabels.merge.part_rows", lambda classes, views: 200)
    whole = cli("softlabels", BEST, *words, "-o", "whole.h5", "-q").record
    parts = [
        cli("softlabels", BEST, *words, "--shard", f"{number}/3", "-q").record
        for number in (2, 3, 1)
    ]
    ends = []
    for each in sorted(parts, key=lambda each: each["shard"]):
        with h5py.File(each["path"]) as file:
            ends.append((int(file["/index"][0]), int(file["/index"][-1]) + 1))
    assert ends[0][0] == 0
    assert [end for _, end in ends[:-1]] == [start for start, _ in ends[1:]]
    assert all(end - start > 300 for start, end in ends)
    assert any(start % 200 for start, _ in ends)
    joined = cli("softlabels", "--merge", "-q", stdin=lines(parts)).record
    assert Path(joined["path"]).read_bytes() == Path("whole.h5").read_bytes()
    assert {**joined, "seconds": 0, "path": ""} == {**whole, "seconds": 0, "path": ""}
    again = cli("softlabels", "--merge", *(each["path"] for each in parts))
    assert "already done" in again.err
    assert again.record["digest"] == whole["digest"]


def test_wrong_merges_of_labels(cli):
    def label(*words):
        return cli("softlabels", BEST, *words, "-q").record["path"]

    one, two = (label("--shard", f"{number}/2") for number in (1, 2))
    other = label("--shard", "2/2", "--seed", "1", "--views", "2")
    finer = label("--shard", "2/2", "--batch-size", "100", "-o", "b.h5")
    whole = label("-o", "whole.h5")
    merge = ["softlabels", "--merge", "-o", "m.h5"]
    refused(cli(*merge, one), 4, "2/2", "missing")
    refused(cli(*merge, one, two, two), 4, "twice")
    refused(cli(*merge, one, other), 4, other, "views: 1 -> 2")
    refused(cli(*merge, one, finer), 4, finer, "batch_size")
    refused(cli(*merge, whole, two), 4, "whole.h5 is no shard")
    assert not Path("m.h5").exists()
    refused(cli("train", "--method", "ltd", "--soft-labels", one, "-o", "x"), 3, "shard 1/2")
    assert cli("inspect", one, "-q").code == 0


def test_labels_as_processes_of_torchrun(cli, ranked):
    words = ["softlabels", BEST, "--batch-size", "100"]
    quiet = ranked(1, 2, *words)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    done = ranked(0, 2, *words)
    assert [each.name for each in Path("run").glob("*.h5*")] == ["best.labels-views-1.h5"]
    again = ranked(0, 2, *words)
    assert again.record == {**done.record, "seconds": 0}
    assert ranked(1, 2, *words).out == ""
    for name in ("RANK", "WORLD_SIZE"):
        del os.environ[name]
    cli("softlabels", BEST, "--batch-size", "100", "-o", "whole.h5")
    assert Path(done.record["path"]).read_bytes() == Path("whole.h5").read_bytes()


@pytest.mark.slow
def test_torchrun_labels(cli):
    done = torchrun("softlabels", BEST, "--views", "all", "-q")
    assert done.returncode == 0, done.stderr
    cli("softlabels", BEST, "--views", "all", "-o", "whole.h5", "-q")
    record = json.loads(done.stdout)
    assert Path(record["path"]).read_bytes() == Path("whole.h5").read_bytes()

"""A run folder is one thing: what does not belong together is refused before the first step."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from advkit.artifacts import checkpoint
from advkit.runtime import reading, signals
from advkit.training.learner import Learner
from tests.conftest import SEED

EARLIER = Path(__file__).parents[1] / "earlier"
NET = [
    "--data",
    "digits",
    "--limit",
    60,
    "--epochs",
    3,
    "--batch-size",
    16,
    "--width",
    2,
    "--threads",
    1,
    "-q",
]
STEPS = 3
"""Steps an epoch: 60 examples, 12 of them set aside, batches of 16."""
RUNS = {"mine": ("natural", SEED), "other": ("natural", SEED + 1), "adr": ("adr-wa", SEED)}


def words(name):
    method, seed = RUNS[name]
    steps = [] if method == "natural" else ["--attack-steps", 1]
    return ["train", "--method", method, *steps, *NET, "--seed", seed]


def said(folder):
    """All bytes below a folder, but for the times in a log."""
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = path.read_bytes()
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            times = ("seconds", "images_per_second")
            files[path.name] = [{k: v for k, v in row.items() if k not in times} for row in rows]
    return files


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Make three runs, each whole and each stopped at the second step of its second epoch."""
    from advkit.__main__ import main

    folder = tmp_path_factory.mktemp("honest")
    for name in RUNS:
        argv = list(map(str, words(name)))
        assert main([*argv, "-o", str(folder / f"{name}-whole")]) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signals, "pending", stopping(folder / f"{name}-part"))
            assert main([*argv, "-o", str(folder / f"{name}-part")]) == 143
    return folder


def stopping(run):
    """Ask for a stop once a run has a best net and has gone two steps further."""
    looks = []

    def pending():
        if (run / "best.safetensors").exists():
            looks.append(1)
        return signal.SIGTERM if len(looks) == 4 else None  # two more are at the epoch's end

    return pending


@pytest.fixture
def run(honest, tmp_path):
    """Copy an honest run to be spoilt."""

    def copied(name):
        return shutil.copytree(honest / name, tmp_path / "run")

    return copied


@pytest.fixture
def steps(monkeypatch):
    """Count the steps that are learned."""
    count, learn = [], Learner.learn

    def counted(*arguments):
        count.append(1)
        return learn(*arguments)

    monkeypatch.setattr(Learner, "learn", counted)
    return count


def put(source, folder, name, to=None):
    shutil.copy(source / name, folder / (to or name))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


BOTH = {
    "config edited": (
        lambda r, o: edit(r / "config.toml", "lr = 0.1", "lr = 0.2"),
        4,
        "lr: 0.1 -> 0.2",
    ),
    "config of another run": (lambda r, o: put(o, r, "config.toml"), 4, "seed: "),
    "no config": (lambda r, o: (r / "config.toml").unlink(), 3, "config.toml: missing"),
    "no TOML": (lambda r, o: edit(r / "config.toml", "lr = ", "lr ? "), 3, "config.toml: not a"),
    "no configuration": (
        lambda r, o: edit(r / "config.toml", "epochs = 3", "epochs = -3"),
        3,
        "config.toml: no configuration of a run",
    ),
    "no option": (
        lambda r, o: edit(r / "config.toml", "momentum = ", "monentum = "),
        3,
        "config.toml: no configuration of a run",
    ),
    "best of another run": (lambda r, o: put(o, r, "best.safetensors"), 4, "best.safetensors"),
    "a flipped bit in best": (lambda r, o: flip(r / "best.safetensors"), 3, "best.safetensors"),
    "no best": (lambda r, o: (r / "best.safetensors").unlink(), 3, "best.safetensors: missing"),
    "rows that are none": (lambda r, o: edit(r / "metrics.jsonl", "{", "[{"), 3, "metrics.jsonl"),
    "rows without figures": (
        lambda r, o: (r / "metrics.jsonl").write_text("[]\n[]\n"),
        3,
        "in line 1",
    ),
    "a row of 9.0": (
        lambda r, o: edit(r / "metrics.jsonl", '"val_clean_accuracy": ', '"val_clean_accuracy": 9'),
        3,
        "not in 0..1",
    ),
    "a row edited": (
        lambda r, o: edit(r / "metrics.jsonl", '"n": 48', '"n": 47'),
        4,
        "metrics.jsonl",
    ),
    "log of another run": (lambda r, o: put(o, r, "metrics.jsonl"), 4, "metrics.jsonl"),
    "a weight average": (
        lambda r, o: put(o.parent / "adr-whole", r, "best-ema.safetensors"),
        4,
        "best-ema.safetensors",
    ),
}
PART = {
    "state of another run": (lambda r, o: put(o, r, "state.safetensors"), 4, "seed: "),
    "a flipped bit in the state": (
        lambda r, o: flip(r / "state.safetensors"),
        3,
        "state.safetensors",
    ),
    "no state": (lambda r, o: (r / "state.safetensors").unlink(), 3, "state.safetensors: missing"),
    "final of another run": (
        lambda r, o: put(o.parent / "other-whole", r, "final.safetensors"),
        4,
        "final.safetensors",
    ),
    "final of no run": (
        lambda r, o: put(r, r, "best.safetensors", "final.safetensors"),
        4,
        "final.safetensors",
    ),
    "another role": (
        lambda r, o: put(o.parent / "mine-whole", r, "final.safetensors", "best.safetensors"),
        4,
        "best.safetensors",
    ),
}
WHOLE = {
    "final of another run": (lambda r, o: put(o, r, "final.safetensors"), 4, "final.safetensors"),
    "a flipped bit in final": (lambda r, o: flip(r / "final.safetensors"), 3, "final.safetensors"),
    "no log": (lambda r, o: (r / "metrics.jsonl").unlink(), 3, "metrics.jsonl: missing"),
    "a row too few": (
        lambda r, o: (r / "metrics.jsonl").write_text(
            "".join((r / "metrics.jsonl").read_text().splitlines(True)[:2])
        ),
        4,
        "metrics.jsonl",
    ),
}
CASES = [(kind, name) for kind, more in (("part", PART), ("whole", WHOLE)) for name in BOTH | more]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_does_not_belong_together_is_refused_at_once(cli, honest, run, steps, kind, name):
    spoil, code, names = (BOTH | (PART if kind == "part" else WHOLE))[name]
    folder = run(f"mine-{kind}")
    spoil(folder, honest / f"other-{kind}")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = cli("train", "--resume", "-o", folder)
    assert (done.code, done.out, steps) == (code, "", []), done.err
    assert names in done.err
    assert "-o" in done.err or "--overwrite" in done.err or "--resume makes it" in done.err
    assert len(done.err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda log: None,
        lambda log: log.unlink(),
        lambda log: log.write_text(""),
        lambda log: log.write_text(log.read_text()[:-30]),
        lambda log: log.write_text(log.read_text()[:-1]),
        lambda log: log.write_text(log.read_text() + '{"epoch": 2, "torn'),
        lambda log: log.write_text(log.read_text() + '{"epoch": 2, "n": 48, "seconds": 1}\n'),
    ],
    ids=["nothing", "gone", "empty", "cut", "no line end", "torn", "a row too many"],
)
def test_a_log_is_made_from_the_state(cli, honest, run, spoil):
    folder = run("mine-part")
    log = (folder / "metrics.jsonl").read_text()
    assert log.count("\n") == 1
    spoil(folder / "metrics.jsonl")
    done = cli("train", "--resume", "-o", folder)
    assert done.code == 0, done.err
    assert (folder / "metrics.jsonl").read_text().startswith(log)
    assert said(folder) == said(honest / "mine-whole")


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_best_net_that_a_kill_kept_from_being_written_is_made_from_the_state(
    cli, honest, tmp_path, monkeypatch, name, epoch
):
    """Killed after the state of an epoch's end, before whatever else of that epoch."""

    class Killed(BaseException):
        pass

    write, folder = checkpoint.write, tmp_path / "run"

    def dying(path, tensors, description):
        digest = write(path, tensors, description)
        if path.name == "state.safetensors" and description["epoch"] == epoch:
            raise Killed
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", dying)
        with pytest.raises(Killed):
            cli(*words(name), "-o", folder)
    log = folder / "metrics.jsonl"
    assert len(log.read_text().splitlines() if log.exists() else []) == epoch - 1
    done = cli(*words(name), "--resume", "-o", folder)
    assert done.code == 0, done.err
    assert said(folder) == said(honest / f"{name}-whole")


@pytest.mark.parametrize("kind", ["part", "whole"])
@pytest.mark.parametrize("part", ["objectives/natural", "models/small_cnn", "labels/onehot"])
def test_an_edited_part_is_another_run(cli, run, steps, monkeypatch, kind, part):
    folder, read = run(f"mine-{kind}"), reading.content

    def edited(path, most):
        more = b"\nrate = 2\n" if str(path).endswith(f"{part}.py") else b""
        return read(path, most) + more

    monkeypatch.setattr(reading, "content", edited)
    for more in ([], ["--resume"])[kind == "part" :]:
        done = cli(*words("mine"), *more, "-o", folder)
        assert (done.code, done.out, steps) == (4, "", [])
        assert f"{part.replace('_', '-')} was edited" in done.err
    done = cli(*words("mine"), "--overwrite", "-o", folder)
    assert done.code == 0
    assert cli(*words("mine"), "-o", folder).code == 0


def test_comments_and_docstrings_change_no_run(cli, run, steps, monkeypatch):
    folder, read = run("mine-whole"), reading.content

    def edited(path, most):
        return read(path, most) + (b"# more\n" if path.name == "natural.py" else b"")

    monkeypatch.setattr(reading, "content", edited)
    done = cli(*words("mine"), "-o", folder)
    assert (done.code, steps) == (0, [])


def test_the_last_net_says_what_lies_beside_it(cli, run, honest):
    info = checkpoint.read_info(honest / "adr-whole" / "final.safetensors")
    digests = {
        role: checkpoint.read_info(honest / "adr-whole" / f"{role}.safetensors")["digest"]
        for role in ("best", "best-ema", "final-ema")
    }
    assert info["run"]["checkpoints"] == digests
    first = checkpoint.read_info(honest / "mine-whole" / "final.safetensors")["run"]["log"]
    # Times are in no digest: equal work gives equal bytes.
    folder = run("mine-whole")
    edit(folder / "metrics.jsonl", '"seconds": ', '"seconds": 5')
    done = cli("train", "--resume", "-o", folder)
    assert done.code == 0
    assert done.record["seconds"] >= 5
    assert first.startswith("sha256:")


def test_teachers_too(cli, honest, run):
    folder = run("mine-whole")
    put(honest / "other-whole", folder, "best.safetensors")
    argv = ["pretrain-teacher", *NET, "--seed", SEED, "-o", folder]
    for more in ([], ["--resume"]):
        done = cli(*argv, *more)
        assert (done.code, done.out) == (4, "")
        assert "best.safetensors and config.toml are of different runs (seed: " in done.err


EARLIER_CASES = {
    "config": (
        lambda r: edit(r / "config.toml", "momentum = 0.9", "momentum = 0.8"),
        4,
        "momentum: 0.9 -> 0.8",
    ),
    "an option of later": (
        lambda r: edit(r / "config.toml", "lr = 0.1", "clip_start = false\nlr = 0.1"),
        4,
        "clip_start: True -> False",
    ),
    "best": (lambda r: put(EARLIER / "teacher", r, "best.safetensors"), 4, "best.safetensors"),
    "log": (lambda r: put(EARLIER / "teacher", r, "metrics.jsonl"), 4, "metrics.jsonl"),
    "no log": (lambda r: (r / "metrics.jsonl").unlink(), 3, "metrics.jsonl: missing"),
    "no best": (lambda r: (r / "best.safetensors").unlink(), 3, "best.safetensors: missing"),
}


@pytest.mark.parametrize("case", EARLIER_CASES)
def test_runs_of_earlier_versions_are_checked_too(cli, tmp_path, monkeypatch, steps, case):
    spoil, code, names = EARLIER_CASES[case]
    shutil.copytree(EARLIER, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")
    spoil(Path("run"))
    done = cli("train", "--resume", "-o", "run", "--threads", 1, "-q")
    assert (done.code, done.out, steps) == (code, "", []), done.err
    assert names in done.err


def test_a_finished_run_of_earlier_is_done(cli, tmp_path):
    shutil.copytree(EARLIER / "teacher", tmp_path / "run")
    done = cli("train", "--resume", "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert "already done" in done.err
    shutil.copy(EARLIER / "run" / "best.safetensors", tmp_path / "run" / "best.safetensors")
    assert cli("train", "--resume", "-o", tmp_path / "run").code == 4

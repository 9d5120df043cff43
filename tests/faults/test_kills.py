"""Rows 1 to 6: a process that is killed or stopped loses nothing that was saved."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from advkit.artifacts import artifact, checkpoint
from tests.faults._runs import NET, ROOT, contents, digest, killed_at_random, litter

EPOCHS = ["--epochs", "3", "--attack-steps", "2"]
AT = ["train", "--method", "at", *NET, *EPOCHS]
ADR = ["train", "--method", "trades-adr-awp", *NET, *EPOCHS]
LONG = ["train", "--method", "adr-wa", *NET, "--epochs", "8", "--attack-steps", "4"]
full = pytest.mark.faults
KILL = -signal.SIGKILL


AUTOATTACK = ["--autoattack", "--eps", "0.1", "--limit", "12", "--batch-size", "4"]


@pytest.fixture(scope="module")
def evaluated(server, teacher, tmp_path_factory):
    """The digest of an AutoAttack file that nobody disturbed."""
    folder = tmp_path_factory.mktemp("evaluated")
    words = ["attack", teacher / "best.safetensors", *AUTOATTACK, "-q", "-o", "a.h5"]
    assert server.run(*words, cwd=folder).code == 0
    return digest(folder / "a.h5")


def resumed(server, words, folder):
    """Go on with a run and return what its folder holds then."""
    outcome = server.run(*words, "--resume", "-o", "run", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert litter(folder) == []
    return contents(folder / "run")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        pytest.param("state", 2),
        pytest.param("config", 1, marks=full),
        pytest.param("best", 1, marks=full),
        pytest.param("state", 1, marks=full),
        pytest.param("final", 1, marks=full),
    ],
)
def test_row_01_kill_during_checkpoint_write(server, whole, tmp_path, name, call):
    killed = server.run(*AT, "-o", "run", cwd=tmp_path, kill=["temporary", call, name])
    assert killed.code == KILL
    (left,) = [each for each in litter(tmp_path) if each.endswith(".tmp")]
    assert name in left
    for path in (tmp_path / "run").glob("*.safetensors"):  # what is in place is whole
        checkpoint.read(path, "state" if path.stem == "state" else "checkpoint")
    assert resumed(server, AT, tmp_path) == whole(*AT)[1]


def test_row_01_the_litter_of_files_that_are_not_written_again_goes_too(server, whole, tmp_path):
    shutil.copytree(whole(*AT)[0], tmp_path / "run")
    # No process has this id: it is above all that the kernel gives.
    path = tmp_path / "run" / f".best.safetensors.{2**30}.tmp"
    path.write_bytes(b"half")
    before = contents(tmp_path / "run")
    assert server.run(*AT, "-o", "run", cwd=tmp_path).code == 0
    assert not path.exists()
    assert contents(tmp_path / "run") == {k: v for k, v in before.items() if k != path.name}


@full
@pytest.mark.parametrize("point", ["fsync", "rename", "renamed", "line", "step", "unlink"])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_row_02_kill_between_two_files(server, whole, tmp_path, point, call):
    """Weights and state are renamed one by one; between them nothing is mixed up."""
    outcome = server.run(*ADR, "-o", "run", cwd=tmp_path, kill=[point, call])
    if point == "line" and call > 3:  # one line an epoch
        assert outcome.code == 0
    else:
        assert outcome.code == KILL
    assert resumed(server, ADR, tmp_path) == whole(*ADR)[1]


@full
@pytest.mark.parametrize("call", range(1, 7))
def test_row_02_kill_while_an_old_run_is_removed(server, whole, tmp_path, call):
    """`--overwrite` removes an old run's files; cut off anywhere, the new run can begin."""
    shutil.copytree(whole(*AT)[0], tmp_path / "run")
    words = [*AT, "--lr", "0.05"]
    killed = server.run(
        *words, "--overwrite", "-o", "run", cwd=tmp_path, kill=["unlink", call, "safetensors"]
    )
    assert killed.code == KILL
    again = server.run(*words, "--overwrite", "-o", "run", cwd=tmp_path)
    assert again.code == 0, again.err
    assert contents(tmp_path / "run") == whole(*words)[1]
    assert litter(tmp_path) == []


@full
@pytest.mark.parametrize("method", ["at", "trades-adr-awp", "ltd"])
def test_row_03_kill_at_random_times(server, whole, labels, tmp_path, method):
    soft = ["--soft-labels", labels] if method == "ltd" else []
    words = ["train", "--method", method, *NET, "--epochs", "6", "--attack-steps", "5", *soft]
    began = time.monotonic()
    expected = whole(*words)[1]
    seconds = time.monotonic() - began
    draw, kills = random.Random(method), 0
    for trial in itertools.count():
        folder = tmp_path / str(trial)
        folder.mkdir()
        kills += killed_at_random(server, [*words, "-o", "run"], folder, seconds, draw) is not None
        assert resumed(server, words, folder) == expected
        if kills >= 3:
            return
        seconds *= 0.9  # a quieter machine than when the run was timed ends it before the kill


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("SIGINT", 8),  # tests/cli/test_pipes.py raises the others within one process
        ("SIGHUP", 8),
        pytest.param("SIGTERM", 8, marks=full),
        pytest.param("SIGUSR1", 12, marks=full),
        pytest.param("SIGINT", 1, marks=full),
        pytest.param("SIGTERM", 15, marks=full),
    ],
)
def test_row_04_signal_mid_epoch(server, whole, tmp_path, name, step):
    run = server.start(*ADR, "-o", "run", cwd=tmp_path, signals=[["step", step, name]])
    outcome = run.end()
    assert (outcome.code, outcome.out) == (128 + getattr(signal, name), "")
    epoch, number = divmod(step - 1, 5)
    assert f"epoch {epoch + 1}, step {number + 1}, state saved" in outcome.err
    _, info = checkpoint.read(tmp_path / "run" / "state.safetensors", "state")
    assert (info["epoch"], info["step"]) == (epoch, number + 1)
    assert resumed(server, ADR, tmp_path) == whole(*ADR)[1]


def test_row_04_a_terminal_that_is_gone_is_no_signal_under_nohup(server, tmp_path):
    words = [*AT, "--epochs", "1", "-o", "run"]
    plan = {"ignore": ["SIGHUP"], "signals": [["step", 2, "SIGHUP"]]}
    assert server.run(*words, cwd=tmp_path, **plan).code == 0


@pytest.mark.parametrize(
    "second", ["SIGINT", pytest.param("SIGTERM", marks=full), pytest.param("SIGHUP", marks=full)]
)
def test_row_05_second_signal_during_the_save(server, whole, tmp_path, second):
    plan = [["step", 8, "SIGINT"], ["temporary", 2, second, "state"]]
    outcome = server.run(*AT, "-o", "run", cwd=tmp_path, signals=plan)
    assert (outcome.code, outcome.out) == (128 + getattr(signal, second), "")
    assert outcome.err == f"advkit: ended by {second} at once: what was saved before stays\n"
    _, info = checkpoint.read(tmp_path / "run" / "state.safetensors", "state")
    assert (info["epoch"], info["step"]) == (1, 0)  # the one before this save
    assert resumed(server, AT, tmp_path) == whole(*AT)[1]


def test_row_05_signals_before_the_command_is_known(tmp_path):
    """Twice Ctrl-C while the program is still importing what it needs."""
    (tmp_path / "typer.py").write_text(
        "import os, signal\nfor _ in range(2):\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "advkit", "--version"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "advkit: ended by SIGINT\n"


@full
@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"signals": [["renamed", 3, "SIGINT", ".part"]]}, 130),
        ({"signals": [["temporary", 4, "SIGTERM", ".part"]]}, 143),
        ({"kill": ["temporary", 5, ".part"]}, KILL),
        ({"kill": ["rename", 1, "a.h5$"]}, KILL),
    ],
)
def test_row_06_autoattack_goes_on(server, teacher, evaluated, tmp_path, plan, code):
    attack = ["attack", teacher / "best.safetensors", *AUTOATTACK]
    stopped = server.run(*attack, "-q", "-o", "a.h5", cwd=tmp_path, **plan)
    assert stopped.code == code, stopped.err
    assert (tmp_path / "a.h5.part").exists()
    assert not (tmp_path / "a.h5").exists()
    again = server.run(*attack, "-o", "a.h5", cwd=tmp_path)
    assert again.code == 0, again.err
    assert "going on from the batches" in again.err
    assert digest(tmp_path / "a.h5") == evaluated
    assert litter(tmp_path) == []


@full
def test_row_06_a_finished_evaluation_leaves_no_books(server, teacher, evaluated, tmp_path):
    """Killed between the logits' appearance and the books' removal."""
    attack = ["attack", teacher / "best.safetensors", *AUTOATTACK, "-o", "a.h5"]
    assert server.run(*attack, cwd=tmp_path, kill=["renamed", 1, "a.h5$"]).code == KILL
    assert (tmp_path / "a.h5.part").exists()
    again = server.run(*attack, cwd=tmp_path)
    assert again.code == 0
    assert "already done" in again.err
    assert digest(tmp_path / "a.h5") == evaluated
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("call", [1, *(pytest.param(call, marks=full) for call in range(2, 16))])
@pytest.mark.parametrize(
    "words", [["softlabels", "--views", "2"], ["attack", "--attack", "fgsm", "--limit", "30"]],
    ids=["softlabels", "attack"],
)  # fmt: skip
def test_row_06_a_signal_inside_hdf5(server, teacher, tmp_path, words, call):
    """The library calls our file's `write`: an exception there would be lost, or end in a crash.

    The file is finished first; then the process ends by the signal.
    """
    command = [words[0], teacher / "best.safetensors", *words[1:], "-q", "-o", "a.h5"]
    plan = [["temporary", call, "SIGTERM", r"a\.h5\.\d+\.tmp"]]
    stopped = server.run(*command, cwd=tmp_path, signals=plan)
    assert (stopped.code, stopped.out) == (143, ""), stopped.err
    assert len(stopped.err.splitlines()) == 1
    artifact.read_info(tmp_path / "a.h5")
    again = server.run(*command, cwd=tmp_path)
    assert again.code == 0, again.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]

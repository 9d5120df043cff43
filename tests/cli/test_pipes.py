"""Real pipes, signals and full disks, in processes of their own."""

import errno
import functools
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from advkit.__main__ import main
from advkit.artifacts import checkpoint
from advkit.cli.common import failures
from advkit.training.trainer import Trainer
from tests.conftest import THREADS, TINY, shell

TRAIN = "advkit train --method adr " + " ".join(TINY)
LONG = ["train", "--method", "adr", *TINY, "--epochs", "10", "--seed", "1", "-q"]
SHORT = ["train", "--method", "adr", *TINY, "--epochs", "3", "--attack-steps", "2", "-q"]


def weights(folder) -> str:
    return checkpoint.read_info(folder / "final.safetensors")["digest"]


@pytest.mark.slow
def test_three_stages_of_a_shell_give_one_record(tmp_path):
    attack = "advkit attack --attack fgsm --limit 20"
    outcome = shell(f"{TRAIN} --epochs 1 | {attack} | advkit analyze calibration", tmp_path)
    assert outcome.code == 0
    assert (outcome.record["kind"], outcome.record["n"]) == ("analysis", 20)
    logits = tmp_path / outcome.record["input"]
    assert logits.name == "best.fgsm-linf-0.15-n20.h5"
    assert "Traceback" not in outcome.err


@pytest.mark.slow  # tests/faults/test_inputs.py, row 30, does this with two stages
def test_a_failed_stage_fails_the_pipe(tmp_path):
    line = "advkit train --method adrr | advkit attack --autoattack | advkit analyze calibration"
    outcome = shell(f"{line}; echo ${{PIPESTATUS[@]}}", tmp_path)
    assert outcome.out == "2 3 3\n"
    assert sorted(text.split(":")[0] for text in outcome.err.splitlines()) == [
        "advkit analyze calibration", "advkit attack", "advkit train",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_training_is_saved_when_the_reader_goes_away(tmp_path):
    line = f"{TRAIN} --epochs 1 -o run -q <&- | head -0; echo ${{PIPESTATUS[0]}}"
    outcome = shell(line, tmp_path)
    assert outcome.out == "141\n"
    assert weights(tmp_path / "run")
    (only,) = outcome.err.splitlines()
    assert "reader of stdout went away" in only


@pytest.mark.parametrize(("reason", "code"), [(errno.ENOSPC, 6), (errno.EPIPE, 141)])
def test_training_is_saved_when_stdout_fails(capfd, monkeypatch, tmp_path, reason, code):
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(sys, "stdout", Broken())
    words = [*shlex.split(TRAIN)[1:], "--epochs", "1", "--attack-steps", "1", "-q"]
    assert main([*words, "-o", str(tmp_path / "run")]) == code
    assert weights(tmp_path / "run")
    (only,) = capfd.readouterr().err.splitlines()
    assert "stdout" in only


@pytest.mark.parametrize("words", ["presets", "--help", "train --data digits --print-config"])
def test_141_when_the_reader_goes_away(tmp_path, words):
    outcome = shell(f"advkit {words} | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert outcome.out == "141\n"
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("train --data digits --print-config >&-", {6, 141}),
        ("train --data digit 2>&-", {2}),
        ("attack --attack pgd </dev/null 2>/dev/full", {3}),
        ("attack --attack pgd <&-", {2, 3}),
        ("attack - --attack pgd <&-", {2, 3}),
    ],
)
def test_closed_streams_keep_the_exit_code(tmp_path, line, codes):
    outcome = shell(f"advkit {line}", tmp_path)
    assert outcome.code in codes, outcome.err
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) <= 1


@pytest.mark.parametrize("path", ["é.h5", "模型.h5", "\udcff.h5"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_records_print_in_any_encoding(path, encoding):
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding=encoding)
    failures.emit(stdout, {"path": path}, True)
    assert json.loads(raw.getvalue().decode(encoding, errors="surrogateescape")) == {"path": path}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Give the digest that a run of these words ends in when nobody stops it.

    It is compared with the same run's, stopped and resumed: whatever the net learns.
    """

    @functools.cache
    def get(*words: str) -> str:
        folder = tmp_path_factory.mktemp("whole") / "run"
        assert main([*words, "-o", str(folder)]) == 0
        return weights(folder)

    return get


def _started(folder) -> subprocess.Popen:
    """Start a training process in a group of its own; return once an epoch is over."""
    command = [sys.executable, "-m", "advkit", *LONG, "-o", str(folder)]
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + 200
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


@pytest.mark.slow  # tests/faults/test_kills.py, row 4, does this with warm processes
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resume_ends_in_the_same_weights(cli, tmp_path, uninterrupted, signum):
    folder = tmp_path / "run"
    process = _started(folder)
    os.killpg(process.pid, signum)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (128 + signum, "")
    assert "--resume" in err
    assert len(err.splitlines()) == 1
    assert not (folder / "final.safetensors").exists()
    assert cli(*LONG, "-o", folder).code == 4
    assert cli("train", "--resume", "-o", folder, "-q").code == 0
    assert weights(folder) == uninterrupted(*LONG)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_within_an_epoch(cli, tmp_path, monkeypatch, uninterrupted, signum):
    def stopping(trainer, batch, epoch, number):
        step(trainer, batch, epoch, number)
        if (epoch, number) == (1, 3):
            signal.raise_signal(signum)

    step, folder = Trainer.step, tmp_path / "run"
    monkeypatch.setattr(Trainer, "step", stopping)
    outcome = cli(*SHORT, "-o", folder)
    assert (outcome.code, outcome.out) == (128 + signum, "")
    assert "epoch 2, step 4" in outcome.err
    monkeypatch.setattr(Trainer, "step", step)
    assert cli("train", "--resume", "-o", folder, "-q", "--threads", THREADS).code == 0
    assert weights(folder) == uninterrupted(*SHORT)


def test_train_never_reads_stdin(monkeypatch, tmp_path):
    class Trap:
        def __getattr__(self, name):
            raise AssertionError(f"stdin.{name}")

    monkeypatch.setattr(sys, "stdin", Trap())
    assert main(["train", *TINY, "--epochs", "1", "-q", "-o", str(tmp_path / "run")]) == 0

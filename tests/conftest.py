"""Fixtures: one thread, a tiny trained run, and the command line in-process and as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

THREADS = os.environ.get("ADVKIT_TEST_THREADS", "1")
"""CPU threads of torch in tests, also in their processes; `make test-elsewhere` tries two."""
os.environ["OMP_NUM_THREADS"] = THREADS
torch.set_num_threads(int(THREADS))
# A suite that runs under nohup or behind `&` would hand its processes an ignored signal.
for _signal, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _usual)

SEED = int(os.environ.get("ADVKIT_TEST_SEED", "0"))
"""Added to the seeds of trained and random nets: no assertion may need the nets of seed 0."""

TINY = [
    "--data", "digits", "--limit", "300", "--epochs", "2", "--batch-size", "32", "--width", "8",
    "--seed", str(SEED), "--threads", THREADS,
]  # fmt: skip
"""A run of seconds: 240 training examples, 7 steps an epoch.

What it learns differs between machines, so that its users assert what holds for any weights:
which files and records there are, that figures agree with each other, that bytes repeat.
"""


@dataclass(frozen=True)
class Outcome:
    """Exit code and streams of one command."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> dict:
        (only,) = self.records
        return only


@pytest.fixture
def cli(capfd, monkeypatch):
    """Run one command line in this process: `cli("train", ..., stdin="...")` -> Outcome."""
    from advkit.__main__ import main

    def run(*arguments: object, stdin: str | bytes | None = "") -> Outcome:
        import io

        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw or b"")))
        capfd.readouterr()
        code = main([str(each) for each in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def shell(command: str, cwd: Path, **options) -> Outcome:
    """Run a shell line with `advkit` on the PATH, pipefail on."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env = {**outside, "OMP_NUM_THREADS": THREADS, "PYTHONPATH": str(ROOT)}  # of this tree
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False, **options,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Starts real processes without their imports."""
    from tests.faults._runs import Server

    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.stop()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of a finished tiny ADR run (see TINY); copy it before changing it."""
    from advkit.__main__ import main

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "--method", "adr", *TINY, "-o", str(folder), "-q"]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_logits(tiny_run) -> Path:
    """A logits file of that run under PGD, 40 test images."""
    from advkit.__main__ import main

    out = tiny_run.parent / "tiny.h5"
    best = str(tiny_run / "best.safetensors")
    arguments = ["--attack", "pgd", "--steps", "5", "--limit", "40", "-o", str(out), "-q"]
    assert main(["attack", best, *arguments]) == 0
    return out

"""Starting, killing and comparing real processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import SEED, Outcome

ROOT = Path(__file__).parents[2]
NET = ["--data", "digits", "--width", "4", "--limit", "200", "--batch-size", "32", "-q",
       "--seed", str(SEED)]  # fmt: skip
"""160 training examples, 5 steps an epoch.

What it learns differs between machines, so that runs are compared with runs of the same machine.
"""


@dataclass
class Running:
    """A child of the server, its streams in files."""

    server: Server
    pid: int
    streams: Path

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout: float = 200) -> Outcome | None:
        """Return how it ended, None if it still runs."""
        code = self.server.ask({"wait": self.pid, "timeout": timeout})
        if code is None:
            return None
        out, err = (
            (self.streams / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")
        )
        return Outcome(code, out, err)

    def end(self, timeout: float = 200) -> Outcome:
        """Return how it ended.

        Raises:
            AssertionError: it hangs; it is killed.
        """
        found = self.wait(timeout)
        if found is None:
            self.send(signal.SIGKILL)
            self.wait()
            raise AssertionError(f"{self.pid} hangs")
        return found


class Server:
    """The warm process of `_driver`, and a scratch folder for streams."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.count, self.last = scratch, 0, 0
        scratch.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults._driver"],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, job: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self._read())

    def start(
        self, *words: object, cwd: Path, stdin: str | Path = "", stdout: str = "", **plan: Any
    ) -> Running:
        """Start one command line; `plan` is what `_driver.prepare` puts in place.

        `stdin` is its text, or the path of a pipe to read.
        """
        self.count += 1
        streams = self.scratch / f"{self.count}"
        streams.mkdir()
        text = "" if isinstance(stdin, Path) else stdin
        (streams / "stdin").write_text(text, encoding="utf-8", errors="surrogateescape")
        environment = plan.pop("env", {})
        names = {name: str(streams / name) for name in ("stdin", "stdout", "stderr")}
        if stdout:
            (streams / "stdout").touch()
            names["stdout"] = stdout
        if isinstance(stdin, Path):
            names["stdin"] = str(stdin)
        job = {"words": [*map(str, words)], "cwd": str(cwd), "plan": plan, "env": environment}
        self.last = int(self.ask({**job, **names}))
        return Running(self, self.last, streams)

    def run(self, *words: object, timeout: float = 200, **options: Any) -> Outcome:
        return self.start(*words, **options).end(timeout)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(200)  # a busy machine takes its time to end it
        assert self.process.stdout is not None
        self.process.stdout.close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder, the times in logs left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for row in rows:
                row.pop("seconds", None)
                row.pop("images_per_second", None)
            found[str(path.relative_to(folder))] = json.dumps(rows)
        elif path.is_file():
            found[str(path.relative_to(folder))] = digest(path)
    return found


def litter(folder: Path) -> list[str]:
    """Names of temporary, probe and lock files below a folder and beside it."""
    return [path.name for path in folder.rglob(".*")]


def refused(outcome: Outcome, code: int, *words: str) -> None:
    """Check a failure: its code, one line that holds the words, and nothing on stdout."""
    assert (outcome.code, outcome.out) == (code, ""), (outcome.code, outcome.out, outcome.err)
    (line,) = outcome.err.splitlines()
    assert line.startswith("advkit"), line
    assert not [word for word in words if word not in line], line


def killed_at_random(
    server: Server, words: list[str], cwd: Path, seconds: float, draw: random.Random, **plan: Any
) -> float | None:
    """Start, kill with SIGKILL at a random time, and return when; None if it ended before."""
    run = server.start(*words, cwd=cwd, **plan)
    moment = draw.uniform(0, seconds)
    time.sleep(moment)
    run.send(signal.SIGKILL)
    ended = run.end()
    return moment if ended.code == -signal.SIGKILL else None

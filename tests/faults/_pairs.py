"""Two runs of one stage on one output, under two names of it, started within 10 milliseconds."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from tests.conftest import Outcome
from tests.faults._runs import NET, Running, Server

STAGES = ("train", "attack", "softlabels", "analyze", "search")
APART = 0.01
"""Seconds between the two starts, at most."""


def words(name: str, teacher: Path, labels: Path, logits: Path) -> tuple[list[object], str]:
    """Return a stage's short command without its `-o`, and the name of its output."""
    if name == "train":
        return ["train", "--method", "natural", *NET, "--epochs", 1], "run"
    if name == "attack":
        return ["attack", teacher, "--attack", "fgsm", "--limit", 20, "-q"], "out.h5"
    if name == "softlabels":
        return ["softlabels", teacher, "-q"], "out.h5"
    if name == "analyze":
        return ["analyze", "calibration", logits, "-q"], "out.json"
    grid = ["--grid", "1", "--refine", 0, "--threshold", "0.01", "--epochs", 1]
    return ["search", "temperature", labels, *grid, *NET[2:]], "run"


def places(folder: Path) -> tuple[Path, Path]:
    """Make a folder and a second name of it."""
    (folder / "real").mkdir(parents=True)
    (folder / "alias").symlink_to("real")
    return Path("real"), Path("alias")


def started(
    server: Server, command: list[object], output: str, cwd: Path, draw: random.Random
) -> list[Outcome]:
    """Run the command twice at the same moment, and return how the two ended.

    Each stops where it first syncs a file: whoever comes to that holds the output until the other
    has ended, however busy the machine is. Where both come to it, both go on.
    """
    places(cwd)
    begin = time.monotonic() + 0.1  # both are forked by then, and wait
    moments = [begin, begin + draw.uniform(0, APART)]
    names = ["real", "alias"]
    draw.shuffle(names)
    runs = [
        server.start(
            *command, "-o", f"{name}/{output}", cwd=cwd, at=moment,
            signals=[["fsync", 1, "SIGSTOP"]],
        )
        for name, moment in zip(names, moments, strict=True)
    ]  # fmt: skip
    ended: dict[int, Outcome] = {}
    until = time.monotonic() + 200
    while len(ended) < len(runs):
        for run in runs:
            outcome = None if run.pid in ended else run.wait(0.02)
            if outcome is not None:
                ended[run.pid] = outcome
        waiting = [run for run in runs if run.pid not in ended]
        if all(_stopped(run) for run in waiting):
            for run in waiting:
                run.send(signal.SIGCONT)
        if time.monotonic() > until:
            for run in waiting:
                run.send(signal.SIGKILL)
    return [ended[run.pid] for run in runs]


def _stopped(run: Running) -> bool:
    try:
        text = Path(f"/proc/{run.pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] == "T"

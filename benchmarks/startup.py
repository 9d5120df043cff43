"""What a call costs before its work, as JSON: CPU time of whole processes, interleaved.

Helps are set against the help of a Typer program of one command, small works against the import of
torch alone. Every process starts warm (files read and compiled before). A round is one process of
each; figures are the median over rounds of the ratio of user and system time, and `noise` is the
yardstick against itself in a second process of the round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import _machine
from _timing import ratio

BARE = '''import typer

app = typer.Typer()


@app.command()
def hello(name: str = "you", times: int = 1) -> None:
    """Say hello."""
    print(f"hello {name}\\n" * times)


app()
'''
HELPS = ("--help", "train --help", "attack --help", "analyze --help", "analyze calibration --help")
NET = "--data digits --method at --width 8 --epochs 1 --attack-steps 1 --limit 200 -o run"
ATTACK = "attack run/best.safetensors --attack none --limit 100"
CALIBRATION = "analyze calibration logits.h5"
LOGITS = "attack run/best.safetensors --attack pgd --steps 1 --limit 100 -o logits.h5"


def seconds(command: Sequence[str], place: Path) -> float:
    """Return the user and system time of one process."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: {said}")
    return usage.ru_utime + usage.ru_stime


def advkit(line: str) -> list[str]:
    return ["-m", "advkit", *line.split()]


def contest(
    yardstick: Sequence[str], others: Mapping[str, Sequence[str]], count: int, place: Path
) -> dict[str, object]:
    """Return seconds of each and its ratio to the yardstick; one more round warms up, uncounted."""
    commands = {"yardstick": yardstick, "noise": yardstick, **others}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(count + 1):
        for name, command in commands.items():
            spent = seconds(command, place)
            if turn:
                taken[name].append(spent)
    return {
        name: {
            "seconds": round(statistics.median(spent), 3),
            **({} if name == "yardstick" else ratio(spent, taken["yardstick"], 2)),
        }
        for name, spent in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "bare.py").write_text(BARE, encoding="utf-8")
        for line in (f"train {NET}", LOGITS):
            seconds(advkit(line), place)
        helps = {line: advkit(line) for line in HELPS}
        works = {
            "attack": advkit(f"{ATTACK} --overwrite -o none.h5"),
            "calibration": advkit(CALIBRATION),
        }
        figures = {
            "benchmark": "startup",
            "rounds": rounds,
            "over a Typer program of one command": contest(
                ["bare.py", "--help"], helps, rounds, place
            ),
            "over the import of torch": contest(["-c", "import torch"], works, rounds, place),
            "machine": _machine.described(),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

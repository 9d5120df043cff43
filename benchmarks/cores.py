"""What a second core brings a training run, as one JSON line: seconds an epoch, wall time.

One thread, two threads, and two processes of one thread each (torchrun) train the same net on the
same batches and take turns. An epoch counts as users wait for it: steps, validation, selection and
the state that is written; the first, which warms up, is left out. `ratio` is one thread's seconds
over the others', `noise` one thread against itself in a second run of the round. On a machine with
other work these are figures of that work as well: `load` tells.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _machine
from _timing import ratio

from advkit.bench import measure

ONE = [sys.executable, "-m", "advkit"]
PAIR = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CONTENDERS = {
    "one": (ONE, 1),
    "noise": (ONE, 1),
    "two_threads": (ONE, 2),
    "two_processes": ([*PAIR, "-m", "advkit"], 1),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each run; the first warms up")
    parser.add_argument(
        "--train",
        default="--data digits --arch resnet8 --method adr --batch-size 128",
        help="options of advkit train",
    )
    return parser.parse_args()


def epoch(start: list[str], threads: int, words: list[str]) -> float:
    """Return the median seconds of an epoch after the first."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        subprocess.run(
            [*start, "train", "-q", *words, "--threads", str(threads), "-o", str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float(statistics.median(line["seconds"] for line in log[1:]))


def main() -> None:
    given = arguments()
    if given.epochs < 2:
        sys.exit("--epochs: at least 2, as the first warms up")
    words = [*given.train.split(), "--epochs", str(given.epochs)]
    turns = {
        name: lambda _, start=start, threads=threads: epoch(start, threads, words)
        for name, (start, threads) in CONTENDERS.items()
    }
    taken = measure.in_turn(turns, given.rounds, warm=0)
    line = {
        "benchmark": "cores",
        "train": given.train,
        "seconds": {name: round(statistics.median(spent), 3) for name, spent in taken.items()},
        "ratio": {name: ratio(taken["one"], taken[name], 2) for name in taken if name != "one"},
        "epochs": given.epochs,
        "rounds": given.rounds,
        "machine": _machine.described(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

"""What labels and weight space add to a PGD-10 adversarial training step, as one JSON line.

Each method has a process of its own and they take turns. `overhead_*` is the median over rounds
of its CPU seconds over PGD-AT's, less 1; `noise` the same of PGD-AT in a second process. The net
is ResNet-18's form at width 16 on random images of CIFAR-10's size, drawn and augmented in the
step. By count of passes ADR adds 1 of 23 forward passes (4.3 %) and AWP 3 of 23 (13 %).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import _machine
import _ours
from _contest import Makers, rounds
from _timing import ratio
from soft_labels import write

METHODS: dict[str, dict[str, object]] = {
    "at": {"method": "at"},
    "again": {"method": "at"},
    "adr": {"method": "adr"},
    "awp": {"method": "at-awp", "awp_warmup": 0},
    "wa": {"method": "at-wa"},
    "adr_awp": {"method": "adr-awp", "awp_warmup": 0},
    "soft": {"method": "at", "labels": "soft"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--only", help="methods, separated by commas")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(METHODS)
    count = 4 * given.batch_size
    with tempfile.TemporaryDirectory() as place:
        labels = Path(place) / "labels.h5"
        write(_ours.images(count), labels, "all")
        makers: Makers = {}
        for name in dict.fromkeys(["at", "again", *wanted]):
            flags = {**METHODS[name], "width": given.width, "batch_size": given.batch_size}
            if name == "soft":
                flags["soft_labels"] = str(labels)
            makers[name] = (_ours.step, {"flags": flags, "count": count, "threads": 1})
        turns = rounds(makers, given.rounds)
    seconds = {name: [cpu for cpu, *_ in values] for name, values in turns.items()}
    ratios = {name: ratio(seconds[name], seconds["at"]) for name in seconds if name != "at"}
    line = {
        "benchmark": "overheads",
        **{
            f"overhead_{name}": round(spread["median"] - 1, 4)
            for name, spread in ratios.items()
            if name != "again"
        },
        "noise": ratios["again"],
        "ranges": {name: [spread["min"], spread["max"]] for name, spread in ratios.items()},
        "seconds": {name: round(statistics.median(values), 4) for name, values in seconds.items()},
        "batch_size": given.batch_size,
        "width": given.width,
        "rounds": given.rounds,
        "machine": _machine.described(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

"""Print a Markdown table of runs of compare.sh: accuracies, and the paired difference to a method.

    python tools/docs/compared.py FOLDER [--to at] [--point best]

Interval: both seeds and test images are taken for random (`tools/docs/study/twoway.py`).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from study.twoway import LEAST, two_way

from advkit.artifacts.hdf5 import ROBUST, WRONG, read_logits
from advkit.errors import printable

Verdicts = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """Which test images a net got right: (N,) of 0 and 1, clean and under attack."""

    clean: Verdicts
    robust: Verdicts
    examples: bytes


def read(path: Path) -> tuple[str, int, Run]:
    """Return the method, the seed and the verdicts of an attacked file."""
    logits = read_logits(path, stay=True).by_index()
    if logits.broken_by is None:
        raise SystemExit(f"{path}: it is not attacked")
    broken = np.asarray(logits.broken_by)
    both = np.stack([logits.index.numpy(), logits.labels.numpy()])
    run = Run((broken != WRONG) * 1.0, (broken == ROBUST) * 1.0, both.tobytes())
    name = path.parent.name  # DATA-ARCH-METHOD...-sSEED
    method, _, seed = name.rpartition("-s")
    return method, int(seed), run


def line(name: str, runs: Mapping[int, Run], base: Mapping[int, Run]) -> str:
    """Return a row: mean ± deviation over seeds in %, difference in points with its interval."""
    cells = [f"`{printable(name)}`"]
    for kind in ("robust", "clean"):
        values = [100 * getattr(run, kind).mean() for run in runs.values()]
        spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.1f}{spread}")
    shared = sorted(runs.keys() & base.keys())
    pairs = [(runs[seed].robust, base[seed].robust) for seed in shared]
    estimated = None
    if len(shared) >= LEAST:
        estimated = two_way(100 * np.stack([ours - theirs for ours, theirs in pairs]))
    if estimated is None:
        cells.append("–")
    else:
        low, high = estimated.interval
        cells.append(f"{estimated.mean:+.1f} [{low:+.1f}, {high:+.1f}]")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Read the folder and print the table, the most robust method first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", default="at", help="method that others are set against")
    parser.add_argument("--point", default="best", choices=("best", "final"))
    asked = parser.parse_args()
    rows: dict[str, dict[int, Run]] = defaultdict(dict)
    for path in sorted(asked.folder.glob(f"*-s[0-9]*/{asked.point}.autoattack*.h5")):
        name, seed, run = read(path)
        rows[name][seed] = run
    if len({run.examples for runs in rows.values() for run in runs.values()}) != 1:
        raise SystemExit(f"{asked.folder}: no attacked runs, or of different images")
    common = min(rows, key=lambda name: (not name.endswith(f"-{asked.to}"), len(name)))
    prefix = common.removesuffix(asked.to)
    order = sorted(
        rows, key=lambda name: -np.mean([run.robust.mean() for run in rows[name].values()])
    )
    print("| method | robust % | clean % | robust, minus "
          f"`{asked.to}`, points [95 %] | seeds |\n|---|---|---|---|---|")  # fmt: skip
    for name in order:
        row = line(name.removeprefix(prefix), rows[name], rows[common])
        print(f"{row} {len(rows[name])} |")


if __name__ == "__main__":
    main()

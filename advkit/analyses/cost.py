"""What runs cost: seconds per epoch, images per second, hours, and the ratio to the first run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advkit.analyses import Result, aligned
from advkit.errors import InputError
from advkit.run_folder import Trained

KINDS = ("checkpoint",)
COMPARES = True
PICTURE = False
COLUMNS = (
    "run", "data", "arch", "method", "seed", "device", "threads", "epochs", "planned_epochs", "n",
    "seconds_per_epoch", "images_per_second", "hours", "ratio",
)  # fmt: skip
HEAD = (
    "data", "arch", "method", "run", "device", "epochs",
    "seconds/epoch", "images/s", "hours", "ratio",
)  # fmt: skip
WARM = 3
"""Epochs from which on the first one, which warms caches and compiles, is left out."""


def seconds_per_epoch(seconds: Sequence[float]) -> float:
    """Return the median over epochs, the first left out where there are three or more.

    >>> seconds_per_epoch([60.0, 10.0, 12.0, 11.0])
    11.0
    """
    return statistics.median(seconds[1:] if len(seconds) >= WARM else seconds)


def analyze(inputs: Sequence[Trained]) -> Result:
    """List runs, a row each, in the order given; several checkpoints of one run count once.

    An epoch's seconds hold its validation. Images per second are training images over the
    seconds of an epoch; hours are the sum over the epochs that were run.

    Raises:
        InputError: a checkpoint without the metrics of its run beside it.

    Source: the layout of ADR, Table 6.
    """
    runs: dict[Path, Trained] = {}
    for each in inputs:
        runs.setdefault(Path(each.path).resolve().parent, each)
    rows: list[tuple[Any, ...]] = []
    for folder, run in runs.items():
        seconds, n = _seconds(run)
        typical = seconds_per_epoch(seconds)
        first = rows[0][COLUMNS.index("seconds_per_epoch")] if rows else typical
        epochs = (len(seconds), run.info["config"].get("epochs"), n)
        figures = (typical, n / typical, sum(seconds) / 3600, typical / first)
        rows.append((folder.name, *_names(run), *epochs, *figures))
    return Result({"runs": len(rows)}, COLUMNS, tuple(rows), text=_text(rows))


def _names(run: Trained) -> tuple[Any, ...]:
    """Return what was trained, and on what."""
    info, machine = run.info, run.info["environment"]
    trained = (info["data"]["name"], info["arch"], info["method"], info["seed"])
    return (*trained, machine.get("device"), machine.get("threads"))


def _seconds(run: Trained) -> tuple[list[float], int]:
    """Return the seconds of every epoch, and the training images of one.

    Raises:
        InputError: there are none, or they are not what a run writes.
    """
    rows = run.rows()
    try:
        found = [float(row["seconds"]) for row in rows]
        n = int(rows[-1]["n"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{run.metrics}: not the metrics of a run: no seconds and n") from None
    if n < 1 or not all(0 < each < float("inf") for each in found):
        raise InputError(f"{run.metrics}: holds an epoch of no time or no images")
    return found, n


def _text(rows: Sequence[tuple[Any, ...]]) -> str:
    lines: list[tuple[object, ...]] = [HEAD]
    for row in rows:
        run, data, arch, method, _, device, threads, epochs, planned = row[:9]
        place = f"cpu × {threads}" if device == "cpu" else device
        done = str(epochs) if planned in (None, epochs) else f"{epochs} of {planned}"
        typical, rate, hours, ratio = row[10:]
        figures = (f"{typical:.4g}", f"{rate:.4g}", f"{hours:.3g}", f"{ratio:.2f}")
        lines.append((data, arch, method, run, place, done, *figures))
    return aligned(lines)

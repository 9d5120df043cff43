"""Runs and attacks side by side: clean and robust accuracy with 95 % Wilson intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.analyses import Result, aligned
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.stats import wilson

KINDS = ("logits",)
COMPARES = True
PICTURE = False
COLUMNS = (
    "run", "role", "method", "attack", "eps", "n",
    "clean_accuracy", "clean_low", "clean_high",
    "robust_accuracy", "robust_low", "robust_high",
    "seed", "steps",
)  # fmt: skip


def analyze(inputs: Sequence[Logits]) -> Result:
    """List logits files, a row each, in the order given."""
    rows = tuple(_row(logits) for logits in inputs)
    return Result({"files": len(rows)}, COLUMNS, rows, text=_text(rows))


def _text(rows: Sequence[tuple[Any, ...]]) -> str:
    """Return the table as aligned text, accuracies in percent."""
    lines: list[tuple[str, ...]] = [
        ("run", "method", "checkpoint", "attack", "eps", "n", "clean %", "robust %")
    ]
    for row in rows:
        run, role, method, attack, eps, n = row[:6]
        steps = f"-{row[-1]}" if row[-1] else ""
        cells = (run, method, role, f"{attack}{steps}", eps or "", n)
        lines.append((*map(str, cells), _percent(*row[6:9]), _percent(*row[9:12])))
    return aligned(lines)


def _percent(share: float | None, low: float | None, high: float | None) -> str:
    if share is None or low is None or high is None:
        return "-"
    return f"{share * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}]"


def _row(logits: Logits) -> tuple[Any, ...]:
    config, n = logits.info["config"], len(logits.labels)
    place = (Path(logits.path).resolve().parent.name, logits.info["role"])
    spec = (logits.info["method"], config["attack"], config.get("eps"), n)
    clean = robust = (None, None, None)
    if bool((logits.labels >= 0).all()):
        clean = _interval(int((logits.clean.argmax(1) == logits.labels).sum()), n)
        if logits.broken_by is not None:
            robust = _interval(int((logits.broken_by == ROBUST).sum()), n)
    trained: Mapping[str, Any] = next(iter(logits.info["parents"]), {})
    return (*place, *spec, *clean, *robust, trained.get("seed"), config.get("steps"))


def _interval(hits: int, n: int) -> tuple[Any, Any, Any]:
    return (hits / n, *wilson(hits, n))

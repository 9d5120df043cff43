"""The log of a run: `metrics.jsonl`, one JSON line an epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict, cast

from advkit.artifacts.provenance import canonical
from advkit.artifacts.schema import Within, fault
from advkit.errors import InputError, brief
from advkit.runtime import reading

Row = dict[str, float]
"""An epoch's metrics: counts, averages, seconds, and whether the masking alarm rang."""
TIMES = ("seconds", "images_per_second")
"""What differs when the same work is done again."""
Value = Annotated[float, Within(-1e300, 1e300)] | bool


class Own(TypedDict):
    """What every row says."""

    epoch: int
    n: int
    seconds: Annotated[float, Within(0, 1e300)]


def lines(path: Path) -> list[str]:
    """Return the lines of a log, but for a last one that was cut off; none where there is no file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        text = reading.text(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: corrupt: {brief(error)}") from None
    written = text.splitlines()
    return written[:-1] if text and not text.endswith("\n") and _torn(written[-1]) else written


def rows(written: Sequence[str], where: object) -> list[Row]:
    """Return the rows that lines hold, checked: epochs from 1 on, finite numbers, shares in [0, 1].

    Raises:
        InputError: a line is no row of a log, naming the first.
    """
    read = []
    for number, line in enumerate(written, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: corrupt: line {number} is not JSON") from None
        wrong = _fault(row, number)
        if wrong:
            raise InputError(f"{where}: corrupt: in line {number} {wrong}")
        read.append(cast(Row, row))
    return read


def digest(read: Sequence[Row]) -> str:
    """Return the sha256 over what rows say, but for times: equal for equal work."""
    said = [{key: value for key, value in row.items() if key not in TIMES} for row in read]
    return f"sha256:{hashlib.sha256(canonical(said).encode()).hexdigest()}"


def _torn(line: str) -> bool:
    # Half an object never is JSON.
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _fault(row: object, number: int) -> str:
    if not isinstance(row, dict):
        return "there is no object"
    wrong = fault(row, Own) or fault(row, dict[str, Value])
    if wrong:
        return wrong
    if row["epoch"] != number:
        return f"epoch is {row['epoch']}"
    shares = (key for key in row if "accuracy" in key and not 0 <= row[key] <= 1)
    return next((f"{key} is not in 0..1" for key in shares), "")

"""What runs cost: seconds per epoch, images per second, hours, and the ratio to the first run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advkit.analyses.gathering.trained import Trained
from advkit.analyses.tables import published as _published
from advkit.analyses.tables.published import Published
from advkit.artifacts.document import NOTHING, Cell, Document, Sheet, Source, aligned
from advkit.artifacts.result import Result
from advkit.errors import InputError

KINDS = ("checkpoint",)
COMPARES = True
PICTURE = False
FORMATS = (".md", ".tex", ".html")
_COLUMNS = (
    "run",
    "data",
    "arch",
    "method",
    "seed",
    "device",
    "threads",
    "epochs",
    "planned_epochs",
    "n",
    "seconds_per_epoch",
    "images_per_second",
    "hours",
    "ratio",
)
_HEAD = (
    "data",
    "arch",
    "method",
    "run",
    "device",
    "epochs",
    "seconds/epoch",
    "images/s",
    "hours",
    "ratio",
)
_WARM = 3
"""Epochs from which on the first one, which warms caches and compiles, is left out."""


def seconds_per_epoch(seconds: Sequence[float]) -> float:
    """Return the median over epochs, the first left out where there are three or more.

    >>> seconds_per_epoch([60.0, 10.0, 12.0, 11.0])
    11.0
    """
    return statistics.median(seconds[1:] if len(seconds) >= _WARM else seconds)


def analyze(inputs: Sequence[Trained], *, against: str | None = None) -> Result:
    """List runs, a row each, in the order given; several checkpoints of one run count once.

    An epoch's seconds hold its validation. Images per second are training images over the
    seconds of an epoch; hours are the sum over the epochs that were run.

    Args:
        against: published table to put beside: adr-table6.

    Raises:
        InputError: a checkpoint without the metrics of its run beside it.
        UsageError: no such published table.

    Source: the layout of ADR, Table 6.
    """
    published = _published.read(against, seconds=True) if against is not None else None
    runs: dict[Path, Trained] = {}
    for each in inputs:
        runs.setdefault(Path(each.path).resolve().parent, each)
    rows: list[tuple[Any, ...]] = []
    for folder, run in runs.items():
        seconds, n = _seconds(run)
        typical = seconds_per_epoch(seconds)
        first = rows[0][_COLUMNS.index("seconds_per_epoch")] if rows else typical
        epochs = (len(seconds), run.info["config"].get("epochs"), n)
        figures = (typical, n / typical, sum(seconds) / 3600, typical / first)
        rows.append((folder.name, *_names(run), *epochs, *figures))
    numbers: dict[str, float | int | str | None] = {"runs": len(rows)}
    lines, text = _lines(rows), aligned([_HEAD, *_lines(rows)])
    sheets, more = [_sheet(lines)], {}
    if published is not None:
        beside = _beside(published, rows)
        sheets.append(_beside_sheet(published, beside))
        text += f"\n\n{_beside_text(published, beside)}"
        more = {"published": beside}
        numbers |= {"against": against, "matched": sum(x["ours"] is not None for x in beside)}
    sources = tuple(_source(run) for run in runs.values())
    document = Document("What runs cost", tuple(sheets), sources=sources)
    return Result(numbers, _COLUMNS, tuple(rows), text=text, more=more, document=document)


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
        seconds = [float(row["seconds"]) for row in rows]
        n = int(rows[-1]["n"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{run.metrics}: not the metrics of a run: no seconds and n") from None
    if n < 1 or not all(0 < each < float("inf") for each in seconds):
        raise InputError(f"{run.metrics}: holds an epoch of no time or no images")
    return seconds, n


def _lines(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        run, data, arch, method, _, device, threads, epochs, planned = row[:9]
        place = f"cpu × {threads}" if device == "cpu" else str(device)
        done = str(epochs) if planned in (None, epochs) else f"{epochs} of {planned}"
        typical, rate, hours, ratio = row[10:]
        figures = (f"{typical:.4g}", f"{rate:.4g}", f"{hours:.3g}", f"{ratio:.2f}")
        lines.append((data, arch, method, run, place, done, *figures))
    return lines


def _sheet(lines: Sequence[tuple[str, ...]]) -> Sheet:
    return Sheet(
        caption="Seconds per epoch",
        spans=(("", len(_HEAD)),),
        head=tuple(word[0].upper() + word[1:] for word in _HEAD),
        words=5,
        rows=tuple(tuple(Cell(text) for text in line) for line in lines),
        notes=(
            "seconds per epoch: the median over epochs, without the first where there are three "
            "or more, validation included",
            "images/s: training images; hours: all epochs; ratio: to the first line",
        ),
    )


def _beside(published: Published, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the published lines with ours: median over runs of one method, and ratios to AT."""
    ours: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        ours.setdefault(row[1:4], []).append(row[_COLUMNS.index("seconds_per_epoch")])
    middle = {key: statistics.median(seconds) for key, seconds in ours.items()}
    theirs = {(x.data, x.arch, x.method): x.seconds for x in published.lines}
    lines = []
    for line in published.lines:
        key, base = (line.data, line.arch, line.method), (line.data, line.arch, "at")
        lines.append(
            {
                "data": line.data,
                "arch": line.arch,
                "label": line.label,
                "method": line.method,
                "published": line.seconds,
                "published_ratio": _ratio(line.seconds, theirs.get(base)),
                "ours": middle.get(key),
                "ours_ratio": _ratio(middle.get(key), middle.get(base)),
            }
        )
    return lines


def _ratio(seconds: float | None, base: float | None) -> float | None:
    return seconds / base if seconds is not None and base is not None else None


def _cells(line: dict[str, Any]) -> list[str]:
    names = [line["data"], line["arch"], line["label"]]
    pairs = [(line[who], line[f"{who}_ratio"]) for who in ("published", "ours")]
    return names + [
        "" if figure is None else form.format(figure)
        for pair in pairs
        for figure, form in zip(pair, ("{:.4g}", "{:.2f}"), strict=True)
    ]


def _notes(published: Published, beside: Sequence[dict[str, Any]]) -> list[str]:
    notes = [f"source: {published.paper['source']}", *published.notes]
    if all(line["ours"] is None for line in beside):
        notes.append("nothing here matches a published line: other data, architecture or method")
    return notes


def _beside_sheet(published: Published, beside: Sequence[dict[str, Any]]) -> Sheet:
    rows = [tuple(Cell(text or NOTHING) for text in _cells(line)) for line in beside]
    places = [(line["data"], line["arch"]) for line in beside]
    return Sheet(
        caption=f"{published.title}: published and ours",
        spans=(("", 3), ("Published", 2), ("Ours", 2)),
        head=("Data", "Architecture", "Method", *(("Seconds/epoch", "Ratio to AT") * 2)),
        words=3,
        rows=tuple(rows),
        breaks=frozenset(k for k in range(1, len(rows)) if places[k] != places[k - 1]),
        notes=tuple(_notes(published, beside)),
    )


def _beside_text(published: Published, beside: Sequence[dict[str, Any]]) -> str:
    head = ("data", "arch", "published", "seconds/epoch", "ratio to AT", "ours", "ratio to AT")
    lines = [[cell or "-" for cell in _cells(line)] for line in beside]
    notes = [f"- {note}" for note in _notes(published, beside)]
    return "\n".join([published.title, aligned([head, *lines]), *notes])


def _source(run: Trained) -> Source:
    keep = ("digest", "config", "parents", "environment", "versions")
    facts = {key: run.info[key] for key in keep if key in run.info}
    return Source(f"{Path(run.path).resolve().parent.name}: {run.info['role']}", facts)

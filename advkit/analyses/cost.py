"""What runs cost: seconds per epoch, images per second, hours, and the ratio to the first run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from advkit.analyses.gathering import naming, protocol
from advkit.analyses.gathering.entries import shown, told_apart
from advkit.analyses.gathering.protocol import Protocol, Setting
from advkit.analyses.gathering.rows import run_name
from advkit.analyses.gathering.trained import Trained
from advkit.analyses.tables import published as _published
from advkit.analyses.tables.published import Published
from advkit.analyses.tables.sheets import source_of
from advkit.artifacts import provenance
from advkit.artifacts.document import NOTHING, Cell, Document, Sheet, aligned
from advkit.artifacts.provenance import canonical
from advkit.artifacts.result import Number, Result
from advkit.config.settings import UNTOLD
from advkit.errors import InputError

KINDS = ("checkpoint",)
COMPARES = True
PICTURE = False
FORMATS = (".md", ".tex", ".html")
_NAMES = ("data", "arch", "method", "run", "device")
_HEAD = (*_NAMES, "epochs", "seconds/epoch", "images/s", "hours", "ratio")
_WARM = 3
"""Epochs from which on the first one, which warms caches and compiles, is left out."""
_SHOWN = ("data", "arch", "device", "threads", "epochs")
"""Settings that have a column."""


def seconds_per_epoch(seconds: Sequence[float]) -> float:
    """Return the median over epochs, the first left out where there are three or more.

    >>> seconds_per_epoch([60.0, 10.0, 12.0, 11.0])
    11.0
    """
    return statistics.median(seconds[1:] if len(seconds) >= _WARM else seconds)


class _Row(NamedTuple):
    """One run."""

    run: str
    data: str
    arch: str
    method: str
    seed: int | None
    device: str | list[str] | None
    threads: int | list[int] | None
    epochs: int
    planned_epochs: int | None
    n: int
    seconds_per_epoch: float
    images_per_second: float
    hours: float
    ratio: float
    differs: str = ""


class _Pair(NamedTuple):
    """A published line beside ours: seconds per epoch, and their ratios to AT's."""

    data: str
    arch: str
    label: str
    method: str
    published: float | None
    published_ratio: float | None
    ours: float | None
    ours_ratio: float | None


def analyze(inputs: Sequence[Trained], *, against: str | None = None) -> Result:
    """List runs, a row each, in the order given; several checkpoints of one run count once.

    An epoch's seconds hold its validation. Images per second are training images over the
    seconds of an epoch; hours are the sum over the epochs that were run. The settings in which runs
    differ, their methods' own aside, are named: a ratio across them is none of methods.

    Args:
        against: published table to put beside: adr-table6.

    Raises:
        InputError: a checkpoint without the metrics of its run beside it.
        UsageError: no such published table.

    Source: the layout of ADR, Table 6.
    """
    published = _published.read(against, seconds=True) if against is not None else None
    runs: dict[Path, Trained] = {}
    for run in inputs:
        runs.setdefault(Path(run.path).resolve().parent, run)
    rows: list[_Row] = []
    for run in runs.values():
        rows.append(_row(run, rows[0].seconds_per_epoch if rows else None))
    differing = protocol.differences(_protocols(list(runs.values()), rows))
    told = [shown(protocol.own(differing, [place])) for place in range(len(rows))]
    rows = [row._replace(differs=words) for row, words in zip(rows, told, strict=True)]
    remarks = _remarks(differing, [row.run for row in rows])
    numbers: dict[str, Number] = {"runs": len(rows)}
    lines = [_line(row) for row in rows]
    text = "\n".join([aligned([_HEAD, *lines]), *(f"note: {remark}" for remark in remarks)])
    sheets = [_sheet([_line(_printed(row)) for row in rows], remarks)]
    more: dict[str, object] = {"differs": protocol.plain(differing)}
    notes: tuple[str, ...] = ()
    if published is not None:
        beside = _beside(published, rows)
        # Published seconds of other data or nets are nothing to measure ours by.
        own = {(row.data, row.arch) for row in rows}
        near = [pair for pair in beside if (pair.data, pair.arch) in own]
        if near:
            sheets.append(_beside_sheet(published, near, len(beside)))
        else:
            notes = tuple(_notes(published, near, len(beside)))
        text += f"\n\n{_beside_text(published, near, len(beside))}"
        more["published"] = [pair._asdict() for pair in beside]
        matched = sum(pair.ours is not None for pair in beside)
        numbers |= {"against": against, "matched": matched}
    sources = tuple(source_of(run.path, run.info["role"], run.info) for run in runs.values())
    document = Document("What runs cost", tuple(sheets), notes, sources=sources)
    return Result(numbers, _Row._fields, tuple(rows), text=text, more=more, document=document)


def _protocols(runs: Sequence[Trained], rows: Sequence[_Row]) -> list[Protocol]:
    """Return what runs hold fixed: data, net, training and machine."""
    data = told_apart([(run.info["data"]["name"], _digest(run)) for run in runs])
    found: list[Protocol] = []
    for run, row, source in zip(runs, rows, data, strict=True):
        outer = {"data": source, "arch": row.arch}
        # Compiling and where noise is drawn change no method, but what it costs.
        config = {"compile": False, **UNTOLD, **run.info["config"]}
        machine = {name: config[name] for name in ("compile", "compile_mode", "noise")}
        machine["device"] = row.device
        inner = {**machine, "threads": row.threads, "n": row.n}
        own = protocol.training(run.info["config"])
        found.append({**_settings(outer), **own, **_settings(inner)})
    return found


def _digest(run: Trained) -> str | None:
    """Return the digest of a run's data."""
    return provenance.data_digest(run.info.get("parents", []))


def _settings(values: Mapping[str, object]) -> dict[str, Setting]:
    return {name: Setting(value, canonical(value)) for name, value in values.items()}


def _remarks(differing: Mapping[str, Sequence[object]], names: Sequence[str]) -> list[str]:
    told = protocol.words(differing, names, _SHOWN)
    return [f"not the same in all runs: {told}"] if told else []


def _row(run: Trained, first: float | None) -> _Row:
    """Return the figures of a run; `first` are the seconds per epoch that its ratio is to."""
    info, machine = run.info, run.info["environment"]
    seconds, n = _seconds(run)
    whole = [spent for spent, row in zip(seconds, run.rows(), strict=True) if _whole(row)]
    typical = seconds_per_epoch(whole or seconds)
    return _Row(
        run=run_name(run.path),
        data=info["data"]["name"],
        arch=info["arch"],
        method=info["method"],
        seed=info["seed"],
        device=machine.get("device"),
        threads=machine.get("threads"),
        epochs=len(seconds),
        planned_epochs=info["config"].get("epochs"),
        n=n,
        seconds_per_epoch=typical,
        images_per_second=n / typical,
        hours=sum(seconds) / 3600,
        ratio=typical / (typical if first is None else first),
    )


def _whole(row: Mapping[str, float]) -> bool:
    """Whether an epoch was timed from its first step: one that was gone on with was not.

    Its images per second are those of the part that was timed.
    """
    if "images_per_second" not in row:
        return True
    seconds = row["seconds"]
    # Rounded to a tenth of an image and to a millisecond.
    least = 0.9 * row["n"] * seconds / (seconds + 0.001) - 0.05 * seconds
    return row["images_per_second"] * seconds > least


def _seconds(run: Trained) -> tuple[list[float], int]:
    """Return the seconds of every epoch, and the training images of one.

    Raises:
        InputError: there are none, or they are not what a run writes.
    """
    rows = run.rows()
    seconds, n = [row["seconds"] for row in rows], int(rows[-1]["n"])
    if n < 1 or min(seconds) <= 0:
        raise InputError(f"{run.metrics}: holds an epoch of no time or no images")
    return seconds, n


def _line(row: _Row) -> tuple[str, ...]:
    place = f"cpu × {row.threads}" if row.device == "cpu" else str(row.device)
    planned = "" if row.planned_epochs in (None, row.epochs) else f" of {row.planned_epochs}"
    names = (row.data, row.arch, row.method, row.run, place, f"{row.epochs}{planned}")
    figures = (row.seconds_per_epoch, row.images_per_second)
    return (*names, *(f"{x:.4g}" for x in figures), f"{row.hours:.3g}", f"{row.ratio:.2f}")


def _printed(row: _Row) -> _Row:
    """Return a row whose method and run are called as in a paper, or by their labels."""
    run = naming.labels().get(row.run, row.run)
    return row._replace(method=naming.method(row.method), run=run)


def _sheet(lines: Sequence[tuple[str, ...]], remarks: Sequence[str]) -> Sheet:
    return Sheet(
        caption="Seconds per epoch",
        spans=(("", len(_HEAD)),),
        head=tuple(word[0].upper() + word[1:] for word in _HEAD),
        words=len(_NAMES),
        rows=tuple(tuple(Cell(text) for text in line) for line in lines),
        notes=(
            *remarks,
            "seconds per epoch: the median over epochs, without the first where there are three "
            "or more, validation included",
            "images/s: training images; hours: all epochs; ratio: to the first line",
        ),
    )


def _beside(published: Published, rows: Sequence[_Row]) -> list[_Pair]:
    """Return the published lines with ours: median over runs of one method, and ratios to AT."""
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        seconds.setdefault((row.data, row.arch, row.method), []).append(row.seconds_per_epoch)
    ours = {key: statistics.median(values) for key, values in seconds.items()}
    theirs = {(line.data, line.arch, line.method): line.seconds for line in published.lines}
    pairs = []
    for line in published.lines:
        names, at = (line.data, line.arch, line.label, line.method), (line.data, line.arch, "at")
        mine = ours.get((line.data, line.arch, line.method))
        ratio = _ratio(line.seconds, theirs.get(at))
        pairs.append(_Pair(*names, line.seconds, ratio, mine, _ratio(mine, ours.get(at))))
    return pairs


def _ratio(seconds: float | None, base: float | None) -> float | None:
    return seconds / base if seconds is not None and base is not None else None


def _cells(pair: _Pair) -> list[str]:
    figures, forms = pair[4:], ("{:.4g}", "{:.2f}") * 2
    texts = ["" if x is None else form.format(x) for x, form in zip(figures, forms, strict=True)]
    return [pair.data, pair.arch, pair.label, *texts]


def _notes(published: Published, shown: Sequence[_Pair], every: int) -> list[str]:
    """Return what stands below the lines that are shown, of `every` that there are."""
    notes = [f"source: {published.paper['source']}", *published.notes]
    if left := every - len(shown):
        notes.append(f"{left} published lines of other data or nets are not shown")
    if all(pair.ours is None for pair in shown):
        notes.append("nothing here matches a published line: other data, architecture or method")
    return notes


def _beside_sheet(published: Published, beside: Sequence[_Pair], every: int) -> Sheet:
    rows = [tuple(Cell(text or NOTHING) for text in _cells(pair)) for pair in beside]
    places = [(pair.data, pair.arch) for pair in beside]
    return Sheet(
        caption=f"{published.title}: published and ours",
        spans=(("", 3), ("Published", 2), ("Ours", 2)),
        head=("Data", "Architecture", "Method", *(("Seconds/epoch", "Ratio to AT") * 2)),
        words=3,
        rows=tuple(rows),
        breaks=frozenset(k for k in range(1, len(rows)) if places[k] != places[k - 1]),
        notes=tuple(_notes(published, beside, every)),
    )


def _beside_text(published: Published, beside: Sequence[_Pair], every: int) -> str:
    head = ("data", "arch", "published", "seconds/epoch", "ratio to AT", "ours", "ratio to AT")
    lines = [[cell or "-" for cell in _cells(pair)] for pair in beside]
    notes = [f"- {note}" for note in _notes(published, beside, every)]
    table = [aligned([head, *lines])] if beside else []
    return "\n".join([published.title, *table, *notes])

"""Runs and attacks as papers' tables: best, final, difference, mean ± sample sd over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from advkit.analyses.gathering.groups import Entry, Group, grouped, shown
from advkit.analyses.tables import pictures
from advkit.analyses.tables import published as _published
from advkit.analyses.tables import sheets as _sheets
from advkit.analyses.tables.beside import Beside
from advkit.analyses.tables.leads import Line, leads
from advkit.artifacts.document import Document, Source
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Result
from advkit.formulas.stats import wilson

KINDS = ("logits",)
COMPARES = True
FORMATS = (".md", ".tex", ".html")
_COLUMNS = (
    "run",
    "role",
    "method",
    "attack",
    "eps",
    "n",
    "clean_accuracy",
    "clean_low",
    "clean_high",
    "robust_accuracy",
    "robust_low",
    "robust_high",
    "seed",
    "steps",
    "data",
    "arch",
    "norm",
    "settings",
    "attack_settings",
    "group",
)


def analyze(
    inputs: Sequence[Logits],
    *,
    spread: Literal["sd", "variance", "range"] = "sd",
    against: str | None = None,
) -> Result:
    """List logits files, a row each, and group them, a line for each recipe and attack.

    A group is data set, architecture, method and the training settings in which its runs differ;
    attack, norm, ε and the attack's options. One seed has its 95 % Wilson interval instead of a
    deviation. Order is that of the input.

    Args:
        spread: what stands beside a mean over seeds.
        against: published table to put beside, such as adr-table1, ltd-table4 or robustbench.

    Raises:
        InputError: a seed is there twice.
        MismatchError: files of one group were not judged on the same examples.
        UsageError: no such published table.
    """
    published = _published.read(against) if against is not None else None
    placed = grouped(inputs)
    lines = _lines(inputs, placed)
    led = leads(lines)
    plain = tuple({**line.plain, "leads": own} for line, own in zip(lines, led, strict=True))
    numbers: dict[str, float | int | str | None] = {"files": len(placed)}
    text = _sheets.text(plain, spread)
    beside = Beside(published, lines) if published else None
    if beside:
        numbers |= {"against": against, "matched": beside.matched}
        text += f"\n\n{beside.text()}"
    return Result(
        numbers,
        _COLUMNS,
        tuple(_row(entry, group) for entry, group in placed),
        panels=pictures.forests(lines),
        text=text,
        groups=plain,
        more=beside.plain() if beside else {},
        document=_document(lines, led, spread, beside),
    )


def _lines(inputs: Sequence[Logits], placed: Sequence[tuple[Entry, Group]]) -> list[Line]:
    """Return the groups in their order, each with its files by point and seed."""
    lines: dict[int, Line] = {}
    for logits, (entry, group) in zip(inputs, placed, strict=True):
        line = lines.get(group.number)
        if line is None:
            line = lines[group.number] = Line(group.plain())
        line.files.setdefault(entry.point, {})[entry.seed] = logits
    return list(lines.values())


def _row(entry: Entry, group: Group) -> tuple[Any, ...]:
    config, labels = entry.attack, group.labels
    spec = (_run(entry.path), entry.role, entry.method, config["attack"], config.get("eps"))
    figures = (*_interval(entry.clean, entry.n), *_interval(entry.robust, entry.n))
    told = (shown(labels["settings"]), shown(labels["attack_settings"]), group.number)
    place = (entry.data, entry.arch, config.get("norm"))
    return (*spec, entry.n, *figures, entry.seed, config.get("steps"), *place, *told)


def _run(path: str) -> str:
    return Path(path).resolve().parent.name


def _interval(hits: int | None, n: int) -> tuple[Any, Any, Any]:
    return (None, None, None) if hits is None else (hits / n, *wilson(hits, n))


def _document(
    lines: Sequence[Line], led: Sequence[Sequence[str]], spread: str, beside: Beside | None
) -> Document:
    """Return what Markdown, LaTeX and HTML hold; pictures are drawn for HTML alone."""
    sheets = _sheets.sheets(lines, led, spread)
    reruns = _sheets.reruns(lines, spread) if spread != "sd" else None
    sheets += [reruns] if reruns else []
    sheets += [beside.sheet()] if beside else []
    return Document(
        title="Robust and standard accuracy",
        sheets=tuple(sheets),
        figures=lambda: pictures.galleries(lines),
        sources=tuple(
            _source(x) for line in lines for of in line.files.values() for x in of.values()
        ),
    )


def _source(logits: Logits) -> Source:
    """Return a file's name and what its description says of it."""
    info: Mapping[str, Any] = logits.info
    name = f"{_run(logits.path)}: {info['role']}, {info['config']['attack']}"
    keep = ("digest", "config", "trained", "implementation", "parents", "environment", "versions")
    return Source(name, {key: info[key] for key in keep if key in info})

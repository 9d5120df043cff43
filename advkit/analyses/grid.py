"""Ablation grids: accuracy by one or two training settings, over seeds, from logits files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from advkit.analyses.drawing.grid import panels, percent, split
from advkit.analyses.gathering import naming, protocol
from advkit.analyses.gathering.cells import (
    Cell,
    Mark,
    cells,
    disagreeing,
    require_known,
    require_one_attack,
    settings_of,
)
from advkit.analyses.gathering.entries import WHATS, Entry
from advkit.analyses.gathering.groups import Group, grouped
from advkit.artifacts import descriptions
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Result
from advkit.errors import InputError, MismatchError, UsageError

KINDS = ("logits",)
COMPARES = True
_FIGURES = ("accuracy", "sd", "low", "high")
_COLUMNS = ("x", "y", "runs", *(f"{what}_{name}" for what in WHATS for name in _FIGURES))

Placed = Sequence[tuple[Entry, Group]]


def analyze(
    inputs: Sequence[Logits],
    *,
    x: str | None = None,
    y: str | None = None,
    over: str | None = None,
    attack: str | None = None,
    point: Literal["best", "final"] = "best",
) -> Result:
    """Lay logits files out by the training settings x and y: mean ± sample sd over seeds.

    Files must agree in everything else: data, examples, attack and every other setting. Where λ or
    τ is an axis, label smoothing stands at λ = ε, τ = ∞, which it is the limit of, and one-hot
    labels at λ = 0. The best cell is `decided` where its 95 % interval lies above every other's;
    `rivals` counts those that reach into it. Axes of the training budget, the data, the net or the
    threat model are named as differences, and no cell is framed as the best across them.

    Args:
        x: setting along the grid; those in which the files differ if not given.
        y: setting up the grid; none gives a curve.
        over: settings to average over as over seeds, apart by commas.
        attack: keep the files of this attack only.
        point: checkpoints to compare, of the best epoch or of the last.

    Raises:
        UsageError: no such setting, or an impossible choice of axes.
        InputError: no file is left, a run lacks an axis's setting, or a seed is there twice.
        MismatchError: files differ in what is neither an axis nor averaged over.

    Source: ADR, figure 5; LTD, Tables 4 to 6.
    """
    placed = _chosen(inputs, attack, point)
    averaged = [name.strip() for name in over.split(",")] if over else []
    axes, settings = _axes(placed, x, y, averaged)
    grid = cells(placed, settings, axes, averaged)
    attacked = placed[0][0].attack
    names = tuple(axes)
    differing = protocol.differences([protocol.evaluated(entry) for entry, _ in placed])
    head = [_head(attacked, point, grid), *_remarks(differing)]
    return Result(
        _numbers(grid, axes, placed, point),
        _COLUMNS,
        tuple(_row(cell) for cell in grid),
        panels(grid, names, _called(attacked), alike=not differing),
        text="\n".join([*head, *_tables(grid, names)]),
        more={"differs": protocol.plain(differing)},
    )


def _chosen(inputs: Sequence[Logits], attack: str | None, point: str) -> Placed:
    """Return the files of one attack and point."""
    attacks = [logits.info["config"]["attack"] for logits in inputs]
    chosen = [x for x, name in zip(inputs, attacks, strict=True) if attack in (None, name)]
    if not chosen:
        there = ", ".join(sorted(set(attacks)))
        raise InputError(f"--attack {attack}: no file holds it (they hold {there})")
    placed = [(entry, group) for entry, group in grouped(chosen) if entry.point == point]
    if not placed:
        raise InputError(f"--point {point}: no file is of such a checkpoint")
    entries = [entry for entry, _ in placed]
    require_one_attack(entries)
    if len({entry.recorded for entry in entries}) > 1:
        silent = next(entry.path for entry in entries if not entry.recorded)
        raise MismatchError(
            f"{silent} does not tell how its run was trained, others do: attack its checkpoint anew"
        )
    if all(entry.hits["clean"] is None for entry in entries):
        raise InputError("the files are out-of-distribution: a grid needs labels")
    return placed


def _axes(
    placed: Placed, x: str | None, y: str | None, averaged: Sequence[str]
) -> tuple[list[str], list[dict[str, object]]]:
    """Return the axes, and the settings of each file.

    Raises:
        UsageError: no such setting, y without x, or one setting twice.
        MismatchError: other settings differ.
    """
    if y and (not x or x == y):
        raise UsageError("--y needs an --x of another name")
    axes = [name for name in (x, y) if name]
    settings = [settings_of(entry, group, axes) for entry, group in placed]
    require_known([*axes, *averaged], settings)
    left = [name for name in disagreeing(settings) if name not in (*axes, *averaged)]
    # One or two settings that differ are the axes, unless the caller named others.
    if not axes and len(left) <= 2:
        return left, settings
    if left:
        hint = "--x and --y" if not axes else "--over"
        raise MismatchError(
            f"the runs differ in {', '.join(left)} too: give runs that agree in it, or name it "
            f"with {hint}"
        )
    return axes, settings


def _row(cell: Cell) -> tuple[float | str | None, ...]:
    row = [_plain(cell.x), _plain(cell.y), len(cell.group.entries)]
    for what in WHATS:
        summary = cell.summary(what)
        row += [summary.mean, summary.sd, *summary.interval] if summary else [None] * len(_FIGURES)
    return tuple(row)


def _plain(place: Mark | None) -> float | str | None:
    return None if place is None else place.plain


def _numbers(
    cells: Sequence[Cell], axes: Sequence[str], placed: Placed, point: str
) -> dict[str, Number]:
    entry = placed[0][0]
    x, y = (*axes, None, None)[:2]
    numbers: dict[str, Number] = {
        "files": len(placed),
        "cells": len(cells),
        "n": entry.n,
        "x": x,
        "y": y,
        "point": point,
        "attack": entry.attack["attack"],
        "settings_recorded": entry.recorded,
    }
    robust = [(cell, summary) for cell in cells if (summary := cell.summary("robust"))]
    if not robust:
        none = dict.fromkeys(("best_x", "best_y", "best_robust_accuracy", "rivals", "decided"))
        return numbers | none
    best, top = max(robust, key=lambda pair: pair[1].mean)
    # Conservative: intervals may overlap where a test of the difference would decide.
    others = [summary for cell, summary in robust if cell is not best]
    rivals = sum(summary.interval[1] >= top.interval[0] for summary in others)
    return numbers | {
        "best_x": _plain(best.x),
        "best_y": _plain(best.y),
        "best_robust_accuracy": top.mean,
        "rivals": rivals,
        "decided": rivals == 0 if len(robust) > 1 else None,
    }


def _words(attack: descriptions.Attack) -> str:
    """Name an attack as in `pgd-10, linf 8/255`."""
    steps = f"-{attack['steps']}" if attack.get("steps") else ""
    ball = f", {attack['norm']} {attack['eps']}" if attack.get("eps") else ""
    return f"{attack['attack']}{steps}{ball}"


def _called(attack: descriptions.Attack) -> str:
    """Name an attack for the picture: `PGD-10, ℓ∞, ε = 8/255`."""
    return naming.against(attack) or naming.attack(attack["attack"])


def _head(attack: descriptions.Attack, point: str, cells: Sequence[Cell]) -> str:
    runs = [len(cell.group.entries) for cell in cells]
    count = "-".join(map(str, sorted({min(runs), max(runs)})))
    seeds = f"{count} run{'s' * (max(runs) > 1)}"
    figures = "mean ± sd" if max(runs) > 1 else "with 95 % intervals"
    return f"{_words(attack)}; {point} checkpoints, {seeds} a cell, {figures}; in %"


def _remarks(differing: Mapping[str, Sequence[object]]) -> list[str]:
    """Say in which settings cells differ that make no method."""
    if not differing:
        return []
    values = [
        f"{name} {', '.join(map(protocol.spelt, own))}"
        for name, own in protocol.plain(differing).items()
    ]
    told = "; ".join(values)
    return [f"note: not the same in all cells: {told}; no cell is the best method across it"]


def _tables(cells: Sequence[Cell], axes: Sequence[str]) -> list[str]:
    """Return aligned tables: one of both accuracies for one axis, one each for two."""
    known = [what for what in WHATS if any(cell.shares(what) for cell in cells)]
    if len(axes) == 2:
        return [_block(cells, axes, what) for what in known]
    lines = [(c.x.text if c.x else "all", *(percent(c, what) for what in known)) for c in cells]
    return [aligned([(axes[0] if axes else "", *known), *lines])]


def _block(cells: Sequence[Cell], axes: Sequence[str], what: str) -> str:
    """Return one accuracy: y down, x along; lone recipes below."""
    grid, alone = split(cells)
    columns = sorted({cell.x for cell in grid if cell.x})
    placed = {(cell.x, cell.y): percent(cell, what) for cell in grid}
    table: list[list[object]] = [[f"{axes[1]} \\ {axes[0]}", *(x.text for x in columns)]]
    for row in sorted({cell.y for cell in grid if cell.y}):
        table.append([row.text, *(placed.get((x, row), "-") for x in columns)])
    below = [
        f"{axes[1]} {cell.y.text}, {axes[0]} {cell.x.text}: {percent(cell, what)}"
        for cell in alone
        if cell.x and cell.y
    ]
    return "\n".join([f"{what} accuracy", aligned(table), *below])

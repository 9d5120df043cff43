"""Runs and attacks as papers' tables: best, final, difference, mean ± sample sd over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.analyses import Result, aligned
from advkit.analyses._groups import Entry, Group, grouped, shown
from advkit.artifacts.hdf5 import Logits
from advkit.stats import wilson

KINDS = ("logits",)
COMPARES = True
PICTURE = False
COLUMNS = (
    "run", "role", "method", "attack", "eps", "n",
    "clean_accuracy", "clean_low", "clean_high",
    "robust_accuracy", "robust_low", "robust_high",
    "seed", "steps", "data", "arch", "norm", "settings", "attack_settings", "group",
)  # fmt: skip
HEAD = (
    "data", "arch", "method", "settings", "attack", "norm", "eps", "n", "seeds",
    "robust best %", "robust final %", "difference",
    "clean best %", "clean final %", "difference",
)  # fmt: skip


def analyze(inputs: Sequence[Logits]) -> Result:
    """List logits files, a row each, and group them, a line for each recipe and attack.

    A group is data set, architecture, method and the training settings in which its runs differ;
    attack, norm, ε and the attack's options. One seed has its 95 % Wilson interval instead of a
    deviation. Order is that of the input.

    Raises:
        InputError: a seed is there twice.
        MismatchError: files of one group were not judged on the same examples.
    """
    placed = grouped(inputs)
    groups = list({group.number: group for _, group in placed}.values())
    plain = tuple(group.plain() for group in groups)
    return Result(
        {"files": len(placed)},
        COLUMNS,
        tuple(_row(entry, group) for entry, group in placed),
        text=_text(plain),
        groups=plain,
    )


def _row(entry: Entry, group: Group) -> tuple[Any, ...]:
    config, labels = entry.attack, group.labels
    run = Path(entry.path).resolve().parent.name
    spec = (run, entry.role, entry.method, config["attack"], config.get("eps"), entry.n)
    figures = (*_interval(entry.clean, entry.n), *_interval(entry.robust, entry.n))
    told = (shown(labels["settings"]), shown(labels["attack_settings"]), group.number)
    place = (entry.data, entry.arch, config.get("norm"))
    return (*spec, *figures, entry.seed, config.get("steps"), *place, *told)


def _interval(hits: int | None, n: int) -> tuple[Any, Any, Any]:
    return (None, None, None) if hits is None else (hits / n, *wilson(hits, n))


def _text(groups: Sequence[Mapping[str, Any]]) -> str:
    """Return the groups as aligned text, accuracies in percent, without empty columns."""
    lines = [_line(group) for group in groups]
    kept = [place for place in range(len(HEAD)) if any(line[place] for line in lines)]
    return aligned([[line[place] or "-" for place in kept] for line in (HEAD, *lines)])


def _line(group: Mapping[str, Any]) -> tuple[str, ...]:
    method, attack = group["method"], group["attack"]
    if (group["weights"] == "average") != method.endswith("-wa"):
        method += f" ({group['weights']})"  # not the weights that its name promises
    if group["steps"]:
        attack += f"-{group['steps']}"
    if group["attack_settings"]:
        attack += f" ({shown(group['attack_settings'])})"
    settings = shown(group["settings"])
    if not group["settings_recorded"]:
        settings += ("; " if settings else "") + "others not recorded"
    names = (group["data"], group["arch"], method, settings, attack)
    sizes = (group["norm"] or "", group["eps"] or "", str(group["n"]), str(group["seeds"]))
    cells = [
        _cell(group, f"{what}_{point}")
        for what in ("robust", "clean")
        for point in ("best", "final", "difference")
    ]
    return (*names, *sizes, *cells)


def _cell(group: Mapping[str, Any], name: str) -> str:
    """Return `mean ± sd` or `share [low, high]` in percent, with the seeds where some lack it."""
    if group[f"{name}_mean"] is None:
        return ""
    text = f"{group[f'{name}_mean'] * 100:.2f}"
    if group[f"{name}_sd"] is not None:
        text += f" ± {group[f'{name}_sd'] * 100:.2f}"
    elif group.get(f"{name}_ci95"):
        text += " [{:.1f}, {:.1f}]".format(*(end * 100 for end in group[f"{name}_ci95"]))
    few = group[f"{name}_seeds"] != group["seeds"]
    return text + (f" ({group[f'{name}_seeds']})" if few else "")

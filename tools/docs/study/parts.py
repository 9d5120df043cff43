"""What recipes of a few seeds summed up (docs/results/cpu/PART/), read back by row and seed."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

from study.estimates import BySeed, Estimate, Value

ATTACKS = {"pgd": "PGD-20", "fast": "APGD-CE+T", "autoattack": "AutoAttack"}
ROW = re.compile(r"(?:.*/)?([^/]+)-s(\d+)/([^/.]+)")
RUN = re.compile(r"(?:.*/)?(.+)-s(\d+)")


class Part:
    """One recipe's figures. A row is RUN/POINT, such as `adr/best` or `at/final-ema`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accuracies: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        for attack in ATTACKS:
            for line in _table(folder / f"{attack}.csv"):
                run, seed = _matched(RUN, line["run"])
                found = self.accuracies.setdefault((f"{run}/{line['role']}", attack), {})
                found[int(seed)] = {
                    what: 100 * float(line[f"{what}_accuracy"]) for what in ("clean", "robust")
                }
        self.pairs: dict[tuple[str, str, str], dict[int, Value]] = {}
        for record in lines(folder / "compare.jsonl"):
            first, *others = (_row(name)[0] for name in record["rows"].split())
            robust = [line for line in record["record"]["rows"] if line["what"] == "robust"]
            for other, line in zip(others, robust, strict=True):
                value = tuple(100 * line[key] for key in ("difference", "low", "high"))
                self.pairs.setdefault((record["attack"], first, other), {})[record["seed"]] = value

    def accuracy(self, row: str, attack: str, what: str) -> list[float]:
        """Return clean or robust accuracy in percent by seed."""
        found = self.accuracies.get((row, attack), {})
        return [found[seed][what] for seed in sorted(found)]

    def pair(self, attack: str, first: str, second: str) -> Estimate | None:
        """Return second less first in robust accuracy on the same images, in points."""
        if found := self.pairs.get((attack, first, second)):
            return Estimate(dict(sorted(found.items())), self._chance(attack, first, second))
        opposite = self.pairs.get((attack, second, first)) and self.pair(attack, second, first)
        return -opposite if opposite else None

    def _chance(self, attack: str, first: str, second: str) -> tuple[BySeed, ...]:
        """Return the rows whose scatter moves a difference: two, or that of one's two points."""
        rows = [
            {seed: each["robust"] for seed, each in self.accuracies.get((row, attack), {}).items()}
            for row in (first, second)
        ]
        if first.split("/")[0] != second.split("/")[0]:
            return tuple(rows)
        # Points of the same trainings: what chance they share is in neither's difference.
        one, other = rows
        return ({seed: other[seed] - one[seed] for seed in sorted(one.keys() & other.keys())},)

    def gap(self, run: str) -> Estimate | None:
        """Return best less final under APGD-CE+T, in points."""
        return self.pair("fast", f"{run}/final", f"{run}/best")

    def figure(self, analysis: str, key: str, row: str) -> Estimate | None:
        """Return a figure of an analysis of PGD-20's logits."""
        found = self._figures(analysis, key).get(row)
        return _alone(found) if found else None

    def _figures(self, analysis: str, key: str) -> dict[str, dict[int, Value]]:
        found: dict[str, dict[int, Value]] = {}
        for line in lines(self.folder / f"{analysis}.jsonl"):
            row, seed = _row(line["input"])
            if ends := line.get(f"{key}_ci95"):
                found.setdefault(row, {})[seed] = (line[key], *ends)
        return found

    @property
    def seeds(self) -> int:
        """Most seeds of a row."""
        return max((len(found) for found in self.accuracies.values()), default=0)


def _alone(values: dict[int, Value]) -> Estimate:
    """Return the estimate of one row's figure."""
    return Estimate(dict(sorted(values.items())), ({k: v for k, (v, _, _) in values.items()},))


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines, none if it is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def hours(folder: Path) -> tuple[float, int]:
    """Return the processor's hours in all steps, and the number of steps.

    A step that was begun again counts with all its times but those that were cut off.
    """
    found = lines(folder / "hours.jsonl")
    steps = {(line["run"], line["what"]) for line in found}
    return sum(line["user"] + line["system"] for line in found) / 3600, len(steps)


def _table(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _matched(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    found = pattern.match(text)
    if not found:
        raise ValueError(f"{text}: wanted RUN-sSEED")
    return found.groups()


def _row(path: str) -> tuple[str, int]:
    run, seed, point = _matched(ROW, path)
    return f"{run}/{point}", int(seed)

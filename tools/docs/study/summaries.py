"""The study's committed summaries (docs/results/study/), read back by size, row and seed."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.asked import Term

Bits = NDArray[np.bool_]
Effects = NDArray[np.float64]
ID = re.compile(r"([SM])-(.+)-s(\d+)$")
HELD_OUT = 20
"""First of the seeds that no claim is judged by."""
VERDICTS = ("robust", "clean")


@dataclass(frozen=True)
class Run:
    """One training: verdicts by point and kind, (N,) bool, and figures of its best checkpoint."""

    images: str
    verdicts: dict[str, dict[str, Bits]]
    figures: dict[str, float]

    def has(self, point: str, measure: str) -> bool:
        """Whether it was measured."""
        return measure in (self.verdicts.get(point, {}) if measure in VERDICTS else self.figures)


@dataclass(frozen=True)
class Check:
    """AutoAttack on the first images, (n,) bool each: it, its first two attacks, the short ones."""

    autoattack: Bits
    fast: Bits
    short: Bits


@dataclass(frozen=True)
class Study:
    """All that is there: runs by (size, run, seed), and AutoAttack's by the same."""

    runs: dict[tuple[str, str, int], Run] = field(default_factory=dict)
    checks: dict[tuple[str, str, int], Check] = field(default_factory=dict)

    def seeds(self, terms: Sequence[Term], measure: str, *, held_out: bool = False) -> list[int]:
        """Return the seeds that all rows of an effect have."""
        own = [
            {seed for (size, run, seed), found in self.runs.items()
             if (size, run) == (term.size, term.row.split("/")[0])
             and (seed >= HELD_OUT) == held_out
             and found.has(_point(term), measure)}
            for term in terms
        ]  # fmt: skip
        return sorted(set.intersection(*own)) if own else []

    def effects(self, terms: Sequence[Term], measure: str, seeds: Sequence[int]) -> Effects:
        """Return the signed sum of verdicts by seed and image, (K, N) float64, in points."""
        rows = []
        for seed in seeds:
            found = [self._run(term, seed).verdicts[_point(term)][measure] for term in terms]
            signed = zip(terms, found, strict=True)
            rows.append(sum(100.0 * term.sign * bits for term, bits in signed))
        return np.array(rows, dtype=np.float64)

    def figures(self, terms: Sequence[Term], measure: str, seeds: Sequence[int]) -> list[float]:
        """Return the signed sum of a figure by seed."""
        return [
            sum(term.sign * self._run(term, seed).figures[measure] for term in terms)
            for seed in seeds
        ]

    def _run(self, term: Term, seed: int) -> Run:
        return self.runs[term.size, term.row.split("/")[0], seed]


def _point(term: Term) -> str:
    return term.row.split("/")[1]


def unpacked(text: str, n: int) -> Bits:
    """Return n bits of base64 text: first image first, highest bit first.

    Raises:
        ValueError: another number of bytes than n bits take.
    """
    data = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(data) != (n + 7) // 8:
        raise ValueError(f"{len(data)} bytes are not {n} bits")
    return np.unpackbits(data)[:n].astype(np.bool_)


def read(folder: Path) -> Study:
    """Read every summary of a folder.

    Raises:
        ValueError: runs saw other test images, or a summary is not what its name says.
    """
    runs = dict(_runs(folder))
    seen = {run.images for run in runs.values()}
    if len(seen) > 1:
        raise ValueError(f"{folder}: runs of other test images: {', '.join(sorted(seen))}")
    return Study(runs, dict(_checks(folder, runs)))


def _key(path: Path, given: dict[str, object]) -> tuple[str, str, int]:
    found = ID.match(path.name.split(".")[0])
    if found:
        size, run, seed = found[1], found[2], int(found[3])
        if (size, run, seed) == (given["size"], given["run"], given["seed"]):
            return size, run, seed
    raise ValueError(f"{path}: not a summary of what its name says")


def _runs(folder: Path) -> Iterator[tuple[tuple[str, str, int], Run]]:
    for path in sorted(folder.glob("[SM]-*-s*.json")):
        if path.name.endswith(".autoattack.json"):
            continue
        given = json.loads(path.read_text(encoding="utf-8"))
        bits = {
            point: {kind: unpacked(text, given["n"]) for kind, text in kinds.items()}
            for point, kinds in given["verdicts"].items()
        }
        yield _key(path, given), Run(given["images"], bits, given["figures"])


def _checks(
    folder: Path, runs: dict[tuple[str, str, int], Run]
) -> Iterator[tuple[tuple[str, str, int], Check]]:
    for path in sorted(folder.glob("[SM]-*-s*.autoattack.json")):
        given = json.loads(path.read_text(encoding="utf-8"))
        key = _key(path, given)
        short = runs[key].verdicts[given["point"]]["robust"]
        n, among = given["n"], unpacked(given["among"], len(short))
        autoattack, fast = unpacked(given["robust"], n), unpacked(given["fast"], n)
        yield key, Check(autoattack, fast, short[among])

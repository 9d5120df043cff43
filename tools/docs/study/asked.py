"""The claims as they were written down before the study (docs/results/claims.toml)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TERM = re.compile(r"([+-])([\w-]+)/(best|final)(-ema)?(?:@(\w+))?$")
BETWEEN = "M − S"
"""What stands for the size of a claim that compares two."""


@dataclass(frozen=True)
class Term:
    """A row's figure in an effect, with its sign: `row` is RUN/POINT, `size` S or M."""

    sign: int
    row: str
    size: str


@dataclass(frozen=True)
class Measure:
    """What is measured of a row, and in what."""

    unit: str
    says: str


@dataclass(frozen=True)
class Size:
    """Training images, and how long a run trains on them."""

    train: int
    epochs: int
    batch: int


@dataclass(frozen=True)
class Asked:
    """One test: a claim at one size. The effect is positive if the claim is true."""

    id: str
    family: str
    by: str
    source: str
    said: str
    measure: str
    size: str
    terms: tuple[Term, ...]
    paper: float | None


@dataclass(frozen=True)
class Claims:
    """All that was written down: tests in order, families, measures, sizes, and the two numbers."""

    tests: tuple[Asked, ...]
    families: dict[str, str]
    measures: dict[str, Measure]
    sizes: dict[str, Size]
    level: float
    margin: float


def read(path: Path) -> Claims:
    """Read the claims.

    Raises:
        ValueError: a claim names no family, measure or size that is there, or its effect is no sum.
    """
    with path.open("rb") as file:
        given = tomllib.load(file)
    sizes = {name: Size(**size) for name, size in given["sizes"].items()}
    measures = {name: Measure(**measure) for name, measure in given["measures"].items()}
    families: dict[str, str] = given["families"]
    tests = tuple(test for claim in given["claim"] for test in _tests(claim, list(sizes)))
    for test in tests:
        if test.family not in families or test.measure not in measures:
            raise ValueError(f"{test.id}: no such family or measure")
        if any(term.size not in sizes for term in test.terms):
            raise ValueError(f"{test.id}: no such size")
    return Claims(tests, families, measures, sizes, given["level"], given["margin"])


def _tests(claim: dict[str, object], sizes: list[str]) -> Iterator[Asked]:
    """Yield a claim's tests: one for each of its sizes, or one that compares them."""
    effect = [str(term) for term in _list(claim["effect"])]
    across = any("@" in term for term in effect)
    paper = claim.get("paper")
    for size in [BETWEEN] if across else _list(claim.get("sizes", sizes)):
        yield Asked(
            id=str(claim["id"]),
            family=str(claim["family"]),
            by=str(claim["by"]),
            source=str(claim.get("source", "")),
            said=str(claim["said"]),
            measure=str(claim.get("measure", "robust")),
            size=str(size),
            terms=tuple(_term(term, str(size)) for term in effect),
            paper=float(paper) if isinstance(paper, int | float) else None,
        )


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r}: wanted a list")
    return value


def _term(text: str, size: str) -> Term:
    found = TERM.match(text)
    if not found:
        raise ValueError(f"{text}: wanted +RUN/POINT or -RUN/POINT")
    sign, run, point, average, own = found.groups()
    return Term(1 if sign == "+" else -1, f"{run}/{point}{average or ''}", own or size)

"""Damage every format that is read many times over, and write down what came of it.

python -m tests.faults.fuzz_campaign --cases 10000 --out docs/fuzz-campaign.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch

from tests.faults._formats import FORMATS
from tests.faults.test_fuzz_structured import PROPERTIES, tried

T = TypeVar("T")


def chosen(items: Iterable[T], names: list[str] | None, name: Callable[[T], str]) -> list[T]:
    """Return the items of these names, all where there are none."""
    return [each for each in items if not names or name(each) in names]


def say(line: str, violations: list[str]) -> None:
    """Print a line, and the first violations below it."""
    print("\n  ".join([line, *violations[:40]]), file=sys.stderr, flush=True)


def main() -> int:
    """Run the campaign; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="mutations of each format")
    parser.add_argument("--examples", type=int, default=2000, help="of each structured input")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", nargs="*", help="names of formats; all if not given")
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = range(given.first, given.first + given.cases)
    found: dict[str, dict[str, Any]] = {"mutations": {}, "structured": {}}
    broken = 0
    for each in chosen(FORMATS, given.only, lambda kind: kind.name):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            outcomes = each.outcomes(Path(scratch), cases)
        counts = found["mutations"][each.name] = {
            "cases": len(cases),
            **dict(sorted(outcomes.counts.items())),
            "violations": len(outcomes.violations),
            "slowest_seconds": round(outcomes.slowest, 2),
        }
        broken += len(outcomes.violations)
        took = time.monotonic() - begun
        say(f"{each.name}: {counts} in {took:.0f} s", outcomes.violations)
    for each in chosen(PROPERTIES, given.only, lambda property_: property_.__name__):
        with tempfile.TemporaryDirectory() as scratch:
            violations = tried(each, given.examples, Path(scratch))
        counts = {"examples": given.examples, "violations": len(violations)}
        found["structured"][each.__name__] = counts
        broken += len(violations)
        say(f"{each.__name__}: {counts}", violations)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return min(broken, 1)


if __name__ == "__main__":
    sys.exit(main())

"""Damage every format that is read many times over, and write down what came of it.

python -m tests.faults.fuzz_campaign --cases 10000 --out docs/fuzz-campaign.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.faults._formats import FORMATS


def main() -> int:
    """Run the campaign; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="mutations of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", nargs="*", help="names of formats; all if not given")
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = range(given.first, given.first + given.cases)
    found, broken = {}, 0
    for each in FORMATS:
        if given.only and each.name not in given.only:
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            outcomes = each.outcomes(Path(scratch), cases)
        found[each.name] = {
            "cases": len(cases),
            **dict(sorted(outcomes.counts.items())),
            "violations": len(outcomes.violations),
            "slowest_seconds": round(outcomes.slowest, 2),
        }
        broken += len(outcomes.violations)
        took = time.monotonic() - begun
        print(f"{each.name}: {found[each.name]} in {took:.0f} s", file=sys.stderr, flush=True)
        for line in outcomes.violations[:40]:
            print(f"  {line}", file=sys.stderr, flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return min(broken, 1)


if __name__ == "__main__":
    sys.exit(main())

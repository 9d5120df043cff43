"""Every row has a test and a line on the page, and the page says what the campaign measured."""

from __future__ import annotations

import json
import re

import pytest

from tests.faults._runs import ROOT
from tests.faults.campaign import PARTS, table

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
SUMMARY = json.loads((ROOT / "docs" / "fault-campaign.json").read_text(encoding="utf-8"))
TESTS = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "faults").glob("test_*.py")
)


@pytest.mark.parametrize("number", ROWS)
def test_every_row_has_a_test(number):
    assert re.search(rf"^def test_row_{number:02}_", TESTS, re.MULTILINE)


def test_every_test_has_a_row():
    tested = {int(number) for number in re.findall(r"^def test_row_(\d+)_", TESTS, re.MULTILINE)}
    assert tested == set(ROWS)
    assert sorted(set(ROWS)) == ROWS
    assert {number for number in range(1, 38) if number != 22} <= set(ROWS)


def test_the_page_says_what_was_measured():
    shown = re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)
    assert shown == table(SUMMARY)


def test_all_parts_were_run_and_nothing_was_lost():
    assert list(SUMMARY["parts"]) == list(PARTS)
    for name, part in SUMMARY["parts"].items():
        assert part["trials"] > 0, name
        assert part.get("losses", 0) == part.get("silent_changes", 0) == 0, name


def test_the_counts_are_those_that_were_asked_for():
    parts = SUMMARY["parts"]
    for name in ("at", "trades-adr-awp", "ltd", "softlabels", "attack", "search"):
        assert parts[f"kills-{name}"]["trials"] >= 50
    assert parts["flips-checkpoint"]["trials"] == 4000 + parts["flips-checkpoint"]["bytes"]
    assert parts["flips-logits"]["trials"] >= 1200
    assert parts["flips-labels"]["trials"] >= 1200
    slowest = [part["slowest_save"] for part in parts.values() if "slowest_save" in part]
    assert max(slowest) < 5


def test_the_page_says_what_fuzzing_found():
    found = json.loads((ROOT / "docs" / "fuzz-campaign.json").read_text(encoding="utf-8"))
    mutations, structured = found["mutations"].values(), found["structured"].values()
    cases, examples = min(x["cases"] for x in mutations), min(x["examples"] for x in structured)
    page = " ".join(PAGE.split())
    assert f"{cases:,} mutations of each of {len(mutations)} formats" in page
    assert f"{examples:,} examples of each of {len(structured)} structures" in page
    assert f"{sum(x['violations'] for x in (*mutations, *structured))} violations" in page
    assert cases >= 10_000

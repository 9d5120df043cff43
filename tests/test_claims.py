"""What the study was asked before it ran: the list is whole, and its page is made of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from advkit.analyses.tables import published

DOCS = Path(__file__).parents[1] / "docs"
TOOLS = DOCS.parent / "tools" / "docs"
LIST = DOCS / "results" / "claims.toml"


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    sys.path.insert(0, str(TOOLS))
    try:
        from study import asked, claims_page
    finally:
        sys.path.remove(str(TOOLS))
    return SimpleNamespace(asked=asked, page=claims_page, claims=asked.read(LIST))


def test_the_page_is_made_of_the_list(study):
    text = (DOCS / "claims.md").read_text(encoding="utf-8")
    assert study.page.page(study.claims, DOCS / "results" / "claims.md.in") == text


def test_every_effect_is_a_difference_of_rows_that_are_known(study):
    """Signs add up to 0: nothing is claimed of a level."""
    for test in study.claims.tests:
        assert sum(term.sign for term in test.terms) == 0, test.id
        assert {term.row.split("/")[0] for term in test.terms} <= study.page.NAMES.keys()


def test_a_claim_is_asked_once_at_a_size(study):
    keys = [(test.id, test.size) for test in study.claims.tests]
    assert len(keys) == len(set(keys))
    effects = [(test.measure, frozenset(test.terms)) for test in study.claims.tests]
    assert len(effects) == len(set(effects))


def test_a_claim_of_two_sizes_is_one_test(study):
    (test,) = [test for test in study.claims.tests if test.id == "adr-grows"]
    assert test.size == study.asked.BETWEEN
    assert {term.size for term in test.terms} == {"S", "M"}


def test_who_claims_is_said(study):
    """A paper's claim has its table, figure or section; only a paper's has a figure."""
    for test in study.claims.tests:
        assert test.by in ("ADR", "LTD", "AWP", "this project")
        assert bool(test.source) == (test.by != "this project"), test.id
        assert test.paper is None or test.by in ("ADR", "LTD"), test.id


ADR = {  # rows of ADR's tables 1 and 2, ResNet-18, CIFAR-10: robust, or clean
    "overfits": ("robust", "at best", "at final"),
    "adr-best": ("robust", "adr best", "at best"),
    "adr-final": ("robust", "adr final", "at final"),
    "trades-adr-best": ("robust", "trades-adr best", "trades best"),
    "trades-adr-final": ("robust", "trades-adr final", "trades final"),
    "adr-clean": ("clean", "adr final", "at final"),
    "wa": ("robust", "at-wa best", "at best"),
    "all-three": ("robust", "adr-awp-wa best", "at best"),
    "all-three-over-wa": ("robust", "adr-awp-wa best", "at-wa best"),
}


def test_adr_s_figures_are_the_published_ones(study):
    found: dict[str, dict[str, float]] = {"robust": {}, "clean": {}}
    for table in ("adr-table1", "adr-table2"):
        for line in published.read(table).lines:
            if (line.data, line.arch, line.extra) == ("cifar10", "resnet18", False):
                key = f"{line.method} {line.point}"
                found["robust"].setdefault(key, 100 * line.robust[0])
                found["clean"].setdefault(key, 100 * line.clean[0])
    given = {t.id: t.paper for t in study.claims.tests if t.by == "ADR" and t.paper is not None}
    for claim, (what, more, fewer) in ADR.items():
        difference = found[what][more] - found[what][fewer]
        assert given.pop(claim) == pytest.approx(difference), claim
    gaps = [found["robust"][f"{m} best"] - found["robust"][f"{m} final"] for m in ("at", "adr")]
    assert given == {"adr-gap": pytest.approx(gaps[0] - gaps[1])}


def test_ltd_s_figures_are_those_of_its_table_4(study):
    robust = {"trades": 53.08, "1": 54.38, "2": 54.90, "5": 55.09, "20": 0.0}
    clean = {"trades": 84.92, "5": 86.20}
    wanted = {
        "ltd-5": robust["5"] - robust["trades"], "ltd-2": robust["2"] - robust["trades"],
        "ltd-1": robust["1"] - robust["trades"], "ltd-20": robust["5"] - robust["20"],
        "ltd-clean": clean["5"] - clean["trades"],
    }  # fmt: skip
    given = {t.id: t.paper for t in study.claims.tests if t.by == "LTD" and t.paper is not None}
    assert given == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("line", "wrong", "says"),
    [
        ('measure = "clean"', 'measure = "luck"', "no such family or measure"),
        ('"+adr/best", "-at/best"', '"adr/best", "-at/best"', "wanted"),
        ('-at/best@M"', '-at/best@L"', "no such size"),
    ],
)
def test_what_is_not_there_cannot_be_asked(study, tmp_path, line, wrong, says):
    path = tmp_path / "claims.toml"
    path.write_text(LIST.read_text(encoding="utf-8").replace(line, wrong, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        study.asked.read(path)

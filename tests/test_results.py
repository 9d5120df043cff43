"""The page of the study: its rule, its readers, and that it is what its files say."""

from __future__ import annotations

import csv
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy.stats import t

from advkit.analyses.tables import published

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TOOLS = ROOT / "tools" / "docs"
CPU = DOCS / "results" / "cpu"


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    sys.path.insert(0, str(TOOLS))
    try:
        import results
        from study import claims, estimates, parts
    finally:
        sys.path.remove(str(TOOLS))
    return SimpleNamespace(results=results, claims=claims, estimates=estimates, parts=parts)


def estimate(study: SimpleNamespace, *values: tuple[float, float, float], sd: float = 0.0):
    return study.estimates.Estimate(dict(enumerate(values)), study.estimates.Spread(sd, 10))


def test_seeds_do_not_narrow_what_the_images_leave_open(study):
    found = estimate(study, (1.0, 0.0, 3.0), (3.0, 2.0, 5.0))
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 4.0)


def test_seeds_narrow_what_training_leaves_open(study):
    found = estimate(study, *[(1.0, 1.0, 1.0)] * 4, sd=3.0)
    half = t.ppf(0.975, 10) * 3.0 / 2
    assert (found.low, found.high) == pytest.approx((1.0 - half, 1.0 + half))


def test_both_add_in_squares(study):
    half = t.ppf(0.975, 10) * 1.0
    found = estimate(study, (5.0, 2.0, 9.0), sd=1.0)
    assert found.low == pytest.approx(5.0 - (9.0 + half**2) ** 0.5)
    assert found.high == pytest.approx(5.0 + (16.0 + half**2) ** 0.5)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ((3.0, 1.0, 5.0), "held"),
        ((-3.0, -5.0, -1.0), "did not hold"),
        ((1.0, -1.0, 3.0), "too small to say"),
    ],
)
def test_a_claim_is_judged_by_its_interval(study, value, verdict):
    assert estimate(study, value).verdict == verdict
    assert study.estimates.Estimate({0: value}, None).verdict == "too small to say"


def test_two_figures_differ_with_the_errors_of_both(study):
    one, other = (
        estimate(study, (10.0, 7.0, 14.0), sd=3.0),
        estimate(study, (4.0, 0.0, 7.0), sd=4.0),
    )
    found = one - other
    assert found.values == {0: (6.0, 6.0 - 18**0.5, 6.0 + 32**0.5)}
    assert found.spread == study.estimates.Spread(5.0, 10)
    assert (-found).values == {0: (-6.0, -6.0 - 32**0.5, -6.0 + 18**0.5)}


def test_only_seeds_of_both_are_subtracted(study):
    found = estimate(study, (1.0, 0.0, 2.0)) - estimate(study, (4.0, 4.0, 4.0), (9.0, 9.0, 9.0))
    assert found.values == {0: (-3.0, -4.0, -2.0)}


def test_the_deviation_is_pooled_within_rows(study):
    found = study.estimates.pooled([[1.0, 3.0], [10.0, 10.0, 16.0], [7.0]])
    assert (found.sd, found.df) == (pytest.approx((26 / 3) ** 0.5), 3)
    assert study.estimates.pooled([[1.0], []]) is None


def test_a_step_begun_again_counts_once_with_all_its_time(study, tmp_path):
    records = [("at-s0", 3600), ("at-s0", 1800), ("adr-s0", 5400)]
    (tmp_path / "hours.jsonl").write_text(
        "".join(
            json.dumps({"run": run, "what": "train", "seconds": seconds}) + "\n"
            for run, seconds in records
        )
    )
    assert study.parts.hours(tmp_path) == (3.0, 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.26, "+1.3"), (-0.123, "−0.12"), (0.0456, "+0.046"), (0.0, "0"), (-0.0001, "0")],
)
def test_numbers_carry_their_sign(study, value, text):
    assert study.results.signed(value) == text


def test_the_page_is_made_of_its_files(study):
    assert study.results.page() == (DOCS / "results.md").read_text(encoding="utf-8")


def test_what_did_not_hold_comes_first(study):
    second = (DOCS / "results.md").read_text(encoding="utf-8").split("\n\n")[1]
    assert second.startswith("**Did not hold here:**")


def test_every_claim_has_a_figure(study):
    part = study.parts.Part(CPU / "study")
    parts = {"study": part}
    parts |= {name: study.parts.Part(CPU / name, part) for name in ("experiments", "checks")}
    missing = [
        shown.what for claim in study.claims.CLAIMS for shown in claim.shown
        if not shown.measure(parts)
    ]  # fmt: skip
    assert missing == []


PAPER = {
    1.57: ("adr best", "at best"),
    3.99: ("adr final", "at final"),
    0.92: ("trades-adr best", "trades best"),
    2.23: ("trades-adr final", "trades final"),
    1.12: ("at-wa best", "at best"),
    0.47: ("adr-wa best", "adr best"),
    0.79: ("at-awp-wa best", "at-wa best"),
    0.33: ("adr-awp-wa best", "adr-wa best"),
    2.37: ("adr-awp-wa best", "at best"),
    0.46: ("adr-awp-wa best", "at-awp-wa best"),
    5.62: ("at best", "at final"),
}


def test_papers_figures_are_the_published_ones(study):
    robust = {}
    for table in ("adr-table1", "adr-table2", "adr-table4"):
        for line in published.read(table).lines:
            if (line.data, line.arch, line.extra) == ("cifar10", "resnet18", False):
                robust.setdefault(f"{line.method} {line.point}", 100 * line.robust[0])
    for value, (more, fewer) in PAPER.items():
        assert robust[more] - robust[fewer] == pytest.approx(value)
    gaps = [robust[f"{each} best"] - robust[f"{each} final"] for each in ("at", "adr")]
    assert gaps[0] - gaps[1] == pytest.approx(2.42)
    shown = {each.paper for claim in study.claims.CLAIMS for each in claim.shown
             if each.source == study.claims.ADR and each.paper is not None}  # fmt: skip
    assert shown == {*PAPER, 2.42}


def test_accuracies_are_those_of_the_table(study):
    with (CPU / "study" / "fast.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if re.search(r"\bat-s\d$", row["run"])]
    wanted = [100 * float(row["robust_accuracy"]) for row in rows if row["role"] == "best"]
    part = study.parts.Part(CPU / "study")
    assert part.accuracy("at/best", "fast", "robust") == pytest.approx(wanted)
    line = next(line for line in study.results.accuracies(part, ["at"]) if line.startswith("| AT "))
    assert f"| {sum(wanted) / len(wanted):.1f} / " in line


def test_differences_are_those_of_the_accuracies(study):
    """Paired differences come from `compare`, accuracies from `table`: two ways to one figure."""
    part = study.parts.Part(CPU / "study")
    assert len(part.pairs) > 20
    for (attack, first, second), found in part.pairs.items():
        for place, seed in enumerate(sorted(found)):
            ends = [part.accuracy(row, attack, "robust")[place] for row in (second, first)]
            assert found[seed][0] == pytest.approx(ends[0] - ends[1], abs=1e-9)


def test_summaries_are_small_and_name_no_place(study):
    files = [path for path in CPU.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".csv", ".json", ".jsonl", ".md"}
    assert sum(path.stat().st_size for path in files) < 1 << 20
    for path in files:
        assert not re.search(r'"/|(^|[,|])/\w', path.read_text(encoding="utf-8")), path


def ran(monkeypatch, tool: Path, *words: str) -> object:
    """Run a script in this process, whose modules are imported, and return its exit code."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [str(tool), *words])
        patch.syspath_prepend(str(tool.parent))
        try:
            runpy.run_path(str(tool), run_name="__main__")
        except SystemExit as ended:
            return ended.code
    return 0


@pytest.mark.usefixtures("study")
def test_a_stale_page_is_noticed(tmp_path, monkeypatch, capsys):
    copy = tmp_path / "docs"
    subprocess.run(["cp", "-r", DOCS, copy], check=True)
    subprocess.run(["cp", "-r", ROOT / "tools", tmp_path], check=True)
    with (copy / "results.md").open("a", encoding="utf-8") as file:
        file.write("more\n")
    tool = tmp_path / "tools" / "docs" / "results.py"
    assert ran(monkeypatch, tool, "--check") == 1
    assert capsys.readouterr().err == "docs/results.md is stale: run make docs\n"
    assert ran(monkeypatch, tool) in (0, None)
    assert (copy / "results.md").read_bytes() == (DOCS / "results.md").read_bytes()

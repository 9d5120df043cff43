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

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_ind

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


def estimate(study: SimpleNamespace, *values: tuple[float, float, float], rows=None):
    """By seed from 0 on; without `rows` its own figures are what scatters."""
    own = dict(enumerate(values))
    alone = ({seed: value for seed, (value, _, _) in own.items()},)
    return study.estimates.Estimate(own, alone if rows is None else rows)


def test_seeds_do_not_narrow_what_the_images_leave_open(study):
    """Figures of no known scatter: the ends are the means of the seeds' ends."""
    found = estimate(study, (1.0, 0.0, 3.0), (3.0, 2.0, 5.0), rows=())
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 4.0)


def test_one_row_has_student_s_interval(study):
    figures = (1.0, 4.0, 2.5)
    found = estimate(study, *[(x, x, x) for x in figures])
    ends = ttest_1samp(figures, 0.0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


@pytest.mark.parametrize("one", [(10.0, 11.0, 15.0), (10.0, 12.0), (3.0, 3.1)])
@pytest.mark.parametrize("other", [(4.0, 4.5, 4.1), (1.0, 7.0)])
def test_two_rows_have_welch_s_interval(study, one, other):
    """Each row by its own deviation, however different: as scipy has it."""
    rows = (dict(enumerate(one)), dict(enumerate(other)))
    spread = study.estimates.welch([one, other])
    wanted = ttest_ind(one, other, equal_var=False)
    assert spread.df == pytest.approx(wanted.df)
    centre = np.mean(one) - np.mean(other)
    half = t.ppf(0.975, spread.df) * spread.se
    ends = wanted.confidence_interval()
    assert (centre - half, centre + half) == pytest.approx((ends.low, ends.high))
    if len(one) == len(other):
        values = [(a - b, a - b, a - b) for a, b in zip(one, other, strict=True)]
        found = estimate(study, *values, rows=rows)
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_no_row_lends_another_its_deviation(study):
    """Equal figures beside scattered ones: the wide row alone widens, on its own degree."""
    spread = study.estimates.welch([[5.0, 5.0], [1.0, 3.0]])
    assert (spread.se, spread.df) == (1.0, 1.0)
    assert study.estimates.welch([[5.0, 5.0], [1.0, 1.0 + 1e-15]]) is None
    assert study.estimates.welch([[5.0], [1.0, 3.0]]) is None
    assert study.estimates.welch([]) is None


def test_images_and_training_add_in_squares(study):
    found = estimate(study, (5.0, 2.0, 9.0), (7.0, 4.0, 11.0))
    half = t.ppf(0.975, 1) * 1.0  # sd √2 over two seeds: a standard error of 1
    assert found.low == pytest.approx(6.0 - (9.0 + half**2) ** 0.5)
    assert found.high == pytest.approx(6.0 + (16.0 + half**2) ** 0.5)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((3.0, 3.1), "held"),
        ((-3.0, -3.1), "did not hold"),
        ((1.0, 3.0), "too small to say"),
        ((3.0,), "too small to say"),  # one seed: nobody knows what chance does
        ((3.0, 3.0), "too small to say"),
    ],
)
def test_a_claim_is_judged_by_its_interval(study, values, verdict):
    assert estimate(study, *[(x, x - 0.1, x + 0.1) for x in values]).verdict == verdict


def test_no_verdict_stands_against_a_seed_of_its_own(study):
    """The interval lies above 0 with a seed below it: the scatter of many is small."""
    figures = [1.0] * 30 + [-0.5]
    found = estimate(study, *[(x, x, x) for x in figures])
    assert found.low > 0
    assert found.verdict == "too small to say"
    assert (-found).verdict == "too small to say"


def test_verdicts_on_the_page_agree_with_their_seeds(study):
    """The rule said on the page, from what stands in its table alone."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS / "results.md").read_text(encoding="utf-8").splitlines()
        if line.count("|") == 8 and re.search(r"\[[+−0]", line)
    ]
    assert len(rows) > 30
    for *_, found, seeds, _, verdict in rows:
        low, high = (
            float(end.replace("−", "-")) for end in re.search(r"\[(.*)\]", found)[1].split(",")
        )
        signs = [float(seed.replace("−", "-")) for seed in seeds.split(",")]
        unknown = "chance of training unknown" in verdict
        assert unknown == (len(signs) == 1)
        wanted = "too small to say"
        if not unknown and low > 0 and min(signs) > 0:
            wanted = "held"
        if not unknown and high < 0 and max(signs) < 0:
            wanted = "did not hold"
        assert verdict.split(";")[0] == wanted


def test_two_figures_differ_with_the_errors_of_both(study):
    one, other = estimate(study, (10.0, 7.0, 14.0)), estimate(study, (4.0, 0.0, 7.0))
    found = one - other
    assert found.values == {0: (6.0, 6.0 - 18**0.5, 6.0 + 32**0.5)}
    assert found.rows == ({0: 10.0}, {0: 4.0})
    assert (-found).values == {0: (-6.0, -6.0 - 32**0.5, -6.0 + 18**0.5)}


def test_only_seeds_of_both_are_subtracted(study):
    one = estimate(study, (1.0, 0.0, 2.0), (2.0, 2.0, 2.0))
    other = estimate(study, (4.0, 4.0, 4.0), (9.0, 9.0, 9.0), (50.0, 50.0, 50.0))
    found = one - other
    assert found.values == {0: (-3.0, -4.0, -2.0), 1: (-7.0, -7.0, -7.0)}
    wanted = ttest_ind([1.0, 2.0], [4.0, 9.0], equal_var=False)  # the third seed has no part in it
    assert found.spread.df == pytest.approx(wanted.df)


def test_points_of_the_same_trainings_differ_seed_by_seed(study):
    """What chance moves both points by is not in their difference."""
    part = study.parts.Part(CPU / "study")
    gap = part.gap("at")
    best, final = (part.accuracy(f"at/{point}", "fast", "robust") for point in ("best", "final"))
    wanted = study.estimates.welch([np.subtract(best, final).tolist()])
    assert (gap.spread.se, gap.spread.df) == pytest.approx((wanted.se, wanted.df))
    assert gap.mean == pytest.approx(np.mean(best) - np.mean(final))
    between = part.pair("fast", "at/best", "adr/best")
    assert [list(row.values()) for row in between.rows] == [
        part.accuracy(f"{run}/best", "fast", "robust") for run in ("at", "adr")
    ]


def test_claims_name_who_makes_them(study):
    """Neither paper compares ADR with AT in entropy, calibration or divergence, nor LTD with AT."""
    for claim in study.claims.CLAIMS:
        ours = re.search(r"entropy|calibrated|outputs move|LTD .* than AT ", claim.said)
        assert (claim.by == study.claims.OURS) == bool(ours), claim.said
        assert all(shown.source in ("", claim.by) or shown.paper is None for shown in claim.shown)
        if claim.by == study.claims.OURS:
            assert all(shown.paper is None for shown in claim.shown)


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
    names = ("study", "experiments", "checks")
    parts = {name: study.parts.Part(CPU / name) for name in names}
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

"""The page of results is what its files say; and the figures of one seed that stand at its end."""

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

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TOOLS = ROOT / "tools" / "docs"
CPU = DOCS / "results" / "cpu"


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    sys.path.insert(0, str(TOOLS))
    try:
        import results
        from study import asked, curves, earlier, estimates, judge, parts, summaries
    finally:
        sys.path.remove(str(TOOLS))
    claims = asked.read(DOCS / "results" / "claims.toml")
    return SimpleNamespace(
        results=results, estimates=estimates, parts=parts, earlier=earlier, judge=judge,
        summaries=summaries, curves=curves, claims=claims,
    )  # fmt: skip


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


def test_points_of_the_same_trainings_differ_seed_by_seed(study):
    """What chance moves both points by is not in their difference."""
    part = study.parts.Part(CPU / "experiments")
    gap = part.gap("at")
    best, final = (part.accuracy(f"at/{point}", "fast", "robust") for point in ("best", "final"))
    assert [{seed: abs(gap) for seed, gap in row.items()} for row in gap.rows] == [
        {0: pytest.approx(abs(best[0] - final[0]))}
    ]
    assert gap.mean == pytest.approx(best[0] - final[0])
    between = part.pair("fast", "at/best", "adr/best")
    assert [list(row.values()) for row in between.rows] == [
        part.accuracy(f"{run}/best", "fast", "robust") for run in ("at", "adr")
    ]


def test_a_step_begun_again_counts_once_with_all_its_time(study, tmp_path):
    records = [("at-s0", 3600.0), ("at-s0", 1800.0), ("adr-s0", 5390.0)]
    (tmp_path / "hours.jsonl").write_text(
        "".join(
            json.dumps({"run": run, "what": "train", "seconds": 1, "user": user, "system": 10 / 3})
            + "\n"
            for run, user in records
        )
    )
    assert study.parts.hours(tmp_path) == (pytest.approx(3.0), 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.26, "+1.3"), (-0.123, "−0.12"), (0.0456, "+0.046"), (0.0, "0"), (-0.0001, "0")],
)
def test_numbers_carry_their_sign(study, value, text):
    assert study.earlier.signed(value) == text


def test_the_page_is_made_of_its_files(study):
    runs = study.summaries.read(DOCS / "results" / "study")
    judged = study.judge.judge(study.claims, runs)
    page = study.results.page(study.claims, runs, judged)
    assert page == (DOCS / "results.md").read_text(encoding="utf-8")
    drawn = study.curves.drawing(judged)
    assert drawn == (DOCS / "images" / "results" / "effects.svg").read_text(encoding="utf-8")


def test_accuracies_are_those_of_the_table(study):
    with (CPU / "checks" / "fast.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if re.search(r"\bat-s\d$", row["run"])]
    wanted = [100 * float(row["robust_accuracy"]) for row in rows if row["role"] == "best"]
    part = study.parts.Part(CPU / "checks")
    assert part.accuracy("at/best", "fast", "robust") == pytest.approx(wanted)
    line = next(line for line in study.earlier.accuracies(part, ["at"]) if line.startswith("| AT "))
    assert f"| {sum(wanted) / len(wanted):.1f} / " in line


def test_differences_are_those_of_the_accuracies(study):
    """Paired differences come from `compare`, accuracies from `table`: two ways to one figure."""
    part = study.parts.Part(CPU / "checks")
    assert len(part.pairs) > 5
    for (attack, first, second), found in part.pairs.items():
        for place, seed in enumerate(sorted(found)):
            ends = [part.accuracy(row, attack, "robust")[place] for row in (second, first)]
            assert found[seed][0] == pytest.approx(ends[0] - ends[1], abs=1e-9)


def test_held_out_seeds_are_compared_over_seeds_and_added_up_beside(study):
    """Welch's interval between both lots is scipy's; the effect of all is over all their seeds."""
    draw = np.random.default_rng(0)
    shares = {"at": 0.30, "adr": 0.36}
    runs = {
        ("S", row, seed): study.summaries.Run(
            "", {point: {"robust": draw.random(200) < share} for point in ("best", "final")}, {}
        )
        for row, share in shares.items() for seed in (*range(8), 20, 21, 22, 23)
    }  # fmt: skip
    gains = [100 * (runs["S", "adr", seed].verdicts["best"]["robust"].mean()
                    - runs["S", "at", seed].verdicts["best"]["robust"].mean())
             for seed in (*range(8), 20, 21, 22, 23)]  # fmt: skip
    best, _ = study.results.held_out(study.summaries.Study(runs))
    wanted = ttest_ind(gains[8:], gains[:8], equal_var=False)
    ends = [study.earlier.signed(end) for end in wanted.confidence_interval()]
    gap = study.earlier.signed(np.mean(gains[8:]) - np.mean(gains[:8]))
    assert f"they differ by {gap} [{', '.join(ends)}]" in best
    assert f"Of all 12: {study.earlier.signed(np.mean(gains))} [" in best
    few = {key: run for key, run in runs.items() if key[2] < 20}
    assert [line.endswith("not run yet.") for line in
            study.results.held_out(study.summaries.Study(few))] == [True, True]  # fmt: skip


def test_summaries_are_small_and_name_no_place(study):
    files = [path for path in CPU.parent.rglob("*") if path.is_file() and path.suffix != ".in"]
    assert {path.suffix for path in files} <= {".csv", ".json", ".jsonl", ".md", ".toml"}
    assert sum(path.stat().st_size for path in files) < 2 << 20
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

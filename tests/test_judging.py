"""The study's estimator, its tests and verdicts, and the summaries that they are made of."""

from __future__ import annotations

import base64
import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import f_oneway, t, ttest_1samp

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    places = [str(TOOLS / "docs"), str(TOOLS)]
    sys.path[:0] = places
    try:
        import interval_coverage
        import results
        from study import asked, curves, judge, summaries, twoway
    finally:
        for place in places:
            sys.path.remove(place)
    claims = asked.read(ROOT / "docs" / "results" / "claims.toml")
    return SimpleNamespace(
        twoway=twoway, judge=judge, summaries=summaries, asked=asked, claims=claims,
        coverage=interval_coverage, results=results, curves=curves,
    )  # fmt: skip


# ---- the estimator


def test_two_way_has_the_mean_squares_of_the_layout(study):
    """By hand: three seeds, four images, with effects of both; the sums of squares add up."""
    effects = np.array([[3.0, 1.0, 4.0, 0.0], [5.0, 9.0, 2.0, 8.0], [6.0, 5.0, 3.0, 14.0]])
    found = study.twoway.two_way(effects)
    seeds, images, mean = effects.mean(1), effects.mean(0), effects.mean()
    own = 4 * ((seeds - mean) ** 2).sum() / 2
    image = 3 * ((images - mean) ** 2).sum() / 3
    total = ((effects - mean) ** 2).sum()
    rest = (total - 2 * own - 3 * image) / 6
    # The seeds' mean square is that of an analysis of variance of one way.
    within = (total - 2 * own) / 9
    assert f_oneway(*effects).statistic == pytest.approx(own / within)
    assert image < rest < own  # so that images have no effect of their own: seeds alone stand
    assert found.se**2 == pytest.approx(own / 12)
    assert (found.mean, found.df) == (pytest.approx(mean), pytest.approx(2))
    assert found.seeds == pytest.approx(tuple(seeds))


def test_both_effects_add_less_the_rest_that_both_hold(study):
    effects = np.array([[0.0, 4.0, 9.0, 3.0], [3.0, 8.0, 11.0, 7.0], [5.0, 8.0, 15.0, 8.0]])
    seeds, images, mean = effects.mean(1), effects.mean(0), effects.mean()
    rest = effects - seeds[:, None] - images + mean
    parts = (((seeds - mean) ** 2).sum() / 2 / 3, ((images - mean) ** 2).sum() / 3 / 4,
             -(rest**2).sum() / 6 / 12)  # fmt: skip
    found = study.twoway.two_way(effects)
    assert found.se**2 == pytest.approx(sum(parts))
    wanted = sum(parts) ** 2 / sum(p**2 / df for p, df in zip(parts, (2, 3, 6), strict=True))
    assert found.df == pytest.approx(max(wanted, 2))
    half = t.ppf(0.975, found.df) * sum(parts) ** 0.5
    assert found.interval == pytest.approx((mean - half, mean + half))


def test_without_effects_of_images_it_is_student_s_test(study):
    """Where images scatter no more than the rest, seeds decide alone: as scipy has it."""
    rest = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [0.0, 1.0, -1.0]])
    effects = np.array([[1.0], [4.0], [2.5], [9.0]]) + rest
    found = study.twoway.two_way(effects)
    wanted = ttest_1samp(effects.mean(1), 0.0)
    assert found.p_zero() == pytest.approx(wanted.pvalue)
    one = study.twoway.one_way(effects.mean(1).tolist())
    assert (one.p_zero(), one.df) == (pytest.approx(wanted.pvalue), 3)


def test_two_one_sided_tests_are_scipy_s(study):
    values = [0.4, -0.2, 0.9, 0.1, 0.3]
    found = study.twoway.one_way(values)
    above = ttest_1samp(values, -1.5, alternative="greater").pvalue
    below = ttest_1samp(values, 1.5, alternative="less").pvalue
    assert found.p_within(1.5) == pytest.approx(max(above, below))
    assert study.twoway.one_way([5.0, 5.1, 4.9]).p_within(1.5) > 0.99


def test_nothing_is_said_of_few_seeds_or_of_no_scatter(study):
    assert study.twoway.two_way(np.array([[0.0, 1.0], [1.0, 0.0]])) is None
    assert study.twoway.two_way(np.ones((5, 4))) is None
    assert study.twoway.one_way([1.0, 2.0]) is None
    assert study.twoway.one_way([1.0, 1.0, 1.0]) is None


# ---- coverage


def test_a_drawn_study_has_the_accuracies_that_are_asked(study):
    """Means over 400 studies of the two shares, against the normal distribution's."""
    case = study.coverage.Case(3, 200, 0.2, 0.05, 0.1)
    generator = np.random.default_rng(0)
    gains = [study.coverage.draw(case, generator).mean() for _ in range(400)]
    assert np.mean(gains) == pytest.approx(0.05, abs=4 * np.std(gains) / 20)


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says(study):
    """300 draws, smaller: 95 % within four standard errors, where images alone are far off."""
    case = study.coverage.Case(8, 400, 0.2, 0.03, 0.15)
    found = study.coverage.covered(case, 300, np.random.default_rng(1))
    assert found["both"] > 0.95 - 4 * (0.95 * 0.05 / 300) ** 0.5
    assert found["images"] < 0.8


def test_the_committed_coverage_is_of_these_cases_and_near_what_is_promised(study):
    with study.coverage.OUT.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    given = [(int(line["seeds"]), int(line["images"]), float(line["own_seed"])) for line in lines]
    assert given == [(case.seeds, case.images, case.own_seed) for case in study.coverage.CASES]
    assert all(float(line["both"]) > 0.93 for line in lines)


# ---- verdicts


def estimated(study, mean: float, se: float):
    return study.twoway.Estimated(mean, se, 7.0, ())


def test_verdicts_of_a_family(study):
    """A clear gain, a clear loss, a clear nothing, an unclear one, one not run."""
    found = [estimated(study, *each) for each in ((3.0, 0.3), (-3.0, 0.3), (0.0, 0.2), (1.0, 1.0))]
    verdicts = study.judge.decide([*found, None], ["robust"] * 5, 0.05, 1.5)
    assert verdicts == ["held", "the opposite held", "no difference that matters", "open",
                        "not run yet"]  # fmt: skip


def test_figures_cannot_be_found_not_to_differ(study):
    """The margin is in points of accuracy."""
    assert study.judge.decide([estimated(study, 0.0, 0.01)], ["rise"], 0.05, 1.5) == ["open"]


def test_holm_counts_those_that_are_not_run(study):
    """p = 0.03 alone decides, beside one that is still to come it does not."""
    one = estimated(study, float(t.isf(0.015, 7)), 1.0)
    assert one.p_zero() == pytest.approx(0.03)
    assert study.judge.decide([one], ["rise"], 0.05, 1.5) == ["held"]
    assert study.judge.decide([one, None], ["rise"] * 2, 0.05, 1.5) == ["open", "not run yet"]


# ---- summaries


def packed(bits: np.ndarray) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def write(folder: Path, size: str, run: str, seed: int, bits: dict[str, np.ndarray], **more):
    """A summary with the same verdicts clean and robust."""
    n = len(next(iter(bits.values())))
    verdicts = {p: {"clean": packed(each), "robust": packed(each)} for p, each in bits.items()}
    given = {"run": run, "size": size, "seed": seed, "asked": "", "n": n, "images": "same",
             "training": {}, "verdicts": verdicts, "figures": {}, **more}  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / f"{size}-{run}-s{seed}.json").write_text(json.dumps(given))


@pytest.fixture
def folder(tmp_path) -> Path:
    """AT and ADR at S, four seeds and two that are held out, 203 images: ADR a little better."""
    place, generator = tmp_path / "study", np.random.default_rng(3)
    ease = generator.standard_normal(203)
    for seed in (0, 1, 2, 3, 20, 21, 22):
        for run, level in (("at", -0.9), ("adr", 0.1)):
            draws = ease + 0.2 * generator.standard_normal((2, 203)) + level
            bits = {"best": draws[0] > 0, "final": draws[1] > 0.3}
            write(place, "S", run, seed, bits, figures={"divergence": 1 - level + draws[0, 0]})
    return place


def test_verdicts_are_read_back_as_they_were(study, tmp_path):
    bits = np.random.default_rng(0).random(203) < 0.3
    write(tmp_path / "a", "S", "at", 0, {"best": bits})
    found = study.summaries.read(tmp_path / "a").runs["S", "at", 0]
    assert np.array_equal(found.verdicts["best"]["robust"], bits)
    with pytest.raises(ValueError, match="are not 300 bits"):
        study.summaries.unpacked(packed(bits), 300)


def test_effects_are_paired_over_images_and_seeds(study, folder):
    runs = study.summaries.read(folder)
    (test,) = [x for x in study.claims.tests if (x.id, x.size) == ("adr-best", "S")]
    assert runs.seeds(test.terms, "robust") == [0, 1, 2, 3]
    assert runs.seeds(test.terms, "robust", held_out=True) == [20, 21, 22]
    effects = runs.effects(test.terms, "robust", [1])
    more, fewer = (runs.runs["S", run, 1].verdicts["best"]["robust"] for run in ("adr", "at"))
    assert effects[0].tolist() == (100.0 * more - 100.0 * fewer).tolist()


def test_claims_without_their_rows_are_not_run_yet(study, folder):
    judged = study.judge.judge(study.claims, study.summaries.read(folder))
    found = {(x.test.id, x.test.size): x.verdict for x in judged}
    assert found["adr-best", "S"] == "held"
    assert found["adr-moves", "S"] != "not run yet"  # a figure, S
    assert found["adr-best", "M"] == found["wa", "S"] == "not run yet"
    assert found["adr-grows", study.asked.BETWEEN] == "not run yet"


def test_a_part_of_the_study_makes_a_page_and_a_picture(study, folder, monkeypatch):
    runs = study.summaries.read(folder)
    judged = study.judge.judge(study.claims, runs)
    page = study.results.page(study.claims, runs, judged)
    assert "**Held:** " in page
    assert "ADR is more robust than AT at best (S: +" in page
    assert "ADR − AT at S, best: +" in page
    assert page.count("not run yet") > 50
    drawn = study.curves.drawing(judged)
    assert drawn.count("<circle") == 3  # ADR − AT at best and at the end, AT's own gap
    assert "not run yet" in drawn
    assert ElementTree.fromstring(drawn).tag.endswith("svg")


def test_summaries_that_are_not_what_they_say_are_refused(study, folder):
    (folder / "S-at-s0.json").rename(folder / "S-at-s9.json")
    with pytest.raises(ValueError, match="not a summary of what its name says"):
        study.summaries.read(folder)


def test_runs_of_other_test_images_are_refused(study, folder):
    write(folder, "S", "ls", 0, {"best": np.ones(203, dtype=bool)}, images="others")
    with pytest.raises(ValueError, match="other test images"):
        study.summaries.read(folder)


def test_autoattack_s_images_are_found_among_the_others(study, folder):
    among = np.zeros(203, dtype=bool)
    among[[3, 50, 202]] = True
    autoattack, fast = np.array([True, False, False]), np.array([True, True, False])
    (folder / "S-adr-s0.autoattack.json").write_text(json.dumps({
        "run": "adr", "size": "S", "seed": 0, "asked": "", "point": "best", "n": 3,
        "among": packed(among), "robust": packed(autoattack), "fast": packed(fast),
    }))  # fmt: skip
    runs = study.summaries.read(folder)
    check = runs.checks["S", "adr", 0]
    short = runs.runs["S", "adr", 0].verdicts["best"]["robust"]
    assert check.short.tolist() == short[[3, 50, 202]].tolist()
    assert check.autoattack.tolist() == autoattack.tolist()
    (line,) = [x for x in study.results.autoattack(runs) if x.startswith("| ADR ")]
    assert line.startswith("| ADR | S | 1 | 33.3 | +33.3 |")


def test_what_the_search_chose_is_told_in_points(study, folder):
    (folder / "S-numbers.json").write_text(json.dumps({
        "options": "--tau 2:1", "trials": 6, "n": 500, "verdict": "better",
        "difference": 0.021, "difference_low": -0.004, "difference_high": 0.046,
    }))  # fmt: skip
    told = list(study.results.searched(folder))
    assert told[0].endswith("validation images +2.1 [−0.40, +4.6] points.")
    assert told[1] == "Searched numbers at M: not run yet."


def test_held_out_seeds_are_compared_by_welch(study):
    from scipy.stats import ttest_ind

    first, second = [1.0, 2.0, 4.0, 3.5], [0.0, 2.5, 1.0]
    found = study.results.welch(first, second)
    wanted = ttest_ind(second, first, equal_var=False)
    assert found.df == pytest.approx(wanted.df)
    assert found.mean / found.se == pytest.approx(wanted.statistic)

"""When another teacher makes another recipe, and which options a run's settings leave out."""

import pytest

from advkit.analyses import table
from advkit.analyses.curves import analyze as curves
from advkit.analyses.gathering.groups import grouped
from advkit.analyses.gathering.taught import parting
from advkit.errors import InputError
from tests.analyses.test_curves import run_of
from tests.analyses.test_table import logits_of

T, N, N2 = "sha256:1111111111aa", "sha256:2222222222aa", "sha256:3333333333aa"
SOFT = "sha256:4444444444aa"
ROLES = ("labels_digest", "teacher_digest", "natural_teacher_digest")


def digests(soft=None, teacher=None, natural=None):
    """What a description says of a student's teachers: nothing of those that it has not."""
    given = dict(zip(ROLES, (soft, teacher, natural), strict=True))
    return {name: digest for name, digest in given.items() if digest}


def kd(seed, natural, *, teacher=T, soft=None, robust=5):
    method = "kd+soft" if soft else "kd"
    return logits_of(method, seed=seed, robust=robust, **digests(soft, teacher, natural))


@pytest.mark.parametrize("soft", [None, SOFT])
def test_runs_of_other_natural_teachers_are_not_pooled(soft):
    """Robust 3, 5 and 7 of ten: 0.3 with N; 0.5 and 0.7, a mean of 0.6, with N2."""
    students = [(1, N, 3), (2, N2, 5), (3, N2, 7)]
    inputs = [kd(seed, natural, soft=soft, robust=right) for seed, natural, right in students]
    first, second = table.analyze(inputs).groups
    assert (first["settings"], first["seeds"]) == ({"natural_teacher_digest": N}, 1)
    assert (second["settings"], second["seeds"]) == ({"natural_teacher_digest": N2}, 2)
    assert first["robust_best_mean"] == pytest.approx(0.3)
    assert second["robust_best_mean"] == pytest.approx(0.6)


@pytest.mark.parametrize("soft", [None, SOFT])
def test_one_seed_and_two_natural_teachers_are_two_lines(soft):
    result = table.analyze([kd(1, N, soft=soft), kd(1, N2, soft=soft)])
    assert [group["settings"] for group in result.groups] == [
        {"natural_teacher_digest": N}, {"natural_teacher_digest": N2},
    ]  # fmt: skip
    assert "natural_teacher_digest=22222222" in result.text
    assert "222222222" not in result.text  # eight digits are shown


def test_digests_that_begin_alike_are_compared_whole():
    alike = [f"sha256:{'5' * 8}{end}" for end in "ab"]
    assert [group["seeds"] for group in table.analyze([kd(1, own) for own in alike]).groups] == [
        1, 1,
    ]  # fmt: skip
    with pytest.raises(InputError, match="both are the best one of seed 1"):
        table.analyze([kd(1, alike[0]), kd(1, alike[0])])


def test_each_seed_may_have_teachers_of_its_own():
    """A robust teacher a seed, and one natural teacher of all."""
    inputs = [kd(seed, N, teacher=f"sha256:{seed}", soft=f"sha256:5{seed}") for seed in (1, 2)]
    (group,) = table.analyze(inputs).groups
    assert (group["settings"], group["seeds"]) == ({}, 2)


CASES = {
    "one teacher": ([(1, "a"), (2, "a")], False),
    "a teacher a seed": ([(1, "a"), (2, "b"), (3, "c")], False),
    "best and final of each": ([(1, "a"), (1, "a"), (2, "b"), (2, "b")], False),
    "two seeds share one": ([(1, "a"), (2, "b"), (3, "b")], True),
    "two of one seed": ([(1, "a"), (1, "b")], True),
    "a seed more than teachers": ([(1, "a"), (2, "a"), (2, "b")], True),
    "one without": ([(1, "a"), (2, None)], True),
    "none": ([(1, None), (2, None)], False),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", CASES)
def test_table_and_curves_have_one_rule(tmp_path, case, role):
    """Whether a role's digests part runs, each role for itself; the other two are the same."""
    pairs, parts = CASES[case]
    rest = dict.fromkeys(ROLES, "sha256:9")
    told = [{**rest, role: digest and f"sha256:{digest}"} for _, digest in pairs]
    runs = [(seed, own) for (seed, _), own in zip(pairs, told, strict=True)]
    assert parting(runs) == ([role] if parts else [])
    wanted = len(set(pairs)) if case == "two of one seed" else len({own for _, own in pairs})
    wanted = wanted if parts else 1
    inputs, logs = [], []
    for place, (seed, own) in enumerate(runs):
        point = "final" if (seed, own) in runs[:place] else "best"
        inputs.append(logits_of("kd", seed=seed, role=point, **own))
        if point == "best":
            logs.append(run_of(tmp_path, seed, robust=[0.1] * 4, name=f"r{place}", **own))
    assert len(table.analyze(inputs).groups) == wanted
    assert len(curves(logs).groups) == wanted


def test_curves_name_what_parts_recipes(tmp_path):
    students = [(1, N), (2, N2), (3, N2)]
    runs = [
        run_of(tmp_path, seed, robust=[0.1] * 4, name=f"r{seed}", **digests(None, T, natural))
        for seed, natural in students
    ]
    assert [(group["recipe"], group["seeds"]) for group in curves(runs).groups] == [
        ("at natural_teacher_digest=22222222", 1), ("at natural_teacher_digest=33333333", 2),
    ]  # fmt: skip


def test_curves_tell_kinds_of_teachers_apart_as_tables_do(tmp_path):
    """Teachers of two architectures, a digest a seed: two recipes, not one of two seeds."""
    runs = []
    for seed, arch in ((0, "wrn-16-10"), (1, "wrn-28-10")):
        run = run_of(tmp_path, seed, teacher_digest=f"sha256:{seed}")
        run.info["parents"] = [
            {"kind": "data", "name": "digits", "digest": "sha256:d"},
            {"kind": "checkpoint", "method": "at", "arch": arch, "digest": f"sha256:{seed}",
             "use": "teacher"},
        ]  # fmt: skip
        runs.append(run)
    assert [group["recipe"] for group in curves(runs).groups] == [
        "at teacher=checkpoint at wrn-16-10", "at teacher=checkpoint at wrn-28-10",
    ]  # fmt: skip


PLAIN = {"extra_digest": None, "extra_fraction": 0.75}
EXTRA = {"extra_digest": "sha256:0a1b2c3d4e5f", "extra_fraction": 0.7}
IDLE = {
    "extra data": (PLAIN, EXTRA, "extra_fraction"),
    "rate drops": (
        {"lr_schedule": "cosine", "lr_drops": [5, 7]},
        {"lr_schedule": "multistep", "lr_drops": [4, 6]},
        "lr_drops",
    ),
    "optimiser": (
        {"optimizer": "adamw", "momentum": 0.9, "nesterov": True},
        {"momentum": 0.8, "nesterov": False},
        "momentum",
    ),
    "weight average": (
        {"wa": True, "swa_start": 3, "ema_decay": 0.995},
        {"wa": True, "ema_decay": 0.9},
        "ema_decay",
    ),
    "joint batch": (
        {"joint_batch": True, "bn_passes": "ca"},
        {"joint_batch": False, "bn_passes": "cac"},
        "bn_passes",
    ),
    "weight perturbation": (
        {"awp": 0.0, "awp_form": "original", "awp_warmup": 0},
        {"awp": 0.005, "awp_form": "adr", "awp_warmup": 3},
        "awp_form",
    ),
}


@pytest.mark.parametrize("what", IDLE)
def test_an_option_that_does_nothing_is_not_listed(tmp_path, what):
    """The first run has it and does not look at it; the second does."""
    first, second, name = IDLE[what]
    lines = table.analyze([logits_of(**first), logits_of(seed=4, **second)]).groups
    assert lines[0]["settings"].get(name) is None
    assert lines[1]["settings"][name] == second[name]
    logs = [run_of(tmp_path, 0, **first), run_of(tmp_path, 1, **second)]
    idle, active = (group["recipe"] for group in curves(logs).groups)
    assert f"{name}=" not in idle
    assert f"{name}=" in active
    assert name not in curves(logs).more["differs"]


def test_an_option_that_does_nothing_makes_no_line():
    """Two seeds without extra data: what share of a batch it would be is all the same."""
    inputs = [logits_of(seed=seed, **{**PLAIN, "extra_fraction": seed / 4}) for seed in (1, 2)]
    (group,) = table.analyze(inputs).groups
    assert (group["settings"], group["seeds"]) == ({}, 2)
    assert table.analyze(inputs).more["differs"] == {}


def test_what_a_file_does_not_tell_is_not_idle():
    """A net from elsewhere may name its momentum and nothing of AWP or of the schedule."""
    ((entry, _),) = grouped([logits_of(lr_drops=[5], awp_form="adr", ema_decay=0.9)])
    assert {"lr_drops", "awp_form", "ema_decay"} <= entry.trained.keys()

"""The table of runs and attacks: a row a file, a line a recipe, as papers print them."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from advkit.analyses import table
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError

PGD = {"attack": "pgd", "norm": "linf", "eps": "8/255", "steps": 50, "step_size": "eps/4"}
NONE = {"attack": "none"}


def logits_of(
    method="adr", *, robust=5, clean=8, role="best", seed=3, n=10, config=None, data="digits",
    digest="sha256:d", soft=None, labels=None, **trained,
):  # fmt: skip
    """n examples of one class, the first `clean` right when clean, the first `robust` standing.

    `robust=None`: not attacked. `soft`: the parent that gave soft labels.
    """
    answers = torch.zeros(n, 2)
    answers[torch.arange(n), (torch.arange(n) >= clean).long()] = 1.0
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    broken = None
    if robust is not None:
        broken = torch.tensor([-1] * robust + [0] * (clean - robust) + [-2] * (n - clean)).char()
    parents = [{"kind": "data", "digest": "sha256:t"}, *([soft] if soft else [])]
    info = {
        "config": config or (PGD if robust is not None else NONE), "role": role, "method": method,
        "arch": "small-cnn", "data": {"name": data},
        "trained": {"seed": seed, "data": "digits", "lr": 0.1, "method": method, **trained},
        "parents": [{"kind": "checkpoint", "seed": seed, "parents": parents},
                    {"kind": "data", "digest": digest}],
    }  # fmt: skip
    path = f"runs/{method}-s{seed}/{role}.h5"
    return Logits(
        torch.arange(n), labels, answers, info, answers, torch.zeros(n), broken, path=path
    )


def without_settings(logits, temperature=None):
    """The same file as it was written before training settings went into it."""
    del logits.info["trained"]
    if temperature is not None:
        logits.info["parents"][0]["temperature"] = temperature
    return logits


def rows(*inputs):
    result = table.analyze(inputs)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def groups(*inputs):
    return table.analyze(inputs).groups


def wilson(hits, n):
    found = binomtest(hits, n).proportion_ci(method="wilson")
    return pytest.approx([found.low, found.high])


def test_a_row_for_each_file():
    (row,) = rows(logits_of())
    clean, robust = (binomtest(k, 10).proportion_ci(method="wilson") for k in (8, 5))
    assert row == pytest.approx(
        {
            "run": "adr-s3", "role": "best", "method": "adr", "attack": "pgd", "eps": "8/255",
            "n": 10, "clean_accuracy": 0.8, "clean_low": clean.low, "clean_high": clean.high,
            "robust_accuracy": 0.5, "robust_low": robust.low, "robust_high": robust.high,
            "seed": 3, "steps": 50, "data": "digits", "arch": "small-cnn", "norm": "linf",
            "settings": "", "attack_settings": "", "group": 1, "differs": "",
        }
    )  # fmt: skip


def test_order_is_the_caller_s():
    names = ["trades", "adr", "at", "trades"]
    inputs = [logits_of(name, seed=seed) for seed, name in enumerate(names)]
    assert [row["method"] for row in rows(*inputs)] == names
    assert [row["group"] for row in rows(*inputs)] == [1, 2, 3, 1]
    assert [group["method"] for group in groups(*inputs)] == names[:3]
    assert table.analyze(inputs).numbers == {"files": 4}
    assert table.COMPARES


BEST, FINAL = {0: (5, 8), 1: (6, 9), 2: (7, 7)}, {0: (4, 9), 1: (6, 9), 2: (3, 8)}
"""Seed → robust and clean answers of ten."""


def three_seeds():
    points = {"best": BEST, "final": FINAL}
    return [
        logits_of(role=role, seed=seed, robust=robust, clean=clean)
        for role, of in points.items()
        for seed, (robust, clean) in of.items()
    ]


@pytest.mark.parametrize(("what", "place"), [("robust", 0), ("clean", 1)])
def test_mean_and_deviation_over_seeds(what, place):
    (group,) = groups(*three_seeds())
    best, final = (np.array([of[seed][place] for seed in of]) / 10 for of in (BEST, FINAL))
    for name, values in {"best": best, "final": final, "difference": best - final}.items():
        assert group[f"{what}_{name}_mean"] == pytest.approx(values.mean())
        assert group[f"{what}_{name}_sd"] == pytest.approx(values.std(ddof=1))
        assert group[f"{what}_{name}_seeds"] == 3
    assert group[f"{what}_best_ci95"] is group[f"{what}_final_ci95"] is None
    assert (group["seeds"], group["n"]) == (3, 10)


def test_worked_by_hand():
    """Robust 0.5, 0.6, 0.7 at best: 0.6 ± 0.1; minus 0.4, 0.6, 0.3: 0.1, 0, 0.4."""
    _, line = table.analyze(three_seeds()).text.splitlines()
    assert line.split("  ")[-6].strip() == "60.00 ± 10.00"
    assert "16.67 ± 20.82" in line  # the differences' sample deviation, not best's and final's


def test_one_seed_has_its_interval():
    (group,) = groups(logits_of(), logits_of(role="final", robust=3, clean=9))
    assert (group["robust_best_mean"], group["robust_final_mean"]) == (0.5, 0.3)
    assert group["robust_best_ci95"] == wilson(5, 10)
    assert group["robust_final_ci95"] == wilson(3, 10)
    assert group["clean_final_ci95"] == wilson(9, 10)
    assert group["robust_difference_mean"] == pytest.approx(0.2)
    assert group["clean_difference_mean"] == pytest.approx(-0.1)
    assert group["robust_best_sd"] is group["clean_difference_sd"] is None
    text = table.analyze([logits_of(), logits_of(role="final", robust=3, clean=9)]).text
    assert "50.00 [23.7, 76.3]" in text
    assert text.endswith("-10.00")


def test_without_final():
    result = table.analyze([logits_of(seed=0), logits_of(seed=1, robust=7)])
    (group,) = result.groups
    for name in ("robust_final", "robust_difference", "clean_final", "clean_difference"):
        assert (group[f"{name}_mean"], group[f"{name}_sd"], group[f"{name}_seeds"]) == (
            None, None, 0,
        )  # fmt: skip
    assert "final" not in result.text.splitlines()[0]
    assert "difference" not in result.text


def test_a_difference_needs_both_of_a_seed():
    inputs = [logits_of(seed=0, robust=5), logits_of(seed=1, robust=7)]
    result = table.analyze([*inputs, logits_of(seed=1, role="final", robust=4)])
    (group,) = result.groups
    assert group["robust_difference_mean"] == pytest.approx(0.3)
    assert [group[f"robust_{name}_seeds"] for name in ("best", "final", "difference")] == [2, 1, 1]
    assert "30.00 (1)" in result.text
    assert "60.00 ± 14.14  " in result.text


def test_methods_and_settings_have_lines_of_their_own():
    inputs = [
        logits_of(name, seed=seed, temperature=t, beta=6.0, limit=None)
        for name, t in (("ltd", 2.0), ("ltd", 5.0), ("at", None))
        for seed in (0, 1)
    ]
    found = groups(*inputs)
    told = [(group["method"], group["settings"], group["seeds"]) for group in found]
    assert told == [
        ("ltd", {"temperature": 2.0}, 2), ("ltd", {"temperature": 5.0}, 2), ("at", {}, 2),
    ]  # fmt: skip
    assert [row["settings"] for row in rows(*inputs)][::2] == ["temperature=2", "temperature=5", ""]


def test_settings_that_some_runs_lack_or_that_are_lists():
    first, second = logits_of(lr_drops=[10, 20]), logits_of(lr_drops=[10, 30], beta=2.5)
    (one, two) = groups(first, second)
    assert one["settings"] == {"beta": None, "lr_drops": [10, 20]}
    assert two["settings"] == {"beta": 2.5, "lr_drops": [10, 30]}
    text = table.analyze([first, second]).text
    assert "lr_drops=10,20" in text
    assert "beta=2.5, lr_drops=10,30" in text


@pytest.mark.parametrize(
    "other",
    [{"eps": "4/255"}, {"norm": "l2"}, {"attack": "fgsm"}, {"steps": 10}, {"step_size": "0.01"}],
)
def test_attacks_have_lines_of_their_own(other):
    first, second = groups(logits_of(), logits_of(config={**PGD, **other}))
    shown = {**{name: PGD[name] for name in ("attack", "norm", "eps", "steps")}, **other}
    options = {"step_size": shown.pop("step_size")} if "step_size" in other else {}
    assert {name: second[name] for name in shown} == shown
    assert second["attack_settings"] == options
    assert (first["group"], second["group"]) == (1, 2)


def test_what_makes_no_other_attack():
    more = {"seed": 7, "batch_size": 5, "limit": 10, "save_images": True, "eps": " 16/510"}
    (group,) = groups(logits_of(seed=0), logits_of(seed=1, config={**PGD, **more}))
    assert (group["seeds"], group["eps"]) == (2, "8/255")


def test_data_sets_have_lines_of_their_own():
    outside = logits_of(data="svhn", digest="sha256:s", robust=None, labels=torch.full((10,), -1))
    assert [group["data"] for group in groups(logits_of(), outside)] == ["digits", "svhn"]


def test_runs_trained_on_other_data_are_told_apart():
    inputs = [logits_of(seed=seed) for seed in (0, 1)]
    inputs[1].info["trained"]["data"] = "mnist"
    assert [group["settings"] for group in groups(*inputs)] == [
        {"trained_on": "digits"}, {"trained_on": "mnist"},
    ]  # fmt: skip


def labels(digest, arch="resnet18"):
    return {"kind": "labels", "method": "natural", "arch": arch, "digest": digest}


def test_labels_made_seed_by_seed_are_one_recipe():
    inputs = [
        logits_of("ltd", seed=seed, soft=labels(f"sha256:{seed}"), labels_digest=f"sha256:{seed}")
        for seed in (0, 1)
    ]
    assert [group["seeds"] for group in groups(*inputs)] == [2]
    assert groups(*inputs)[0]["settings"] == {}


def test_other_labels_are_another_recipe():
    """Plain image or all views: the labels files differ, and each serves every seed."""
    inputs = [
        logits_of("ltd", seed=seed, soft=labels(digest), labels_digest=digest)
        for digest in ("sha256:aaaaaaaaaaaa", "sha256:bbbbbbbbbbbb")
        for seed in (0, 1)
    ]
    assert [(group["settings"], group["seeds"]) for group in groups(*inputs)] == [
        ({"labels_digest": "sha256:aaaaaaaaaaaa"}, 2),
        ({"labels_digest": "sha256:bbbbbbbbbbbb"}, 2),
    ]  # fmt: skip


def test_other_teachers_are_another_recipe():
    inputs = [logits_of("ltd", seed=seed, soft=labels("x", f"wrn-{seed}-10")) for seed in (16, 28)]
    assert [group["settings"]["teacher"] for group in groups(*inputs)] == [
        "labels natural wrn-16-10", "labels natural wrn-28-10",
    ]  # fmt: skip


def test_student_and_average_have_lines_of_their_own():
    roles = ["best", "best-ema", "final", "final-ema"]
    result = table.analyze([logits_of("at-wa", role=role) for role in roles])
    assert [group["weights"] for group in result.groups] == ["student", "average"]
    assert all(group["robust_difference_seeds"] == 1 for group in result.groups)
    _, first, second = result.text.splitlines()
    assert "at-wa (student)" in first
    assert "(average)" not in second
    assert "adr (average)" in table.analyze([logits_of(role="final-ema")]).text


def test_files_that_do_not_tell_how_they_were_trained():
    old = [without_settings(logits_of("ltd", seed=seed), t) for seed, t in ((0, 2.0), (0, 5.0))]
    first, second, third = groups(*old, logits_of("ltd", seed=0, lr=0.3))
    assert [each["settings"] for each in (first, second)] == [
        {"temperature": 2.0}, {"temperature": 5.0},
    ]  # fmt: skip
    told = [each["settings_recorded"] for each in (first, second, third)]
    assert told == [False, False, True]
    lines = table.analyze([*old, logits_of("ltd", seed=0)]).text.splitlines()
    assert "temperature=2; others not recorded" in lines[1]
    assert "recorded" not in lines[3]


@pytest.mark.parametrize("role", ["best", "final"])
def test_the_same_seed_twice(role):
    with pytest.raises(InputError, match=rf"/{role}.h5 and .*{role} one of seed 3.*one of them"):
        table.analyze([logits_of(role=role), logits_of(role=role, robust=2)])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"n": 12, "seed": 4}, r"adr-s3/best.h5 and runs/adr-s4/best.h5: 10 and 12 examples"),
        ({"n": 12}, "10 and 12 examples"),
        ({"digest": "sha256:e", "seed": 4}, "other images, both called digits"),
    ],
)
def test_files_that_cannot_share_a_line(other, words):
    with pytest.raises(MismatchError, match=words):
        table.analyze([logits_of(), logits_of(**other)])


def test_other_examples_may_stand_on_another_line():
    found = groups(logits_of(), logits_of("at", n=12), logits_of(robust=None, n=12))
    assert [group["n"] for group in found] == [10, 12, 12]


def test_text_is_aligned():
    inputs = [logits_of("trades-adr-wa", role="best-ema"), logits_of("at", seed=0)]
    head, first, second = table.analyze(inputs).text.splitlines()
    assert head.split()[:5] == ["data", "arch", "method", "attack", "norm"]
    assert first.split()[:6] == ["digits", "small-cnn", "trades-adr-wa", "pgd-50", "linf", "8/255"]
    assert head.index("attack") == first.index("pgd-50") == second.index("pgd-50")
    assert head.index("robust best %") == first.index("50.00") == second.index("50.00")


def test_without_attack_or_labels():
    unknown = logits_of("at", robust=None, labels=torch.full((10,), -1))
    first, second = rows(logits_of(robust=None), unknown)
    assert (first["clean_accuracy"], first["robust_accuracy"], first["eps"]) == (0.8, None, None)
    assert second["clean_accuracy"] is second["clean_low"] is second["robust_high"] is None
    result = table.analyze([logits_of(robust=None), unknown])
    assert [each["clean_best_mean"] for each in result.groups] == [0.8, None]
    assert [each["robust_best_seeds"] for each in result.groups] == [0, 0]
    assert "None" not in result.text
    assert "robust" not in result.text


def test_groups_are_plain():
    found = groups(*three_seeds(), logits_of("at", robust=None))
    assert json.loads(json.dumps(found, allow_nan=False)) == list(found)
    assert len({tuple(group) for group in found}) == 1  # the same keys everywhere


def test_alarms_of_training_are_told_below_the_table():
    """Once a run, whichever of its checkpoints says so, and in documents below the own lines."""
    loud = [logits_of(role=role, seed=1) for role in ("best", "final")]
    loud[0].info["alarms"] = ["labels_alarm"]
    loud[1].info["alarms"] = ["labels_alarm", "margin_alarm"]
    quiet = logits_of("at", seed=2)
    result = table.analyze([quiet, *loud])
    assert "note: alarms in the training of adr-s1: labels, margin" in result.text
    assert result.more["alarms"] == {"adr-s1": ["labels_alarm", "margin_alarm"]}
    notes = [note for sheet in result.document.sheets for note in sheet.notes]
    assert "alarms in the training of adr-s1: labels, margin" in notes
    silent = table.analyze([quiet])
    assert "alarm" not in silent.text
    assert "alarms" not in silent.more


def test_imported_nets_have_no_seed_and_are_lines_of_their_own():
    nets = [logits_of("imported", robust=k, seed=None, role="imported") for k in (5, 6)]
    for net, digest in zip(nets, ("sha256:aaaaaaaa1", "sha256:bbbbbbbb2"), strict=True):
        net.info["parents"][0]["digest"] = digest
        del net.info["trained"]
    made = groups(*nets)
    assert [group["settings"]["checkpoint"][:15] for group in made] == [
        "sha256:aaaaaaaa",
        "sha256:bbbbbbbb",
    ]
    with pytest.raises(InputError, match="both are the best one of seed None"):
        groups(nets[0], nets[0])

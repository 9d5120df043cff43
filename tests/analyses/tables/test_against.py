"""Published figures beside ours: the shipped data, what matches, differences, protocol."""

import csv
import statistics
from importlib import resources

import pytest
from scipy.stats import binomtest, t

from advkit.analyses import cost, table
from advkit.analyses.tables import published as _published
from advkit.errors import UsageError
from tests.analyses.test_cost import run_of
from tests.analyses.test_table import logits_of

AA = {"attack": "autoattack", "norm": "linf", "eps": "8/255", "version": "standard"}


def ours(method="adr", *, weights="", arch="resnet18", data="cifar10", config=AA, **more):
    """A logits file of that recipe, as advkit attacks it; the paper's training settings."""
    trained = {
        "objective": "trades" if method.startswith(("trades", "ltd")) else "at",
        "labels": "adr" if "adr" in method else "soft" if "ltd" in method else "onehot",
        "arch": arch, "awp": 0.0, "extra_digest": None, "attack_bn": "eval", "epochs": 200,
        "batch_size": 128, "eps": "8/255", "norm": "linf", "step_size": "eps/4", "lr_drops": None,
        "attack_steps": 10, **more.pop("trained", {}),
    }  # fmt: skip
    found = logits_of(method, config=config, data=data, role=f"best{weights}", **more)
    found.info["trained"].update(trained, data=data)
    found.info.update(arch=arch, implementation="pyautoattack 0.2.0", target_classes=9)
    return found


def published(*inputs, against="adr-table1"):
    return table.analyze(inputs, against=against).more["published"]


def matched(*inputs, **more):
    return [line for line in published(*inputs, **more) if line["group"] is not None]


def protocol(*inputs, against="adr-table1"):
    return "\n".join(table.analyze(inputs, against=against).more["protocol_differences"])


SPOTS = [  # typed off the papers' pages
    ("adr-table1", "cifar10", "resnet18", "AT", "best", 0.4881, 0.8252),
    ("adr-table1", "tinyimagenet", "resnet18", "TRADES+ADR", "final", 0.1886, 0.5087),
    ("adr-table2", "cifar100", "wrn-34-10", "AT+WA+AWP+ADR", "best", 0.3160, 0.6221),
    ("adr-table3", "cifar100", "preact-resnet18", "AT+ADR", "best", 0.2959, 0.5788),
    ("adr-table4", "cifar10", "resnet18", "TRADES+WA+ADR", "best", 0.5128, 0.8269),
    ("adr-table5", "tinyimagenet", "wrn-28-10", "Rebuffi et al. [47]", "best", 0.2183, 0.5327),
    ("ltd-table1", "cifar10", "wrn-34-20", "AWP+LTD", "", 0.5819, None),
    ("ltd-table1", "cifar10", "wrn-34-10", "AWP+LTD", "", 0.5690, None),
    ("ltd-table1", "cifar10", "wrn-34-10", "AWP [34]", "", 0.5617, None),
    ("ltd-table1", "cifar10", "wrn-34-10", "TRADES+LTD", "", 0.5509, 0.8620),
    ("ltd-table1", "cifar10", "wrn-34-10", "TRADES", "", 0.5308, 0.8492),
    ("ltd-table2", "cifar100", "wrn-34-10", "AWP+LTD", "", 0.3113, 0.6432),
    ("ltd-table2", "cifar100", "wrn-34-20", "LBGAT [47]", "", 0.3020, 0.6255),
    ("ltd-table2", "cifar100", "wrn-70-16", "Gowal et al. [26]", "", 0.3003, 0.6086),
    ("ltd-table2", "cifar100", "wrn-34-10", "AWP [34]", "", 0.2886, 0.6038),
    ("ltd-table3", "imagenet", "resnet50", "LTD", "", 0.3682, 0.6240),
    ("ltd-table3", "imagenet", "wrn-50-2", "LTD", "", 0.4208, 0.6810),
    ("ltd-table3", "imagenet", "wrn-50-2", "Salman et al. [49]", "", 0.3814, 0.6846),
    ("ltd-table3", "imagenet", "resnet50", "Salman et al. [49]", "", 0.3496, 0.6402),
    ("ltd-table3", "imagenet", "resnet50", "Engstrom et al. [50]", "", 0.2922, 0.6256),
    ("ltd-table3", "imagenet", "resnet50", "Wong et al. [29]", "", 0.2624, 0.5562),
    ("ltd-table3", "imagenet", "resnet18", "Salman et al. [49]", "", 0.2532, 0.5292),
    ("ltd-table4", "cifar10", "wrn-34-10", "TRADES+LTD T=50", "", None, 0.8663),
    ("ltd-table4", "cifar10", "wrn-34-10", "TRADES+LTD T=5", "", 0.5509, 0.8620),
    ("ltd-table5", "cifar10", "wrn-34-10", "AWP+LTD lambda=6", "", 0.5691, 0.8515),
    ("ltd-table6", "cifar100", "wrn-34-10", "AWP+LTD lambda=7", "", 0.3094, 0.6306),
    ("ltd-text", "cifar10", "wrn-34-20", "AWP+LTD", "", 0.5819, None),
    ("robustbench", "cifar10", "wrn-34-10", "AWP+LTD (Chen2021LTD)", "", 0.5694, 0.8521),
    (
        "leaderboard",
        "cifar100",
        "wrn-70-16",
        "SCORE (Pang2022Robustness_WRN70_16)",
        "",
        0.3305,
        0.6556,
    ),
    # typed off RobustBench's model_info and the codes' READMEs
    ("leaderboard", "cifar10", "wrn-34-10", "SAT (Huang2020Self)", "", 0.5334, 0.8348),
    (
        "leaderboard",
        "cifar100",
        "preact-resnet18",
        "HAT (Rade2021Helper_R18_ddpm)",
        "",
        0.2888,
        0.6150,
    ),
    (
        "leaderboard",
        "cifar100",
        "wrn-34-10",
        "IKL (Cui2023Decoupled_WRN-34-10_autoaug)",
        "",
        0.3252,
        0.6593,
    ),
    (
        "leaderboard",
        "cifar10",
        "wrn-70-16",
        "TRADES with EDM (Wang2023Better_WRN-70-16)",
        "",
        0.7069,
        0.9325,
    ),
    ("leaderboard", "cifar100", "preact-resnet18", "AT (Rice2020Overfitting)", "", 0.1895, 0.5383),
    ("hat", "cifar10", "resnet18", "HAT", "", 0.4908, 0.8490),
    ("hat", "tinyimagenet", "preact-resnet18", "HAT", "", 0.1814, 0.5260),
    ("ikl", "cifar100", "wrn-34-10", "IKL-AT, better clean", "", 0.3143, 0.6651),
    ("vit", "imagenet", "timm:convnext_tiny", "ConvNeXt-T (Singh et al.)", "", 0.486, 0.724),
    (
        "vit",
        "imagenet",
        "timm:convnext_tiny",
        "ConvNeXt-T (Debenedetti et al.)",
        "",
        0.4444,
        0.7164,
    ),
]


@pytest.mark.parametrize(("name", "data", "arch", "label", "point", "robust", "clean"), SPOTS)
def test_spots_of_the_shipped_figures(name, data, arch, label, point, robust, clean):
    lines = [
        line
        for line in published(logits_of(), against=name)
        if (line["data"], line["arch"], line["label"], line["point"]) == (data, arch, label, point)
    ]
    assert robust in [line["robust_published"] for line in lines]
    assert clean in [line["clean_published"] for line in lines]


COUNTS = {
    "adr-table1": 24, "adr-table2": 36, "adr-table3": 15, "adr-table4": 18, "adr-table5": 7,
    "adr-table7": 2, "ltd-table1": 5, "ltd-table2": 4, "ltd-table3": 7, "ltd-table4": 11,
    "ltd-table5": 5, "ltd-table6": 5, "ltd-text": 3, "robustbench": 3,
    "leaderboard": 30, "hat": 11, "ikl": 10, "vit": 8,
}  # fmt: skip
"""Lines of each table as the papers print them (Table 7: five runs a line)."""


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_the_record_has_every_line_and_the_page_those_that_ours_can_stand_beside(name, count):
    """Digits are beside nothing; a net of the first line's kind is beside its own lines."""
    far = table.analyze([logits_of()], against=name)
    assert len(far.more["published"]) == count
    assert far.numbers["matched"] == 0
    assert len(far.document.sheets) == 1
    assert f"{count} published lines of other data, nets or radii are not shown" in (
        "\n".join(far.document.notes)
    )
    assert _published.names() == list(COUNTS)

    first = far.more["published"][0]
    config = {**AA, "eps": first["eps"]}
    near = table.analyze(
        [ours("natural", data=first["data"], arch=first["arch"], config=config)], against=name
    )
    kind = [(line["data"], line["arch"], line["eps"]) for line in near.more["published"]]
    wanted = [
        line["label"]
        for line, own in zip(near.more["published"], kind, strict=True)
        if own == (first["data"], first["arch"], first["eps"])
    ]
    shown = [row[2].text.removesuffix(" (extra data)") for row in near.document.sheets[1].rows]
    assert shown == wanted
    assert all(label in near.text for label in wanted)


def test_the_methods_that_labels_are_taken_for():
    with (resources.files("advkit.analyses.tables") / "figures" / "published.csv").open() as file:
        rows = list(csv.DictReader(file))
    taken = {(row["table"], row["label"]): row["method"] for row in rows}
    assert taken["adr-table2", "AT+WA+AWP+ADR"] == "adr-awp-wa"
    assert taken["adr-table4", "TRADES+WA"] == "trades-wa"
    assert taken["adr-table3", "AT+ADR"] == "adr-awp-wa"  # section 5.4 says so
    assert taken["ltd-table5", "AWP+LTD lambda=3"] == "ltd-awp"
    assert taken["adr-table3", "Cui et al. [13]"] == ""
    # AWP's figures: of TRADES with AWP on CIFAR-10, of AT with AWP on CIFAR-100.
    assert taken["ltd-table1", "AWP [34]"] == "trades-awp"
    assert taken["ltd-table2", "AWP [34]"] == "at-awp"
    assert taken["ltd-table4", "TRADES+LTD T=20"] == "ltd"
    assert taken["ltd-table4", "TRADES+LTD T=50"] == "natural+soft"  # a substitute: section 5.2
    assert len(rows) == 140 + 24 + 5 + 3 + 5 + 30 + 11 + 10 + 8


def test_reruns_are_one_line():
    first, second = published(logits_of(), against="adr-table7")
    assert first["robust_published"] == pytest.approx(0.5260, abs=5e-5)
    assert second["robust_published"] == pytest.approx(0.5491, abs=1e-4)  # the paper cuts 54.914


def test_a_run_beside_the_paper():
    (line,) = matched(ours(n=100, robust=52, clean=80))
    assert (line["label"], line["point"], line["group"]) == ("AT+ADR", "best", 1)
    assert line["robust_difference"] == pytest.approx(0.52 - 0.5038)
    low, high = binomtest(52, 100).proportion_ci(method="wilson")
    assert line["robust_difference_ci95"] == pytest.approx([low - 0.5038, high - 0.5038])
    assert line["clean_difference"] == pytest.approx(0.80 - 0.8241)


def test_seeds_beside_the_paper():
    hits = (48, 52, 53)
    (line,) = matched(*(ours(n=100, robust=k, clean=80, seed=k) for k in hits))
    shares = [k / 100 for k in hits]
    half = t.ppf(0.975, 2) * statistics.stdev(shares) / 3**0.5
    mean = statistics.fmean(shares) - 0.5038
    assert line["robust_difference"] == pytest.approx(mean)
    assert line["robust_difference_ci95"] == pytest.approx([mean - half, mean + half])
    assert line["clean_difference_ci95"] is None  # no seed differs: nothing to estimate from


def test_seeds_beside_reruns():
    """Welch's interval, worked out: difference ± t(ν)·√(s₁²/n₁ + s₂²/n₂)."""
    config = {"attack": "pgd", "norm": "linf", "eps": "8/255", "steps": 100}
    inputs = [ours("at", config=config, n=1000, robust=k, seed=k) for k in (520, 525, 530)]
    (line,) = matched(*inputs, against="adr-table7")
    theirs = [0.5280, 0.5228, 0.5274, 0.5255, 0.5263]
    a, b = 0.005**2 / 3, statistics.variance(theirs) / 5
    nu = (a + b) ** 2 / (a**2 / 2 + b**2 / 4)
    half = t.ppf(0.975, nu) * (a + b) ** 0.5
    mean = 0.525 - statistics.fmean(theirs)
    assert line["robust_difference_ci95"] == pytest.approx([mean - half, mean + half])


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({"method": "adr-wa", "weights": "-ema"}, "AT+WA+ADR"),
        ({"method": "adr", "weights": "-ema"}, "AT+WA+ADR"),
        ({"method": "adr-wa"}, "AT+ADR"),
        ({"method": "adr-awp-wa", "weights": "-ema"}, "AT+WA+AWP+ADR"),
        ({"method": "at", "arch": "wrn-34-10"}, "AT"),
    ],
)
def test_weight_space_is_part_of_the_method(given, label):
    (line,) = matched(ours(**given), against="adr-table2")
    assert (line["label"], line["arch"]) == (label, given.get("arch", "resnet18"))


@pytest.mark.parametrize(
    "other", [{"data": "digits"}, {"arch": "small-cnn"}, {"method": "natural"},
              {"trained": {"extra_digest": "sha256:x"}}, {"method": "adr-awp"}]
)  # fmt: skip
def test_what_is_another_recipe(other):
    assert not matched(ours(**other))


@pytest.mark.parametrize(
    "other", [{"grad_align": 0.2}, {"min_loss": 1.5}, {"train_attack": "n-fgsm"}]
)
def test_an_option_may_make_it_another_recipe(other):
    """Descriptions of plain runs do not name these options."""
    (line,) = matched(ours("at"))
    assert line["label"] == "AT"
    assert not matched(ours("at", trained=other))
    defaults = {"grad_align": 0.0, "min_loss": 0.0, "train_attack": "pgd"}
    assert matched(ours("at", trained=defaults))


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"train_attack": "fgsm-rs"}, "FGSM-RS (Wong2020Fast)"),
        (
            {"train_attack": "fgsm-rs", "grad_align": 0.2},
            "GradAlign (Andriushchenko2020Understanding)",
        ),
        ({"grad_align": 0.2}, None),
        ({"train_attack": "n-fgsm"}, None),
        ({}, None),
    ],
)
def test_single_step_training_beside_the_leaderboard(options, label):
    run = ours("at", arch="preact-resnet18", trained=options)
    found = [line["label"] for line in matched(run, against="leaderboard")]
    assert found == [label] * (label is not None)


def test_score_beside_the_leaderboard():
    """Its checkpoints are weight averages, of runs with synthetic images."""
    extra = {"extra_digest": "sha256:x"}
    run = ours("score-wa", weights="-ema", arch="wrn-28-10", trained=extra)
    (line,) = matched(run, against="leaderboard")
    assert (line["robust_published"], line["clean_published"]) == (0.6104, 0.8861)
    assert not matched(ours("score", arch="wrn-28-10", trained=extra), against="leaderboard")
    other = ours("score-wa", weights="-ema", arch="wrn-28-10")
    assert not matched(other, against="leaderboard")


def test_hat_beside_its_readme():
    trained = {"objective": "hat", "labels": "onehot", "helper_step": 3.5, "lr_schedule": "cosine"}
    (line,) = matched(ours("hat", trained=trained), against="hat")
    assert (line["label"], line["robust_published"]) == ("HAT", 0.4908)
    told = protocol(ours("hat", trained=trained), against="hat")
    # Its preset says how it was trained: what ours had otherwise, and nothing that ours had too.
    assert "helper_step: 3.5 here; 2.0 there, HAT's code, README's command" in told
    assert "lr_schedule: cosine here; onecycle there, HAT's code" in told
    assert "lr_peak: none here; 0.25 there" in told
    assert "batch_size" not in told
    # No habit is told for all lines, so none is compared.
    assert "BN mode" not in told


def test_another_augmentation_is_another_recipe():
    assert matched(ours("at"))
    assert not matched(ours("at", trained={"augment": "cutmix"}))
    trained = {"objective": "ikl", "labels": "onehot", "awp": 0.005}
    net = {"weights": "-ema", "arch": "wrn-34-10", "data": "cifar100"}
    plain = ours("ikl-awp-wa", **net, trained=trained)
    mixed = ours("ikl-awp-wa", **net, trained={**trained, "augment": "autoaugment"})
    labels = [[line["label"] for line in matched(run, against="ikl")] for run in (plain, mixed)]
    assert labels == [["IKL-AT, better clean", "IKL-AT"], ["IKL-AT with AutoAugment"]]


def test_settings_of_a_published_line():
    (line,) = matched(
        ours("ltd", arch="wrn-34-10", trained={"temperature": 3.0}), against="ltd-table4"
    )
    assert (line["label"], line["robust_published"]) == ("TRADES+LTD T=3", 0.5503)


def test_another_attack_is_not_compared():
    config = {"attack": "pgd", "norm": "linf", "eps": "8/255", "steps": 20}
    (line,) = matched(ours(config=config))
    assert line["robust_difference"] is None
    assert line["clean_difference"] is not None
    assert "pgd 20 linf 8/255 here; autoattack linf 8/255 there" in protocol(ours(config=config))
    (line,) = matched(ours(config=config), ours(robust=4))
    assert line["robust_ours"] == 0.4  # the one attacked alike is taken
    (line,) = matched(ours(config={**AA, "eps": "0.031"}))
    assert line["robust_difference"] is None
    (line,) = matched(ours(config={**AA, "eps": "16/510"}))
    assert line["robust_difference"] is not None


def test_protocol_differences_come_from_the_files():
    told = protocol(ours(trained={"epochs": 30, "attack_bn": "train", "tau": "9:1"}))
    for words in (
        "test examples (cifar10): 10 here; 10000 there",
        "pyautoattack 0.2.0, 9 targets here; torchattacks 3.3.0",
        "chosen on a validation split here; on the test set",
        "epochs: 30 here; 200 there, ADR, section 5.1",
        "tau: 9:1 here; 2.5:2.0 there",
    ):
        assert words in told
    assert "BN mode" not in told  # the same as in ADR's code
    assert "step_size" not in told  # eps/4 of 8/255 is 2/255
    assert "lr_drops: none here; 100, 150 there" in told  # ours fall at 15 and 22


def test_settings_that_are_the_paper_s_are_not_listed():
    same = {"epochs": 200, "tau": "2.5:2.0", "lambda": "0.7:0.95", "anneal": "cosine"}
    told = protocol(ours(trained=same))
    for name in ("epochs", "lr_drops", "step_size", "tau", "eps:", "batch_size"):
        assert name not in told, name
    assert "BN mode of the inner attack: eval here; train" in told


def test_a_substitute_matches_table_4_s_last_line():
    natural = ours(
        "natural+soft", arch="wrn-34-10", robust=None, config={"attack": "none"},
        trained={"temperature": 50.0, "objective": "natural", "labels": "soft"},
    )  # fmt: skip
    lines = matched(natural, against="ltd-table4")
    assert [line["label"] for line in lines] == ["TRADES+LTD T=50"]
    assert lines[0]["clean_published"] == 0.8663
    assert lines[0]["robust_published"] is None
    adversarial = ours("ltd", arch="wrn-34-10", trained={"temperature": 50.0})
    assert matched(adversarial, against="ltd-table4") == []


def test_nothing_matches_and_why():
    result = table.analyze([logits_of("at", lr=0.5)], against="adr-table1")
    assert "nothing here matches a published line: data: digits here; cifar10," in result.text
    assert "architecture: small-cnn here; resnet18 there" in result.text
    assert "test examples: 10 here; 10000 there" in result.text
    assert "24 published lines of other data, nets or radii are not shown" in result.text
    assert "48.81" not in result.text
    told = table.analyze([ours("natural")], against="adr-table1").text
    assert "method: natural here; adr, at, trades, trades-adr there" in told
    assert "48.81" in told, "another method on the same data and net, at the same radius"


def test_both_versions_of_ltd_s_figures_are_named():
    for name in ("robustbench", "ltd-table2"):
        assert "two versions" in table.analyze([logits_of()], against=name).text


def test_files_without_training_settings_or_labels():
    old = ours()
    del old.info["trained"]
    assert "not recorded" in protocol(old)
    clean = ours(robust=None, config={"attack": "none"})
    (line,) = matched(clean)
    assert line["robust_ours"] is line["robust_difference"] is None
    assert line["clean_ours"] == 0.8


@pytest.mark.parametrize(
    ("name", "words"), [("adr-tabel1", "'adr-table1'"), ("adr-table6", "analyze cost")]
)
def test_other_names(name, words):
    with pytest.raises(UsageError, match=words):
        table.analyze([logits_of()], against=name)


def test_seconds_beside_table_6(tmp_path):
    here = {"arch": "resnet18", "data": {"name": "cifar10"}}
    runs = [run_of(tmp_path, "a", (9.0, 20.0, 40.0), method="at", **here),
            run_of(tmp_path, "b", (9.0, 33.0, 33.0), **here)]  # fmt: skip
    result = cost.analyze(runs, against="adr-table6")
    lines = {(x["data"], x["arch"], x["label"]): x for x in result.more["published"]}
    assert len(lines) == 24
    at, adr = (lines["cifar10", "resnet18", label] for label in ("AT", "AT+ADR"))
    assert (at["published"], at["ours"], at["ours_ratio"]) == (81, 30, 1)
    assert (adr["published"], adr["ours"]) == (83, 33)
    assert adr["ours_ratio"] == pytest.approx(1.1)
    assert adr["published_ratio"] == pytest.approx(83 / 81)
    assert lines["tinyimagenet", "wrn-34-10", "AT+AWP+ADR"]["published"] == 5127
    assert result.numbers == {"runs": 2, "against": "adr-table6", "matched": 2}
    # Four methods on each data set and net: of one of these, four lines are shown.
    hidden = "20 published lines of other data or nets are not shown"
    assert f"\n- {hidden}" in result.text
    assert hidden in result.document.sheets[-1].notes
    elsewhere = cost.analyze([run_of(tmp_path, "c")], against="adr-table6")
    assert "\n- 24 published lines of other data or nets are not shown" in elsewhere.text
    with pytest.raises(UsageError, match="analyze table --against adr-table1"):
        cost.analyze(runs, against="adr-table1")

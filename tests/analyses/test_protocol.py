"""What differs between things compared is named beside them, and nothing is bold across it."""

import dataclasses
import json
import re

import pytest
import torch

from advkit.analyses import compare, cost, findings, grid, ood, table
from advkit.analyses.drawing import grid as drawing
from advkit.analyses.gathering import protocol
from advkit.analyses.gathering.first import First
from advkit.analyses.gathering.protocol import UNRECORDED, Setting
from advkit.artifacts import analysis
from advkit.artifacts.document import markdown
from advkit.artifacts.latex import latex
from advkit.artifacts.page import html
from advkit.config.settings import options
from tests.analyses.tables.test_leads import verdicts
from tests.analyses.test_cost import run_of
from tests.analyses.test_findings import NATURAL, ROBUST, model
from tests.analyses.test_grid import adr
from tests.analyses.test_table import PGD, logits_of, without_settings
from tests.contracts.test_analyses import logits_file, soft_labels

PAGE = {"schema": 1, "kind": "analysis", "config": {"analysis": "table"}, "digest": "x"}
BUDGETS = ({"epochs": 30}, {"epochs": 6})


def two(first=BUDGETS[0], second=BUDGETS[1], *, n=40):
    """ADR stands on 20 more examples than AT does: far beyond noise."""
    inputs = [verdicts("adr", range(30), n=n), verdicts("at", range(10))]
    for logits, own in zip(inputs, (first, second), strict=True):
        logits.info["config"] = own.get("config", logits.info["config"])
        logits.info["trained"] |= {key: own[key] for key in own if key != "config"}
    return inputs


def texts(document):
    return {"md": markdown(document), "tex": latex(document), "html": html(document, PAGE)}


BOLD = {"md": r"\*\*\d", "tex": r"\\textbf", "html": "<strong>"}


def bold(pages):
    return {name: bool(re.search(BOLD[name], text)) for name, text in pages.items()}


# --- Two runs of different epochs in one table ---


@pytest.fixture(scope="module")
def budgets():
    return table.analyze(two())


@pytest.fixture(scope="module")
def pages(budgets):
    """Drawn once: a page takes a second."""
    return texts(budgets.document)


@pytest.mark.parametrize("form", ["text", "md", "tex", "html"])
def test_other_epochs_are_named(budgets, pages, form):
    """The text calls methods as `--method` does, documents as papers do."""
    text = {**pages, "text": budgets.text}[form]
    adr, at = ("adr", "at") if form == "text" else ("AT+ADR", "PGD-AT")
    told = f"not the same in all lines: epochs 30 ({adr}), 6 ({at}); nothing is bold across it"
    assert told in text


def test_other_epochs_are_in_record_and_files(budgets):
    assert budgets.more["differs"] == {"epochs": [30, 6]}
    assert [group["differs"] for group in budgets.groups] == [{"epochs": 30}, {"epochs": 6}]
    rows = [dict(zip(budgets.columns, row, strict=True)) for row in budgets.rows]
    assert [row["differs"] for row in rows] == ["epochs=30", "epochs=6"]
    content = json.loads(analysis.json_text(budgets, PAGE))
    assert content["differs"] == {"epochs": [30, 6]}
    assert "epochs=6" in analysis.csv_text(budgets)


def test_nothing_is_bold_across_other_epochs(budgets, pages):
    assert [group["leads"] for group in budgets.groups] == [[], []]
    assert bold(pages) == {"md": False, "tex": False, "html": False}
    same = table.analyze(two(BUDGETS[0], BUDGETS[0]))
    assert bold(texts(same.document)) == {"md": True, "tex": True, "html": True}
    assert "not the same" not in same.text
    assert same.more["differs"] == {}


def test_what_a_step_of_the_method_is_makes_no_other_budget():
    """TRADES starts outside the box and AT does not: that is what is compared."""
    found = table.analyze(two({"clip_start": True}, {"clip_start": False}))
    assert found.more["differs"] == {}
    assert [bool(group["leads"]) for group in found.groups] == [True, False]


def test_one_line_of_another_budget_takes_the_bold_from_all():
    """The best line may not be printed as the best of a column in which another had less."""
    inputs = [*two(BUDGETS[0], BUDGETS[0]), verdicts("trades", range(5), epochs=6)]
    assert [group["leads"] for group in table.analyze(inputs).groups] == [[], [], []]
    assert table.analyze(inputs).text.count("epochs 30 (adr, at), 6 (trades)") == 1


OTHERS = {
    "data": ({"data": "digits"}, {"data": "cifar10"}, "trained_on digits (adr), cifar10 (at)"),
    "width": ({"width": 16}, {"width": 32}, "width 16 (adr), 32 (at)"),
    "extra data": (
        {"extra_digest": None},
        {"extra_digest": "sha256:0a1b2c3d4e5f"},
        "extra_digest – (adr), 0a1b2c3d (at)",
    ),
    "images": ({"limit": 500}, {"limit": None}, "limit 500 (adr), – (at)"),
    "radius": ({"eps": "8/255"}, {"eps": "4/255"}, "trained_eps 8/255 (adr), 4/255 (at)"),
    "norm": ({"norm": "linf"}, {"norm": "l2"}, "trained_norm linf (adr), l2 (at)"),
    "rate": ({"lr": 0.1}, {"lr": 0.05}, "lr 0.1 (adr), 0.05 (at)"),
    "inner attack": ({"attack_steps": 10}, {"attack_steps": 7}, "attack_steps 10 (adr), 7 (at)"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_else_makes_no_fair_comparison(what):
    first, second, words = OTHERS[what]
    inputs = two({"epochs": 30, **first}, {"epochs": 30, **second})
    result = table.analyze(inputs)
    assert f"not the same in all lines: {words}" in result.text
    assert [group["leads"] for group in result.groups] == [[], []]


def test_what_a_method_is_makes_no_difference():
    own = {
        "objective": "trades", "labels": "adr", "wa": True, "awp": 0.005, "awp_form": "adr",
        "awp_warmup": 3, "ema_decay": 0.99, "labels_digest": "sha256:a", "beta": 6.0, "inner": "kl",
        "tau": "2:1", "lambda": "0:1", "anneal": "step", "smoothing": 0.2, "temperature": 5.0,
        "teacher_noise": "x", "student_temperature": 2.0, "joint_batch": True, "compile": True,
    }  # fmt: skip
    result = table.analyze(two(BUDGETS[0], {**BUDGETS[0], **own}))
    assert result.more["differs"] == {}
    assert result.groups[0]["leads"] == ["robust_best"]


def test_every_option_of_a_run_is_of_the_method_or_held_fixed():
    """A new option that nobody thought of here is held fixed."""
    names = {option.name for option in options()}
    assert protocol.of_method() | set(protocol.ASIDE) <= names
    fixed = names - protocol.of_method() - set(protocol.ASIDE)
    assert {"epochs", "lr", "width", "limit", "extra_digest", "eps", "norm", "val_size"} <= fixed


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"eps": "8/255"}, {"eps": "16/510"}),
        ({"eps": "8/255", "step_size": "eps/4"}, {"eps": "8/255", "step_size": "2/255"}),
        ({"epochs": 20, "lr_drops": None}, {"epochs": 20, "lr_drops": [10, 15]}),
        ({"bn_momentum": None}, {}),  # a file of before that option
        ({"eps": "0.0313725490196078431", "step_size": "2/255"}, {}),
        ({"objective": "natural", "eps": "8/255"}, {"objective": "at", "eps": "4/255"}),
        ({"attack_steps": 0, "norm": "linf"}, {"attack_steps": 10, "norm": "l2"}),
    ],
)
def test_equal_settings_however_they_are_spelt(first, second):
    found = protocol.differences([protocol.training(first), protocol.training(second)])
    assert set(found) <= {"attack_steps"}


def test_one_difference_is_named_once():
    """2/255 is a quarter of 8/255 and half of 4/255; both nets took 2/255, and ε says the rest."""
    recipes = [{"eps": eps, "step_size": "2/255"} for eps in ("8/255", "4/255")]
    assert list(protocol.differences([protocol.training(x) for x in recipes])) == ["trained_eps"]
    recipes = [{"epochs": epochs, "lr_drops": None} for epochs in (20, 40)]
    assert list(protocol.differences([protocol.training(x) for x in recipes])) == ["epochs"]


def test_a_later_option_differs_from_its_absence_where_it_is_not_at_its_default():
    old, new = protocol.training({"epochs": 3}), protocol.training({"epochs": 3, "limit": 50})
    assert protocol.differences([old, new]) == {"limit": [None, 50]}


def test_many_names_are_counted():
    names = ["a", "b", "c", "d", "e", "f"]
    values = [1, 1, 1, 1, 1, 2]
    assert protocol.words({"k": values}, names) == "k 1 (a, b, c and 2 more), 2 (f)"
    assert protocol.words({"k": values, "m": values}, names, ("m",)) == "m; k " + (
        "1 (a, b, c and 2 more), 2 (f)"
    )


def test_the_evaluation_is_named_too():
    short, weak = two(BUDGETS[0], BUDGETS[0]), two(BUDGETS[0], {**BUDGETS[0], "config": {
        **PGD, "step_size": "eps/8"}})  # fmt: skip
    short[1] = verdicts("at", range(10), n=20, epochs=30)
    assert table.analyze(short).more["differs"] == {"n": [40, 20]}
    assert table.analyze(weak).more["differs"] == {"step_size": ["eps/4", "eps/8"]}
    other = two(BUDGETS[0], BUDGETS[0])
    other[1].index.add_(7)
    found = table.analyze(other)
    assert list(found.more["differs"]) == ["examples"]
    assert "not the same in all lines: examples" in found.text


def test_an_attack_has_no_part_of_the_training_s():
    """A clean evaluation has no norm; its net's training has one, under another name."""
    ball = {**PGD, "norm": "l2", "eps": "0.5"}
    inputs = [logits_of(robust=None, epochs=6), logits_of("at", config=ball, epochs=6)]
    assert table.analyze(inputs).more["differs"] == {"attack": ["none", "pgd"]}


def test_data_of_one_name_are_told_apart():
    """Two folders of photos are both called `folder`."""
    inputs = two(BUDGETS[0], BUDGETS[0])
    inputs[1].info["parents"][0]["parents"] = [{"kind": "data", "digest": "sha256:0123456789"}]
    inputs[0].info["parents"][0]["parents"] = [{"kind": "data", "digest": "sha256:abcdefabcd"}]
    found = table.analyze(inputs)
    assert found.more["differs"] == {"trained_on": ["digits abcdefab", "digits 01234567"]}
    assert [group["leads"] for group in found.groups] == [[], []]


def test_training_that_nobody_recorded_is_unknown():
    inputs = two()
    old = [without_settings(logits) for logits in two()]
    mixed = table.analyze([inputs[0], old[1]])
    assert mixed.more["differs"] == {"training": ["recorded", UNRECORDED]}
    assert [group["leads"] for group in mixed.groups] == [[], []]
    found = table.analyze(old)
    assert "how these runs were trained is not recorded: nothing is bold" in found.text
    assert [group["leads"] for group in found.groups] == [[], []]


def test_tables_of_several_attacks_speak_each_of_their_own_lines():
    clean = logits_of("mart", robust=None, n=40, clean=9, epochs=6)
    document = table.analyze([*two(BUDGETS[0], BUDGETS[0]), clean]).document
    assert ["not the same" in "\n".join(sheet.notes) for sheet in document.sheets] == [False, False]
    text = table.analyze([*two(BUDGETS[0], BUDGETS[0]), clean]).text
    assert "not the same in all lines: attack; epochs 30 (adr, at), 6 (mart)" in text


# --- The other comparisons ---


def test_compare_names_what_differs():
    result = compare.analyze(two())
    words = "epochs 30 (adr s0), 6 (at s0)"
    assert f"other settings than the first file's: {words}" in result.text
    assert result.more == {"differs": {"epochs": [30, 6]}}
    place = result.columns.index("differs")
    assert {row[place] for row in result.rows} == {words}
    same = compare.analyze(two(BUDGETS[0], BUDGETS[0]))
    assert same.more == {"differs": {}}
    assert "other settings" not in same.text


def test_compare_names_each_pair_s_own():
    third = verdicts("trades", range(12), epochs=30, lr=0.5)
    result = compare.analyze([*two(), third])
    place = result.columns.index("differs")
    words = {row[1]: row[place] for row in result.rows}
    assert words == {
        "at s0": "epochs 30 (adr s0), 6 (at s0)", "trades s0": "lr 0.1 (adr s0), 0.5 (trades s0)",
    }  # fmt: skip
    assert result.more["differs"] == {"epochs": [30, 6], "lr": [0.1, 0.5]}


@pytest.fixture
def frames(monkeypatch):
    """Whether each map was told that its cells differ in their methods alone."""
    told = []
    real = drawing._map

    def noted(*args, **more):
        told.append(more["alike"])
        return real(*args, **more)

    monkeypatch.setattr(drawing, "_map", noted)
    return told


def test_grid_names_what_differs(frames):
    runs = [
        adr("2:2", f"{lam}:{lam}", 50 + k, epochs=epochs)
        for k, (lam, epochs) in enumerate([(0.3, 6), (0.3, 30), (0.7, 6), (0.7, 30)])
    ]
    result = grid.analyze(runs, x="lambda", y="epochs")
    assert "note: not the same in all cells: epochs 6, 30" in result.text
    assert result.more == {"differs": {"epochs": [6, 30]}}
    averaged = grid.analyze(runs, x="lambda", over="epochs")
    assert averaged.more == {"differs": {"epochs": [6, 30]}}
    methods = grid.analyze([*runs[::2], adr("1:1", "0.3:0.3", 9, epochs=6)], x="lambda", y="tau")
    assert methods.more == {"differs": {}}
    assert frames == [False, False, True, True]


def test_cost_names_what_differs(tmp_path):
    first = run_of(tmp_path, "a", config={"epochs": 3, "width": 16, "beta": 6.0})
    second = run_of(
        tmp_path, "b", config={"epochs": 3, "width": 32, "compile": True}, n=50, method="at",
        environment={"device": "cuda", "threads": 16},
    )  # fmt: skip
    result = cost.analyze([first, second])
    words = "device, threads; width 16 (a), 32 (b); compile False (a), True (b); n 100 (a), 50 (b)"
    assert f"note: not the same in all runs: {words}" in result.text
    assert result.more["differs"] == {
        "width": [16, 32], "compile": [False, True], "device": ["cpu", "cuda"], "threads": [2, 16],
        "n": [100, 50],
    }  # fmt: skip
    place = result.columns.index("differs")
    assert result.rows[0][place] == "width=16, compile=False, device=cpu, threads=2, n=100"
    for text in texts(result.document).values():
        assert "not the same in all runs: device, threads; width 16 (a), 32 (b)" in text
    alike = cost.analyze([first, run_of(tmp_path, "c", config={"epochs": 3, "width": 16})])
    assert alike.more == {"differs": {}}
    assert "not the same" not in alike.text


def test_findings_name_what_differs():
    natural, robust = model("natural", **NATURAL), model("adr", **ROBUST)
    for files, epochs in ((natural, 30), (robust, 6)):
        for logits in files:
            logits.info["trained"] |= {"epochs": epochs}
    result = findings.analyze([*natural, *robust])
    (group,) = result.groups
    assert group["differs"] == {"epochs": [30, 6]}
    assert result.more == {"differs": {"epochs": [30, 6]}}
    words = "other settings than natural s0's: epochs 30 (natural s0), 6 (adr s0)"
    assert f"note: adr s0: {words}" in result.text


def test_ood_names_what_differs():
    """Clean outputs alone are looked at: how files were attacked is no difference."""
    natural, robust = model("natural", **NATURAL), model("adr", **ROBUST)
    for files, epochs in ((natural, 30), (robust, 6)):
        for logits in files:
            logits.info["trained"] |= {"epochs": epochs}
            logits.info["config"] = {**logits.info["config"], "steps": epochs}
    result = ood.analyze([*natural, *robust])
    assert result.more == {"differs": {"epochs": [30, 6]}}
    assert result.text.endswith("note: not the same for all models: epochs 30 (natural), 6 (adr)")
    for logits in robust:
        logits.info["trained"] |= {"epochs": 30}
    assert ood.analyze([*natural, *robust]).more == {"differs": {}}


def test_ood_names_other_examples_of_the_other_data():
    natural, robust = model("natural", **NATURAL), model("adr", **ROBUST)
    (place,) = [k for k, logits in enumerate(robust) if (logits.labels < 0).all()]
    whole, name = robust[place], robust[place].info["data"]["name"]
    half = len(whole.index) // 2
    robust[place] = dataclasses.replace(
        whole, index=whole.index[:half], labels=whole.labels[:half], clean=whole.clean[:half]
    )
    differs = ood.analyze([*natural, *robust]).more["differs"]
    assert differs == {f"n of {name}": [2 * half, half]}


def test_inputs_looked_at_alone_are_named_against_the_first(cli, tmp_path):
    """No file's own digest hangs on what stood before it."""
    files = [logits_file(tmp_path, method) for method in ("adr", "trades", "ltd")]
    done = cli("analyze", "divergence", *files, "--json")
    assert done.code == 0, done.err
    rates = pytest.approx([0.3, 0.6])
    assert [record.get("differs") for record in done.records] == [None, {"lr": rates}, {}]
    words = "other settings than the first input's: lr 0.3 (adr-s0 best), 0.6 (trades-s0 best)"
    assert [line for line in done.err.splitlines() if "note" in line] == [
        f"trades-s0 (pgd, eps 8/255): note: {words}"
    ]
    alone = cli("analyze", "divergence", files[1], "--json").record
    assert alone["digest"] == done.records[1]["digest"]


def test_checkpoints_looked_at_alone_are_named_too(tmp_path):
    first, second = (
        run_of(tmp_path, name, config={"epochs": epochs, "eps": eps, "width": 16})
        for name, epochs, eps in (("a", 3, "8/255"), ("b", 5, "4/255"))
    )
    for run in (first, second):
        run.info["parents"] = []
    differs, words = First(first).beside(second)
    assert differs == {"epochs": [3, 5], "trained_eps": ["8/255", "4/255"]}
    assert words.startswith("epochs 3 (a best), 5 (b best)")
    assert First(first).beside(first) == ({}, "")


def test_labels_files_looked_at_alone_are_named_too():
    """By views, classes kept and data; two sets of one name are told apart by their digests."""
    one, other = soft_labels(8, 3, 1), soft_labels(8, 3, 4)
    for file in (one, other):
        file.info["config"] |= {"dtype": "float32", "top_k": None}
    other.info["parents"][1] = {**other.info["parents"][1], "digest": "sha256:eeeeeeeeeeee"}
    one.info["parents"][1] = {**one.info["parents"][1], "digest": "sha256:ffffffffffff"}
    differs, _ = First(one).beside(other)
    assert differs == {"views": ["1", "4"], "data": ["digits ffffffff", "digits eeeeeeee"]}


def test_what_does_not_apply_differs_from_nothing():
    idle = {"k": Setting(None, "")}
    assert protocol.differences([idle, {"k": Setting(1, "1")}, {"k": Setting(1, "1")}]) == {}
    assert protocol.differences([idle, {"k": Setting(1, "1")}, {"k": Setting(2, "2")}]) == {
        "k": [None, 1, 2]
    }


def test_the_order_of_lines_changes_no_verdict():
    inputs = [*two(BUDGETS[0], BUDGETS[0]), verdicts("trades", range(20), epochs=30)]
    for order in torch.randperm(3), torch.tensor([2, 1, 0]):
        groups = table.analyze([inputs[k] for k in order]).groups
        assert {group["method"]: group["leads"] for group in groups} == {
            "adr": ["robust_best"], "at": [], "trades": [],
        }  # fmt: skip

"""What runs, methods and files are called in pictures and documents."""

import pytest

from advkit.analyses import cost, table
from advkit.analyses.gathering import naming
from advkit.artifacts.latex import latex
from advkit.errors import UsageError
from tests.analyses.tables.test_leads import verdicts
from tests.analyses.test_cost import run_of


def source(run, method, **info):
    return naming.Named(f"runs/{run}/best.h5", {"method": method, **info})


@pytest.mark.parametrize("text", ["", "at", "=AT", "at=", "at= ", "at=" + "x" * 300])
def test_no_label(text):
    with pytest.raises(UsageError, match="--label"):
        naming.parse([text])


def test_a_name_has_one_label():
    with pytest.raises(UsageError, match="at: given twice"):
        naming.parse(["at=A", "at=B"])


def test_a_label_may_hold_any_text():
    assert naming.parse(["at-s0=$x$ = 1", "b=a\nb\x00"]) == {"at-s0": "$x$ = 1", "b": "a b\ufffd"}


@pytest.mark.parametrize("name", ["at-s0", "at", "PGD-AT", "best.h5", "runs/at-s0/best.h5"])
def test_what_a_label_can_be_of(name):
    one, other = source("at-s0", "at"), source("adr-s0", "adr")
    naming.require_known({name: "x"}, [other, one])
    with naming.labelled({name: "Baseline"}):
        assert naming.names([one])[0].startswith("Baseline")
    assert naming.names([one, other]) == ["PGD-AT", "AT+ADR"]


def test_a_label_of_nothing_is_told_with_near_names():
    with pytest.raises(UsageError, match="unknown name for --label 'at-so': did you mean 'at-s0'"):
        naming.require_known({"at-so": "x"}, [source("at-s0", "at")])


def test_runs_of_one_method_are_told_apart():
    twins = [source("at-s0", "at"), source("at-s1", "at"), source("adr-s0", "adr")]
    assert naming.names(twins) == ["PGD-AT (at-s0)", "PGD-AT (at-s1)", "AT+ADR"]
    with naming.labelled({"at": "Ours", "adr-s0": "Theirs"}):
        assert naming.names(twins) == ["Ours (at-s0)", "Ours (at-s1)", "Theirs"]


def test_names_among_others_keep_what_tells_them_apart():
    own = source("adr-s0", "adr")
    assert naming.beside(own, "adr s0") == "AT+ADR, seed 0"
    assert naming.beside(own, "adr tau=2") == "AT+ADR, tau=2"
    assert naming.beside(own, "adr") == "AT+ADR"
    with naming.labelled({"adr-s0": "Ours"}):
        assert naming.beside(own, "adr tau=2") == "Ours"


def test_single_step_training_is_told_from_pgd():
    assert naming.name(source("a", "at", trained={"train_attack": "fgsm-rs"})) == "AT (a)"
    assert naming.name(source("a", "at", config={"train_attack": "n-fgsm"})) == "AT (a)"
    assert naming.name(source("a", "at", trained={"train_attack": "pgd"})) == "PGD-AT (a)"


def test_what_attacked_stands_in_words():
    config = {"attack": "pgd", "steps": 10, "norm": "linf", "eps": "8/255"}
    own = source("a", "at", config=config)
    assert naming.attacked(own) == "PGD-10, ℓ∞, ε = 8/255"
    assert naming.shared([own, own]) == "PGD-10, ℓ∞, ε = 8/255"
    assert naming.shared([own, source("b", "at", config={"attack": "none"})]) == ""
    assert naming.attack("autoattack") == "AutoAttack"


def test_labels_end_with_their_call():
    with pytest.raises(ZeroDivisionError), naming.labelled({"at": "x"}):
        raise ZeroDivisionError
    assert naming.labels() == {}


def test_tables_call_methods_as_papers_do_or_by_their_labels():
    inputs = [verdicts("adr", range(20)), verdicts("at", range(10))]
    result = table.analyze(inputs)
    text = latex(result.document)
    assert "AT+ADR & 1" in text
    assert "PGD-AT & 1" in text
    assert r"\label{tab:robust-and-standard-accuracy}" in text
    assert {group["method"] for group in result.groups} == {"adr", "at"}, "records keep ours"
    with naming.labelled({"adr": "Ours"}):
        labelled = latex(table.analyze(inputs).document)
    assert "Ours & 1" in labelled
    assert "AT+ADR" not in labelled


def test_costs_too(tmp_path):
    runs = [run_of(tmp_path, "a")]
    with naming.labelled({"a": "Run A"}):
        (sheet,) = cost.analyze(runs).document.sheets
    assert [cell.text for cell in sheet.rows[0][2:4]] == ["AT+ADR", "Run A"]


def test_captions_fit_what_is_shown():
    """Intervals of single runs are no deviations over seeds."""
    (alone,) = table.analyze([verdicts("adr", range(20))]).document.sheets
    assert "95 % interval of one run" in alone.caption
    assert "±" not in alone.caption
    seeds = [verdicts("at", range(10 + k), seed=k) for k in range(3)]
    (several,) = table.analyze(seeds).document.sheets
    assert "mean ± sample standard deviation over seeds" in several.caption
    assert "interval" not in several.caption
    (both,) = table.analyze([*seeds, verdicts("adr", range(20))]).document.sheets
    assert "±" in both.caption
    assert "95 % interval of one run" in both.caption

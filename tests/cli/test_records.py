"""Records: what each stage prints, what the next one reads, and how they link up."""

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from advkit.__main__ import main
from advkit.artifacts import artifact, checkpoint
from tests.conftest import SEED, TINY

FGSM = ["--attack", "fgsm", "--limit", "20"]
PGD = ["--attack", "pgd", "--steps", "5", "--limit", "40"]
BEST = "run/best.safetensors"
ADR = ["train", "--method", "adr", *TINY]
CALIBRATION = ["analyze", "calibration", "--resamples", "20"]
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def place(tiny_run, tiny_logits, tmp_path, monkeypatch):
    """Work in a folder of its own with the tiny run and its logits."""
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copy(tiny_logits, tmp_path / "a.h5")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(**record) -> str:
    return json.dumps(record) + "\n"


def plain(value) -> bool:
    """Whether a value is made of text, finite numbers and null only."""
    if isinstance(value, dict | list):
        return all(plain(each) for each in (value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, str | int) or math.isfinite(value)


def shares(record: dict) -> dict:
    return {key: value for key, value in record.items() if "accuracy" in key.split("_")}


COMMANDS = {
    "checkpoint": [*ADR, "-o", "run"],
    "logits": ["attack", BEST, *FGSM],
    "analysis": [*CALIBRATION, "a.h5", "-o", "x.json"],
}
EACH_KIND = pytest.mark.parametrize("kind", COMMANDS)


@EACH_KIND
def test_common_fields(cli, kind):
    record = cli(*COMMANDS[kind]).record
    assert record["kind"] == kind
    assert not os.path.isabs(record["path"])
    assert Path(record["path"]).is_file()
    assert DIGEST.fullmatch(record["digest"])
    assert record["digest"] == artifact.read_info(Path(record["path"]))["digest"]
    assert plain(record)


@EACH_KIND
def test_stdout_is_one_json_line(cli, kind):
    out = cli(*COMMANDS[kind]).out
    assert out.endswith("}\n")
    assert out.count("\n") == 1


@EACH_KIND
def test_accuracies_are_shares(cli, kind):
    found = shares(cli(*COMMANDS[kind]).record)
    assert len(found) >= 2
    for value in found.values():
        each_of = {dict: dict.values, list: iter}.get(type(value), lambda only: [only])
        assert all(0 <= each <= 1 for each in each_of(value))


def test_checkpoint_record(cli):
    record = cli(*COMMANDS["checkpoint"]).record
    named = {"run": "run", "data": "digits", "arch": "small-cnn", "method": "adr", "role": "best"}
    assert {**record, **named, "path": BEST, "seed": SEED} == record
    metrics = checkpoint.read_info(BEST)["metrics"]
    assert {**record, **metrics} == record
    assert (record["n"], record["epoch"] in (1, 2), record["seconds"] > 0) == (60, True, True)


def test_logits_record(cli):
    record = cli("attack", BEST, *PGD, "--eps", "0.1").record
    named = {"run": "run", "checkpoint": BEST, "data": "digits", "arch": "small-cnn",
             "method": "adr", "attack": "pgd", "norm": "linf", "eps": 0.1, "n": 40}  # fmt: skip
    assert {**record, **named} == record
    low, high = record["ci95"]
    assert 0 <= low <= record["robust_accuracy"] <= high <= 1
    assert record["accuracy_after"] == {"pgd": record["robust_accuracy"]}
    assert record["robust_accuracy"] <= record["clean_accuracy"]
    assert (record["robust_accuracy"] * 40).is_integer()
    assert record["seconds"] > 0


def test_unattacked_logits_have_no_robust_accuracy(cli):
    record = cli("attack", BEST, "--attack", "none", "--limit", "20").record
    assert record["clean_accuracy"] is not None
    assert record["robust_accuracy"] is record["ci95"] is None
    assert "eps" not in record


def test_analysis_record_without_output_has_no_path(cli):
    bare = cli(*CALIBRATION, "a.h5").record
    kept = cli(*CALIBRATION, "a.h5", "-o", "x.json").record
    assert (bare["path"], kept["path"]) == (None, "x.json")
    assert {**bare, "path": "x.json"} == kept
    assert json.loads(Path("x.json").read_text())["numbers"].items() <= kept.items()


def test_equal_content_has_equal_digests(cli, place):
    shutil.copytree("run", "elsewhere")
    first = cli("attack", BEST, *FGSM, "-o", "b.h5")
    second = cli("attack", "elsewhere/best.safetensors", *FGSM, "-o", "c.h5")
    assert first.record["digest"] == second.record["digest"]
    assert (place / "b.h5").read_bytes() == (place / "c.h5").read_bytes()


def test_other_content_has_other_digests(cli):
    digests = [
        cli("attack", BEST, *FGSM, *more, "-o", f"b{number}.h5").record["digest"]
        for number, more in enumerate([[], ["--eps", "0.05"], ["--seed", "1"]])
    ]
    assert len(set(digests)) == 3


def test_paths_outside_are_absolute(cli, tmp_path_factory):
    out = tmp_path_factory.mktemp("far") / "b.h5"
    assert cli("attack", BEST, *FGSM, "-o", out).record["path"] == str(out)


def test_outputs_go_beside_the_checkpoint(cli):
    record = cli("attack", Path(BEST).resolve(), *FGSM).record
    assert record["path"] == "run/best.fgsm-linf-0.15-n20.h5"


@pytest.mark.parametrize(("more", "suffix"), [([], ""), (["--name", "trial"], "-trial")])
def test_runs_have_telling_names(cli, more, suffix):
    words = ["train", "--method", "natural", *TINY, "--epochs", "1", "--seed", "3", *more]
    record = cli(*words).record
    assert record["path"] == f"runs/digits-small-cnn-natural-s3{suffix}/best.safetensors"


def test_what_libraries_print_goes_to_stderr(cli, monkeypatch):
    def noisy(path):
        print("hello from a library")
        return read(path)

    read = artifact.read_info
    monkeypatch.setattr(artifact, "read_info", noisy)
    outcome = cli("inspect", BEST)
    assert outcome.record["kind"] == "checkpoint"
    assert "hello from a library" in outcome.err


def test_emit_all_gives_every_checkpoint(cli):
    records = cli(*ADR, "-o", "run", "--emit", "all").records
    assert [each["role"] for each in records] == ["best", "final", "final-ema"]
    assert {each["augment"] for each in records} == {"crop-flip"}
    assert all(each["path"] == f"run/{each['role']}.safetensors" for each in records)
    assert len({each["digest"] for each in records}) == 3
    assert cli(*ADR, "-o", "run", "--emit", "final").record["role"] == "final"


def test_weight_average_is_the_checkpoint_of_a_wa_run(cli):
    words = ["train", "--method", "adr-wa", *TINY, "--epochs", "1", "-o", "wa"]
    assert cli(*words).record["path"] == "wa/best-ema.safetensors"
    roles = [each["role"] for each in cli(*words, "--emit", "all").records]
    assert roles == ["best", "best-ema", "final", "final-ema"]


def test_inputs_on_the_command_line_win_over_stdin(cli):
    record = cli("attack", BEST, *FGSM, stdin="none.safetensors\n").record
    assert record["checkpoint"] == BEST


@pytest.mark.parametrize(
    "stdin",
    [
        f"{BEST}\n",
        BEST,
        f"\n  {BEST}  \r\n\n",
        line(path=BEST),
        line(kind="checkpoint", path=BEST, colour="green", clean_accuracy="high"),
    ],
    ids=["path", "no newline", "blanks", "bare record", "unknown fields"],
)
@pytest.mark.parametrize("dash", [[], ["-"]])
def test_stdin_takes_paths_and_records(cli, stdin, dash):
    record = cli("attack", *dash, *FGSM, stdin=stdin).record
    assert (record["kind"], record["checkpoint"]) == ("logits", BEST)


@pytest.mark.parametrize(
    "name",
    ["a b.safetensors", "λ-模型-é.safetensors", "{odd.safetensors", "two\nlines.safetensors"],
)
def test_paths_of_any_spelling(cli, name):
    shutil.copy(BEST, name)
    for stdin in ([f"{name}\n"] if name.isprintable() and name[0] != "{" else []) + [
        line(path=name)
    ]:
        outcome = cli("attack", *FGSM, "--overwrite", stdin=stdin)
        assert outcome.record["checkpoint"] == name
        assert cli("inspect", stdin=outcome.out).record["path"] == outcome.record["path"]


def test_several_inputs_give_a_record_each_in_order(cli):
    names = ["final.safetensors", "best.safetensors", "final-ema.safetensors"]
    stdin = f"run/{names[1]}\n{line(path=f'run/{names[2]}')}"
    records = cli("attack", f"run/{names[0]}", "-", *FGSM, stdin=stdin).records
    assert [each["checkpoint"] for each in records] == [f"run/{name}" for name in names]
    assert len({each["path"] for each in records}) == 3


def test_a_record_comes_before_the_next_input_is_read(capfd, monkeypatch):
    def lines():
        yield f"{BEST}\n".encode()
        seen.append(json.loads(capfd.readouterr().out)["path"])
        yield b"run/final.safetensors\n"

    seen: list[str] = []
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=lines(), isatty=lambda: False))
    assert main(["inspect"]) == 0
    assert seen == [BEST]
    assert json.loads(capfd.readouterr().out)["path"] == "run/final.safetensors"


@pytest.fixture
def broken(place):
    """Files that fail with their own code: missing (3), weights that are NaN (5)."""
    tensors, info = checkpoint.read(BEST)
    tensors[max(tensors)].fill_(float("nan"))
    checkpoint.write(place / "nan.safetensors", tensors, info)
    return {"none.safetensors": 3, "nan.safetensors": 5}


@pytest.mark.parametrize(
    "names", [["none.safetensors", "nan.safetensors"], ["nan.safetensors", "none.safetensors"]]
)
@pytest.mark.parametrize("by", ["arguments", "stdin"])
def test_a_failing_input_does_not_stop_the_rest(cli, broken, names, by):
    paths = [names[0], BEST, names[1], "run/final.safetensors"]
    given = paths if by == "arguments" else []
    outcome = cli("attack", *given, *FGSM, "-q", stdin="".join(f"{path}\n" for path in paths))
    assert outcome.code == broken[names[0]]
    assert [each["checkpoint"] for each in outcome.records] == paths[1::2]
    assert all(name in text for name, text in zip(names, outcome.err.splitlines(), strict=True))


@pytest.mark.parametrize(
    "bad", [line(kind="logits", path="a.h5"), "{broken\n", line(kind="analysis", path=None)]
)
def test_a_line_of_no_use_does_not_stop_the_rest(cli, bad):
    outcome = cli("attack", *FGSM, "-q", stdin=f"{bad}{BEST}\n")
    assert outcome.code == 3
    assert [each["checkpoint"] for each in outcome.records] == [BEST]
    assert len(outcome.err.splitlines()) == 1


def test_empty_stdin_does_not_stop_the_named_files(cli):
    outcome = cli("attack", "-", BEST, *FGSM, "-q", stdin="")
    assert (outcome.code, len(outcome.records)) == (3, 1)


def test_a_comparison_gives_one_record_for_all_inputs(cli):
    cli("attack", BEST, *FGSM, "-o", "b.h5")
    record = cli("analyze", "table", stdin=f"a.h5\n{line(kind='logits', path='b.h5')}").record
    assert (record["files"], len(record["rows"])) == (2, 2)


def test_an_analysis_of_several_gives_a_record_each(cli):
    cli("attack", BEST, *FGSM, "-o", "b.h5")
    records = cli("analyze", "entropy", "a.h5", "b.h5").records
    assert [each["input"] for each in records] == ["a.h5", "b.h5"]


def test_stages_understand_each_other(cli):
    trained = cli(*ADR, "-o", "run")
    attacked = cli("attack", *FGSM, stdin=trained.out)
    analyzed = cli(*CALIBRATION, "-o", "x.json", stdin=attacked.out)
    assert attacked.record["checkpoint"] == trained.record["path"]
    assert analyzed.record["input"] == attacked.record["path"]
    assert cli("inspect", stdin=analyzed.out).record["digest"] == analyzed.record["digest"]


def test_provenance_links_by_digest(cli):
    trained = cli(*ADR, "-o", "run").record
    attacked = cli("attack", BEST, *FGSM, "-o", "b.h5").record
    analyzed = cli(*CALIBRATION, "b.h5", "-o", "x.json").record
    parents = {path: artifact.read_info(Path(path))["parents"] for path in (BEST, "b.h5", "x.json")}
    assert parents["x.json"][0]["digest"] == attacked["digest"]
    assert parents["b.h5"][0]["digest"] == trained["digest"]
    assert parents["b.h5"][0]["parents"] == parents[BEST]
    assert parents["x.json"][0]["parents"] == parents["b.h5"]
    assert analyzed["digest"] not in (attacked["digest"], trained["digest"])


def test_inspect_shows_the_chain(cli):
    record = cli("inspect", "a.h5").record
    assert record["whole"] is True
    assert record["bytes"] == Path("a.h5").stat().st_size
    shown = [(len(text) - len(text.lstrip()), text.split()) for text in record["chain"]]
    kinds = [(indent, " ".join(words[:-1])) for indent, words in shown]
    expected = [(0, "logits"), (2, "checkpoint adr best"), (4, "data digits train")]
    assert kinds == [*expected, (2, "data digits test")]
    digests = [words[-1] for _, words in shown]
    assert record["digest"].startswith(digests[0])
    assert cli("inspect", BEST).record["digest"].startswith(digests[1])
    assert len(set(digests)) == 4


@pytest.mark.parametrize("name", ["x.json", "x.h5"])
def test_inspect_knows_an_analysis(cli, name):
    record = cli(*CALIBRATION, "a.h5", "-o", name).record
    inspected = cli("inspect", name).record
    assert (inspected["kind"], inspected["digest"]) == ("analysis", record["digest"])
    assert len(inspected["chain"]) == 5


def test_the_suffix_decides_the_format_in_any_case(cli):
    for name in ("x.json", "X.JSON", "x.csv", "X.CSV"):
        assert cli(*CALIBRATION, "a.h5", "-o", name).code == 0
    assert Path("X.JSON").read_bytes() == Path("x.json").read_bytes()
    assert Path("X.CSV").read_bytes() == Path("x.csv").read_bytes()


def test_a_record_of_a_file_that_was_made_anew_is_refused(cli):
    """What a pipe hands on is the file that was there when its record was printed."""
    for kind, name, next_one in (
        ("checkpoint", BEST, ["attack", *FGSM]),
        ("logits", "a.h5", CALIBRATION),
    ):
        digest = cli("inspect", name).record["digest"]
        whole = line(kind=kind, path=name, digest=digest)
        assert cli(*next_one, stdin=whole).code == 0
        outcome = cli(*next_one, stdin=line(kind=kind, path=name, digest="sha256:00"))
        assert (outcome.code, outcome.out) == (4, "")
        (only,) = outcome.err.splitlines()
        assert f"{name} is not the file that its record was printed for (sha256:00; it is" in only
        gone = cli(*next_one, stdin=line(kind=kind, path="gone", digest=digest))
        assert (gone.code, len(gone.err.splitlines())) == (3, 1)


def test_missing_folders_of_an_output_are_made(cli):
    assert cli("attack", BEST, *FGSM, "-o", "new/folder/b.h5").code == 0
    assert cli("analyze", "table", "a.h5", "-o", "newer/folder/x.json").code == 0


def test_inspect_finds_a_changed_analysis(cli):
    cli(*CALIBRATION, "a.h5", "-o", "x.json")
    content = json.loads(Path("x.json").read_text())
    content["numbers"]["clean_ece"] = 0.0
    Path("x.json").write_text(json.dumps(content))
    outcome = cli("inspect", "x.json")
    assert (outcome.code, outcome.out) == (3, "")
    assert "x.json" in outcome.err


def test_artifacts_hold_no_place_and_no_time(cli, place):
    for name in (BEST, "a.h5"):
        text = json.dumps(cli("inspect", name).record["description"])
        assert str(place) not in text
        assert "seconds" not in text


def documented() -> dict[str, str]:
    """Return field → the kinds of record that docs/stages.md says it is of, as words."""
    page = (Path(__file__).parents[2] / "docs" / "stages.md").read_text(encoding="utf-8")
    table = page[page.index("| field | of |") : page.index("Accuracies and intervals")]
    found: dict[str, str] = {}
    for fields, of in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", table, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", fields):
            found[name] = f"{found.get(name, '')} {of}"
    return found


def test_every_field_of_a_record_is_documented(cli):
    """As docs/stages.md has them, of the kinds that it says."""
    known = documented()
    assert "robust_accuracy" in known
    net = cli("export", BEST, "--to", "state-dict", "-o", "out").record
    brought = ["import", "out/state_dict.pt", "--arch", "small-cnn", "--width", "8"]
    calls = [
        [*ADR, "--emit", "all", "-o", "run"],
        ["train", "--method", "adr-wa", *TINY, "-o", "wa", "--select", "margin"],
        ["pretrain-teacher", *TINY, "-o", "natural"],
        [*brought, "--data", "digits", "-o", "brought.safetensors"],
        ["softlabels", BEST, "-o", "labels.h5"],
        ["attack", BEST, *FGSM],
        ["attack", BEST, "--attack", "none", "--limit", "20"],
        ["attack", BEST, "--fast", "--limit", "20", "--shard", "1/2"],
    ]
    records = [net]
    for call in calls:
        done = cli(*call, "-q")
        assert done.code == 0, done.err
        records += done.records
    assert {record["kind"] for record in records} == {"checkpoint", "labels", "logits", "export"}
    for record in records:
        own = {"to", "folder", "arch", "method", "data"} if record["kind"] == "export" else set()
        for name in record.keys() - own:
            assert re.search(rf"\b(all|{record['kind']})\b", known.get(name, "")), (record, name)

"""Sessions at a terminal of 80 columns and without one, recorded as text.

The nets are `tests.planted`'s, whose verdicts are known in closed form, so that the text is the
same on every machine; times are masked.
"""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from scipy.stats import binomtest

from advkit import registry
from advkit.artifacts.descriptions import ALARMS
from advkit.cli.common import lines, plain
from tests import planted
from tests.cli._screen import at_a_terminal

RUNS = "runs/at-s0/best.safetensors\nruns/at-s1/best.safetensors\n"
FGSM = ["attack", "--attack", "fgsm", "--overwrite"]
LOGITS = "runs/at-s0/best.fgsm-linf-0.0625.h5"
RESULT = "robust 61.7 % [49.0, 72.9]  clean 80.0 %  n 60  fgsm linf 0.0625 loss scaled-ce"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two runs of the planted net, and logits of the first one under FGSM."""
    place = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        best = planted.plant(place)
        for name in ("at-s0", "at-s1"):
            shutil.copytree(best.parent, place / "runs" / name)
        words = ["--data", f"npz:{place}", RUNS.split()[0]]
        assert at_a_terminal(patch, *FGSM, *words).code == 0
    return place


@pytest.fixture
def screen(folder, monkeypatch):
    """Run a command there at a terminal: `screen(..., stdin=..., NO_COLOR="1")` -> Shown."""
    monkeypatch.chdir(folder)
    return lambda *words, **more: at_a_terminal(monkeypatch, *words, **more)


def of_data(folder: Path) -> list[str]:
    return [*FGSM, "--data", f"npz:{folder}"]


def test_the_planted_figures_are_those_of_the_text():
    """Shares by counting, and Wilson's interval by scipy."""
    clean, standing = planted.verdicts(*planted.levels())
    n, k = planted.COUNT, int(standing.sum())
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    assert RESULT.startswith(
        f"robust {100 * k / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]  "
        f"clean {100 * clean.mean():.1f} %  n {n}  "
    )


def test_several_checkpoints_at_a_terminal_are_a_line_each_with_its_run(screen, folder):
    shown = screen(*of_data(folder), stdin=RUNS)
    assert shown.code == 0
    assert shown.out == f"at-s0  {RESULT}\nat-s1  {RESULT}\n"
    assert shown.said == ["fgsm ━━━━━━━━ 60/60 robust 37/60 TIME"] * 2


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_without_colours_gets_the_same_lines_and_no_codes(screen, folder, environment):
    shown = screen(*of_data(folder), stdin=RUNS, **environment)
    assert shown.out == f"at-s0  {RESULT}\nat-s1  {RESULT}\n"
    assert shown.said == ["advkit attack: fgsm 60/60, robust 37/60, TIME"] * 2
    assert "\x1b" not in shown.out + shown.err
    assert "\r" not in shown.out + shown.err


def test_without_a_terminal_a_record_is_its_json(folder, cli, monkeypatch):
    monkeypatch.chdir(folder)
    outcome = cli(*of_data(folder), stdin=RUNS)
    assert [json.dumps(record) for record in outcome.records] == outcome.out.splitlines()
    assert list(outcome.records[0]) == [
        "kind",
        "path",
        "digest",
        "run",
        "checkpoint",
        "data",
        "arch",
        "method",
        "role",
        "seed",
        "attack_seed",
        "attack",
        "n",
        "clean_accuracy",
        "clean_ci95",
        "robust_accuracy",
        "ci95",
        "norm",
        "eps",
        "eps_text",
        "loss",
        "accuracy_after",
        "zero_gradient",
        "seconds",
    ]
    assert [record["run"] for record in outcome.records] == ["at-s0", "at-s1"]
    assert outcome.err.count("advkit attack: fgsm 60/60, robust 37/60, 0:0") == 2
    assert cli("inspect", LOGITS, "-v").out == cli("inspect", LOGITS).out


def test_a_terminal_gets_the_json_on_request(screen):
    shown = screen("inspect", LOGITS, "--json")
    assert json.loads(shown.out)["kind"] == "logits"
    assert len(shown.lines) == 1


def test_verbose_gives_every_field_of_a_record(screen, folder):
    shown = screen("attack", "--attack", "none", "--data", f"npz:{folder}", RUNS.split()[0], "-v")
    fields = {line.split()[0]: line.split()[-1] for line in shown.lines if line[0] != " "}
    assert fields["kind"] == "logits"
    assert fields["run"] == "at-s0"
    assert fields["clean_accuracy"] == "0.8000"
    assert max(map(len, shown.lines)) <= 80


SESSIONS = {
    "attack runs/at-s0/best.safetensors --attack none --data npz:. --overwrite": [
        "at-s0  clean 80.0 %  n 60  no attack",
    ],
    "softlabels runs/at-s1/best.safetensors --data npz:.": [
        "at-s1  teacher 80.0 %  views 1  → runs/at-s1/best.labels-views-1.h5",
    ],
    "inspect runs/at-s0/best.safetensors -q": [
        "runs/at-s0/best.safetensors  checkpoint  whole  BYTES  DIGEST  from data npz train",
    ],
    "data info npz:.": [
        "npz  train  n 60  1x8x8  classes 3",
        "npz  test  n 60  1x8x8  classes 3",
    ],
    f"inspect {LOGITS}": [
        f"{LOGITS}  logits  whole  BYTES  DIGEST  from checkpoint at best, data npz train, "
        "data npz test",
    ],
    "export runs/at-s1/best.safetensors --to state-dict": [
        "runs/at-s1/best.state-dict/state_dict.pt  state-dict  at  small-cnn  npz",
    ],
    f"analyze divergence {LOGITS} -q -o divergence.csv": [
        "divergence  at-s# fgsm-linf-#  divergence # [#, #]  changed # % [#, #]  n #  "
        "→ divergence.csv",
    ],
    f"analyze table {LOGITS} -q": ["table  files 1"],
    f"analyze classes {LOGITS} -q": [
        "classes  at-s# fgsm-linf-#  worst robust # % [#, #]  class #  robust # %  clean # %  n #",
    ],
}


@pytest.mark.parametrize("line", SESSIONS)
def test_each_kind_of_record_has_its_line(screen, line):
    shown = screen(*line.split())
    assert shown.code == 0
    assert [masked(text) for text in shown.lines] == SESSIONS[line]


def masked(text: str) -> str:
    """Put words in the place of figures that no hand can work out."""
    if text.startswith(("divergence", "classes")):
        return re.sub(r"\d+(\.\d+)?(e-\d+)?", "#", text)
    return re.sub(r"[\d,]+ bytes", "BYTES", re.sub(r"sha256:\w+", "DIGEST", text))


def test_every_analysis_has_a_line_of_its_own():
    theirs = {part.name for part in registry.parts("analyses").values() if not part.foreign}
    assert set(lines.ANALYSES) == theirs | {"bench", "search adr", "search temperature"}


def test_every_alarm_of_training_has_words():
    assert tuple(lines.RUNG) == ALARMS


def test_a_terminal_of_ascii_gets_plain_signs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    words = ["analyze", "calibration", LOGITS, "-o", "é.json", "--overwrite"]
    shown = at_a_terminal(monkeypatch, *words, encoding="ascii")
    assert shown.code == 0
    assert shown.lines[0].endswith("  -> \\xe9.json")
    assert "\\u" not in shown.out + shown.err
    again = at_a_terminal(monkeypatch, *FGSM, "runs/at-s0/best.safetensors", encoding="ascii")
    assert again.code == 0
    assert again.said[-1].isascii()
    assert "\\u" not in again.out + again.err


def test_an_analysis_of_somebody_else_shows_its_first_numbers():
    numbers = {"n": 9, "good": True, "one_two": 0.123456, "b": 2, "c": None, "d": 3000, "e": 1}
    record = {"kind": "analysis", "path": None, "digest": "", "analysis": "mine", **numbers}
    assert lines.line(record) == "mine  one two 0.1235  b 2  d 3,000  n 9"


CHECKPOINT = {
    "kind": "checkpoint",
    "run": "adr-s0",
    "path": "runs/adr-s0/best.safetensors",
    "digest": "",
    "n": 60,
    "epoch": 12,
    "clean_accuracy": 0.9949,
    "robust_accuracy": 0.635,
}


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (CHECKPOINT, "adr-s0  robust 63.5 %  clean 99.5 %  n 60  validation, epoch 12"),
        (
            {**CHECKPOINT, "path": "runs/adr-s0/final-ema.safetensors", "masking_alarm": True},
            "adr-s0/final-ema  robust 63.5 %  clean 99.5 %  n 60  validation, epoch 12  "
            "looks like gradient masking",
        ),
        (
            {**CHECKPOINT, "teacher_alarm": True, "labels_alarm": True, "margin_alarm": True},
            "adr-s0  robust 63.5 %  clean 99.5 %  n 60  validation, epoch 12  "
            "its teacher is worse, its labels are nearly uniform, falls to the margin",
        ),
        (
            {**CHECKPOINT, "gradient_alarm": True, "overfitting_alarm": True},
            "adr-s0  robust 63.5 %  clean 99.5 %  n 60  validation, epoch 12  "
            "overfitted catastrophically, trained in part without gradient",
        ),
        (
            {**CHECKPOINT, "robust_accuracy": None, "imported": True, "run": "zoo"},
            "zoo  clean 99.5 %  n 60  test images, imported",
        ),
        (
            {**CHECKPOINT, "trial": 3, "tau": "2:1", "lambda": "0.5", "ema_decay": 0.99},
            "adr-s0  trial 3  τ 2:1  λ 0.5  γ 0.99  robust 63.5 %  clean 99.5 %  n 60  "
            "validation, epoch 12",
        ),
        (
            {
                "kind": "logits",
                "path": "a.shard-1-of-3.h5",
                "run": "x",
                "checkpoint": None,
                "attack": "none",
                "clean_accuracy": None,
                "data": "svhn",
                "n": 5,
                "shard": [1, 3],
            },
            "x/a.shard-1-of-3  no labels  svhn  n 5  no attack  shard 1/3",
        ),
        (
            {
                "kind": "part",
                "path": "labels/a.py",
                "shelf": "labels",
                "name": "a",
                "passed": False,
                "checks": 2,
                "failures": [{"check": "rows", "problem": "do not sum to 1"}],
            },
            "labels/a  fails rows: do not sum to 1",
        ),
        (
            {
                "kind": "part",
                "path": "labels/a.py",
                "shelf": "labels",
                "name": "a",
                "passed": True,
                "checks": 2,
                "failures": [],
            },
            "labels/a  passes all 2 checks",
        ),
        (
            {
                "kind": "analysis",
                "path": None,
                "analysis": "compare",
                "n": 9,
                "robust_p": 0.25,
                "robust_difference": -0.0125,
                "robust_difference_low": -0.03,
                "robust_difference_high": 0.01,
                "files": 2,
            },
            "compare  robust -1.2 points [-3.0, +1.0]  p 0.25  files 2  n 9",
        ),
        (
            {
                "kind": "analysis",
                "path": None,
                "analysis": "masking",
                "input": "r/a/best.x",
                "masked": True,
                "failed": "square",
                "not_judged": "transfer",
            },
            "masking  a  masked: square  not judged: transfer",
        ),
        (
            {
                "kind": "data",
                "path": None,
                "digest": "",
                "data": "cifar10",
                "split": "test",
                "n": 9,
                "shape": [3, 32, 32],
                "classes": 10,
                "missing": ["cat", "dog", "frog", "horse", "truck"],
            },
            "cifar10  test  n 9  3x32x32  classes 10  no image of cat, dog, frog and 2 more",
        ),
        ({"kind": "export", "path": "two\nlines", "to": "hf"}, "two\\nlines  hf"),
    ],
)
def test_a_record_as_a_line(record, text):
    assert lines.line(record) == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_printed_configuration_names_the_same_folder_in_every_encoding(encoding):
    """Plain signs are for eyes: `--config` reads this back, and τ is no folder tau."""
    text = 'data = "folder:/é/τ–😀"  # flag: ε\n'
    printed = plain.escaped(text, encoding).encode(encoding, plain.NAME).decode(encoding)
    assert tomllib.loads(printed) == {"data": "folder:/é/τ–😀"}

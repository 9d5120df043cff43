"""Help and completion are instant, and they name everything there is."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from advkit import registry
from advkit.cli import app, listing
from advkit.cli.app import commands, groups
from advkit.cli.common.given import plain
from tests.conftest import ROOT

PROBE = """
import contextlib, io, json, os, sys
from advkit.__main__ import main
heavy = {"torch", "torchvision", "numpy", "h5py", "sklearn", "matplotlib", "safetensors"}
asked = json.load(sys.stdin)
sys.stdin = io.TextIOWrapper(io.BytesIO(b""))
answers = []
for words, env in asked:
    before = heavy & sys.modules.keys()
    os.environ.update(env)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    for name in env:
        del os.environ[name]
    loaded = sorted(heavy & sys.modules.keys() - before)
    answers.append([code or 0, loaded, out.getvalue()])
print(json.dumps(answers))
"""
EVERY = [((command.name,), command) for command in commands()]
EVERY += [((group, each.name), each) for group, (_, found) in groups().items() for each in found]
STAGE = {
    "data": "train", "models": "train", "augment": "train", "labels": "train",
    "objectives": "train", "attacks": "attack", "analyses": "analyze",
}  # fmt: skip


HELPS = ("--help", "train --help", "attack --help", "analyze --help", "analyze calibration --help")
QUICK = {
    "attack --autoattack": 3,
    "train --method adrr --data digits": 2,
    "train --data digits --eps 8": 2,
    "train --data cifar10 --print-config": 0,
    "presets": 0,
    "--version": 0,
}
COMPLETED = {
    "advkit tr": "train",
    "advkit train --method trades-a": "trades-adr",
    "advkit attack --attack pg": "pgd",
    "advkit analyze cal": "calibration",
}


@pytest.fixture(scope="module")
def probed():
    """Line → (exit code, heavy modules that it loaded, stdout), one fresh process for all.

    A heavy module counts for the first line that loads it.
    """
    asked = [(line.split(), {}) for line in (*HELPS, *QUICK)]
    asked += [([], completed(line)) for line in COMPLETED]
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env={"COLUMNS": "400", "PYTHONPATH": str(ROOT)},
        input=json.dumps(asked), capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = (*HELPS, *QUICK, *COMPLETED)
    return dict(zip(lines, json.loads(done.stdout.splitlines()[-1]), strict=True))


def completed(line: str) -> dict[str, str]:
    words = line.split(" ")
    return {
        "_ADVKIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip


@pytest.fixture
def help_text(cli, monkeypatch):
    """Give the help of a command in one line, without frames."""
    monkeypatch.setenv("COLUMNS", "400")

    def text(*words: str) -> str:
        outcome = cli(*words, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        return " ".join(re.sub(r"[│─╭╮╰╯]", " ", outcome.out).split())

    return text


def test_the_probe_sees_what_is_loaded():
    code = PROBE.replace("main(words)", "len(__import__(words[0]).__name__)")
    asked = [(["json"], {}), (["h5py"], {}), (["json"], {})]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(asked), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = json.loads(done.stdout)
    assert answers == [[4, [], ""], [4, ["h5py", "numpy"], ""], [4, [], ""]]


@pytest.mark.parametrize("line", HELPS)
def test_help_loads_nothing_heavy(probed, line):
    code, loaded, out = probed[line]
    assert (code, loaded) == (0, [])
    assert "Usage: advkit" in out


@pytest.mark.parametrize("line", COMPLETED)
def test_completion_loads_nothing_heavy(probed, line):
    code, loaded, out = probed[line]
    assert (code, loaded) == (0, [])
    assert COMPLETED[line] in out.split()


@pytest.mark.parametrize("line", QUICK)
def test_quick_answers_load_nothing_heavy(probed, line):
    assert probed[line][:2] == [QUICK[line], []]


@pytest.mark.parametrize(("words", "command"), EVERY, ids=[" ".join(words) for words, _ in EVERY])
def test_the_help_of_every_command(help_text, words, command):
    """What it does, an example, and all of its options."""
    text = help_text(*words)
    assert " ".join(command.help.split()) in text
    assert f"Example: {command.example}" in text
    assert {option.flag for option in command.every} <= set(text.split())


def test_every_option_has_help_and_examples_use_options_that_exist():
    wrong = []
    for words, command in EVERY:
        name = " ".join(words)
        wrong += [f"{name} {option.flag}: no help" for option in command.every if not option.help]
        if not command.example.startswith(f"advkit {name}"):
            wrong.append(f"{name}: {command.example}")
        first = command.example.partition("|")[0]
        used = {word for word in shlex.split(first) if word.startswith("--")}
        wrong += [f"{name}: no {flag}" for flag in used - {each.flag for each in command.every}]
    assert wrong == []


@pytest.mark.parametrize("folder", registry.CONTRACTS)
def test_every_part_is_in_the_help_of_its_stage(help_text, folder):
    text = help_text(STAGE[folder])
    for part in registry.parts(folder).values():
        described = re.escape(" ".join(part.help.split()))
        assert re.search(rf"\b{re.escape(part.name)}:? {described}", text), part.name


def test_every_data_set_is_listed(cli):
    lines = cli("data", "list").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(registry.parts("data"))


def test_top_help_names_every_command(help_text):
    text = help_text()
    for name in [*listing.COMMANDS, *listing.GROUPS]:
        assert f" {name} " in text


ALONE = """
import contextlib, io, json, sys
from advkit.__main__ import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


def modules(*words: str) -> set[str]:
    """Return what a fresh process that runs a command line has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *words], env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, names = json.loads(done.stdout)
    assert code == 0, done.stderr
    return set(names)


@pytest.mark.parametrize("line", ["--help", "train --help", "data list"])
def test_a_command_alone_is_imported_and_nothing_that_draws(line):
    loaded = modules(*line.split())
    asked = {word for word in line.split() if word.isalpha()}
    listed = {**listing.COMMANDS, **listing.GROUPS}
    others = {one.module for name, one in listed.items() if name not in asked}
    assert not loaded & others
    assert not {name.partition(".")[0] for name in loaded} & {"rich", "pydantic"}


@pytest.mark.parametrize("line", ["", "train", "analyze calibration", "search temperature"])
@pytest.mark.parametrize("columns", [40, 80])
def test_help_fits_the_terminal(cli, monkeypatch, line, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    longest = max(cli(*line.split(), "--help").out.splitlines(), key=len)
    assert len(longest) <= columns or " " not in longest.strip(), longest


def test_what_is_listed_is_what_there_is():
    """The top help imports no command: what it says of them must be theirs."""
    for name, listed in listing.COMMANDS.items():
        command = app.command(name)
        assert (command.name, command.help) == (name, listed.help)
    assert {name: text for name, (text, _) in groups().items()} == {
        name: listed.help for name, listed in listing.GROUPS.items()
    }


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "12", 12), (int, "-3", -3), (int, "0", 0), (float, "0.25", 0.25), (float, "-7", -7.0),
        (str, "012", "012"), (str, ["a", "b"], ["a", "b"]), (bool, False, False),
        *((int, text, None) for text in ("012", " 1", "1_0", "1.0", "٣", "+1", "1" * 11, "-", "")),
        *((float, text, None) for text in ("1e3", "nan", ".5", "1.", "0x1", "1,5", "٣", "1" * 11)),
        (bool, "true", None), (object, "x", None), (object, None, None),
    ],
)  # fmt: skip
def test_only_what_any_reader_reads_alike_is_read_here(kind, text, value):
    assert plain(kind, text) == value
    if kind in (int, float) and value is not None:
        assert type(plain(kind, text)) is kind


HEAVY = {"scipy", "sklearn", "matplotlib", "torchvision", "PIL", "rich", "pydantic", "joblib"}


@pytest.fixture(scope="module")
def small(tmp_path_factory, tiny_run):
    """A logits file of a small net on digits."""
    out = tmp_path_factory.mktemp("small") / "logits.h5"
    line = ["attack", str(tiny_run / "best.safetensors"), "--attack", "none", "--limit", "20"]
    return [*line, "-o", str(out)], out


def test_a_small_attack_imports_torch_and_the_files_library_alone(small):
    line, out = small
    loaded = {name.partition(".")[0] for name in modules(*line)}
    assert {"torch", "h5py"} <= loaded
    assert not loaded & HEAVY
    assert out.exists()


def test_a_small_analysis_imports_neither_scipy_nor_what_draws(small):
    line, out = small
    if not out.exists():
        modules(*line)
    loaded = {name.partition(".")[0] for name in modules("analyze", "calibration", str(out))}
    assert "torch" in loaded
    assert not loaded & (HEAVY - {"PIL"})

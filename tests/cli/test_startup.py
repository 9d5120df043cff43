"""Help and completion are instant, and they name everything there is."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from advkit import registry
from advkit.cli.app import COMMANDS, GROUPS
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
EVERY = [((command.name,), command) for command in COMMANDS]
EVERY += [((group, each.name), each) for group, (_, found) in GROUPS.items() for each in found]
STAGE = {
    "data": "train", "augment": "train", "models": "train", "labels": "train",
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
    for name in [*(command.name for command in COMMANDS), *GROUPS]:
        assert f" {name} " in text

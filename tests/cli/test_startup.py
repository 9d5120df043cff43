"""Help and completion are instant, and they name everything there is."""

import re
import shlex
import subprocess
import sys

import pytest

from advkit import registry
from advkit.cli.app import COMMANDS, GROUPS

PROBE = """
import sys
from advkit.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = {"torch", "torchvision", "numpy", "h5py", "sklearn", "matplotlib", "safetensors"}
print("\\n", code or 0, *sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
EVERY = [((command.name,), command) for command in COMMANDS]
EVERY += [((group, each.name), each) for group, (_, found) in GROUPS.items() for each in found]
ONE_EACH = pytest.mark.parametrize(
    ("words", "command"), EVERY, ids=[" ".join(words) for words, _ in EVERY]
)
STAGE = {
    "data": "train", "models": "train", "labels": "train", "objectives": "train",
    "attacks": "attack", "analyses": "analyze",
}  # fmt: skip


def probe(*arguments: str, **env: str) -> tuple[str, list[str]]:
    """Run the command line in a fresh process: (stdout, [exit code, heavy modules...])."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        env={"COLUMNS": "400", **env}, input="", capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr.splitlines()[-1].split()


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


@pytest.mark.parametrize("stage", ["", "train", "attack", "analyze", "analyze calibration"])
def test_help_loads_nothing_heavy(stage):
    out, seen = probe(*stage.split(), "--help")
    assert seen == ["0"]
    assert "Usage: advkit" in out


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("advkit tr", "train"),
        ("advkit train --method trades-a", "trades-adr"),
        ("advkit attack --attack pg", "pgd"),
        ("advkit analyze cal", "calibration"),
    ],
)
def test_completion_loads_nothing_heavy(line, word):
    out, seen = probe(**completed(line))
    assert seen == ["0"]
    assert word in out.split()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("attack --autoattack", "3"),
        ("train --method adrr --data digits", "2"),
        ("train --data digits --eps 8", "2"),
        ("train --data cifar10 --print-config", "0"),
        ("presets", "0"),
        ("--version", "0"),
    ],
)
def test_quick_answers_load_nothing_heavy(line, code):
    assert probe(*line.split())[1] == [code]


@ONE_EACH
def test_every_command_says_what_it_does(help_text, words, command):
    assert " ".join(command.help.split()) in help_text(*words)
    assert all(option.help for option in command.every)


@ONE_EACH
def test_every_command_has_an_example(help_text, words, command):
    assert command.example.startswith(f"advkit {' '.join(words)}")
    assert f"Example: {command.example}" in help_text(*words)


@ONE_EACH
def test_examples_use_options_that_exist(words, command):
    first = command.example.partition("|")[0]
    used = {word for word in shlex.split(first) if word.startswith("--")}
    assert used <= {option.flag for option in command.every}


@ONE_EACH
def test_every_option_is_in_the_help(help_text, words, command):
    shown = set(help_text(*words).split())
    assert {option.flag for option in command.every} <= shown


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

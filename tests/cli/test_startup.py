"""Help and completion are instant, and they name everything there is."""

import json
import platform
import re
import shlex
import subprocess
import sys

import pytest

import advkit
from advkit import registry
from advkit.cli import app, listing
from advkit.cli.app import commands, groups
from advkit.cli.common import shorter
from advkit.cli.common.given import plain
from advkit.cli.common.markers import marked
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
        command = dict(EVERY).get(words)
        full = command is not None and shorter.is_long(command.every)
        outcome = cli(*words, "--help-all" if full else "--help")
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


LONG = {"train", "pretrain-teacher", "bench", "search temperature", "search adr"}


def test_a_long_help_is_short_first_and_says_where_the_rest_is(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert {" ".join(words) for words, command in EVERY if shorter.is_long(command.every)} == LONG
    for line in sorted(LONG):
        command = dict(EVERY)[tuple(line.split())]
        short, full = (cli(*line.split(), flag).out for flag in ("--help", "--help-all"))
        shown, every = (set(re.findall(r"--[\w-]+", text)) for text in (short, full))
        left = {
            option.flag
            for option in command.every
            if option.name in shorter.left_out(command, command.every)
        }
        assert f"{len(left)} more options: advkit {line} --help-all\n" in short
        assert not left & shown
        assert {option.flag for option in command.every} <= every
        assert len(short.splitlines()) < 120
        assert max(map(len, [*short.splitlines(), *full.splitlines()])) <= 80


def test_the_short_help_names_what_most_people_give(cli):
    text = cli("train", "--help").out
    assert {f"--{name.replace('_', '-')}" for name in shorter.MAIN} <= set(
        re.findall(r"--[\w-]+", text)
    )
    for folder in ("objectives", "labels", "augment", "models", "data"):
        assert {*registry.parts(folder)} <= set(re.findall(r"[\w-]+", text))


@pytest.mark.parametrize(
    ("part", "marker"),
    [
        (("objectives", "trades"), ""),
        (("objectives", "iad"), " [needs --teacher]"),
        (("objectives", "hat"), " [needs --natural-teacher]"),
        (("objectives", "kd"), " [needs --teacher and --natural-teacher]"),
        (("labels", "soft"), " [needs --soft-labels or --teacher]"),
        (("labels", "adr"), ""),
        (("augment", "crop-flip"), " [--soft-labels of stored views too]"),
        (("augment", "cutout"), " [--soft-labels of --views 1 alone]"),
        (("attacks", "transfer"), " [needs --surrogate]"),
    ],
)
def test_a_part_is_marked_with_what_it_needs_or_suits(part, marker):
    one = registry.part(*part)
    assert marked(one) == one.help + marker


def test_an_argument_stands_in_the_help_as_its_command_calls_it(cli):
    assert cli("attack", "--help").out.startswith(
        "Usage: advkit attack [OPTIONS] [CHECKPOINT]...\n"
    )
    assert "\n  NAME[:PATH]" in cli("data", "info", "--help").out


def test_an_example_that_is_folded_is_still_one_command(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = cli("attack", "--help").out.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("Example: "))
    end = lines.index("", first)
    joined = " ".join(line.strip() for line in lines[first:end])
    assert " ".join(joined.replace("\\", "").split()) == f"Example: {app.command('attack').example}"
    assert all(line.endswith(" \\") for line in lines[first : end - 1])


def test_the_version_is_a_line_and_what_figures_depend_on_behind_it(cli):
    import torch

    assert cli("--version").out == f"advkit {advkit.__version__}\n"
    for words in (("--version", "-v"), ("-v", "--version")):
        outcome = cli(*words)
        lines = outcome.out.splitlines()
        assert (outcome.code, lines[0]) == (0, f"advkit {advkit.__version__}")
        assert lines[1].startswith(f"torch {torch.__version__} (")
        assert re.fullmatch(r"device (cpu|cuda \(.*\)), \d+ threads?", lines[3])
        assert lines[4].startswith(f"python {platform.python_version()}, ")
    assert cli("-v", "train").code == 2


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
        described = re.escape(" ".join(marked(part).split()))
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
    # A word may be longer; in an example the backslash of a folded command stands behind it.
    assert len(longest) <= columns or " " not in longest.strip().removesuffix(" \\"), longest


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

"""Row 48: names in any bytes. Row 49: nothing of a file's text reaches a terminal raw."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import pytest

from advkit.artifacts import checkpoint
from advkit.cli.common import failures
from advkit.errors import InputError, StorageError
from tests.conftest import TINY
from tests.faults._runs import refused
from tests.faults.test_readers import imagenet, photos

LATIN = os.fsdecode(b"caf\xe9")
NET = ["--arch", "small-cnn", "--width", "4", "--batch-size", "4", "--epochs", "1", "-q"]
TRAIN = ["train", "--method", "at", "--attack-steps", "1", *NET]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_row_48_a_class_folder_that_is_not_utf8(cli, here):
    top = photos(here / "photos")
    for split in ("train", "test"):
        (top / split / "dog").rename(top / split / LATIN)
    for words in (
        [*TRAIN, "--data", "folder:photos", "-o", "run"],
        ["data", "info", "folder:photos"],
    ):
        refused(cli(*words), 3, r"caf\udce9", "rename")
    assert not (here / "run").exists()


def test_row_48_the_same_in_imagenet(cli, here):
    top = imagenet(here / "in")
    for split in ("train", "val"):
        (top / split / "n2").rename(top / split / LATIN)
    refused(cli("data", "info", "imagenet:in"), 3, r"caf\udce9", "rename")


def test_row_48_image_files_of_any_name(cli, here):
    top = imagenet(here / "in")
    (top / "train" / "n1" / "a.JPEG").rename(top / "train" / "n1" / f"{LATIN}.JPEG")
    photos(here / "photos")
    (here / "photos/train/cat/0.png").rename(here / f"photos/train/cat/{LATIN}.png")
    for name in ("imagenet:in", "folder:photos"):
        assert cli("data", "info", name).code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--data", f"folder:{LATIN}"], 2),
        (["--data", "digits", "--name", LATIN], 2),
        (["--data", "digits", "--name", "n" * 300], 2),
        (["--data", "digits", "--name", "../../else"], 2),
        (["--data", "digits", "-o", "n" * 300], 2),
        (["--data", "digits", "-o", "/"], 2),
        (["--data", f"folder:{'n' * 300}"], 2),
        (["--data", f"folder:{'n' * 300}", "-o", "run"], 3),
        (["--data", "digits", "--extra-data", LATIN], 2),
        (["--method", "ltd", "--teacher", LATIN, "--data", "digits"], 2),
        (["--config", "n" * 5000], 3),
    ],
)
def test_row_48_names_that_cannot_be_kept_are_refused_before_any_work(cli, here, words, code):
    refused(cli(*TRAIN, *words), code, "caf" if LATIN in " ".join(words) else "")
    assert list(here.iterdir()) == []


def test_row_48_a_run_under_a_name_that_is_not_utf8_works_in_every_stage(cli, here, tiny_run):
    shutil.copytree(tiny_run, here / LATIN)
    best = f"{LATIN}/best.safetensors"
    again = cli("train", "--method", "adr", *TINY, "-o", LATIN, "-q")
    assert (again.code, again.record["path"]) == (0, best)
    attack = ["--attack", "fgsm", "--limit", "20", "-q"]
    attacked = cli("attack", *attack, stdin=again.out)
    assert (attacked.code, Path(attacked.record["path"]).parent.name) == (0, LATIN)
    labelled = cli("softlabels", best, "-q", "-o", f"{LATIN}/l.h5")
    assert labelled.code == 0, labelled.err
    for words in (["inspect", best], ["analyze", "entropy", attacked.record["path"]]):
        assert cli(*words).code == 0
    table = ["analyze", "table", attacked.record["path"], "-q", "-o", f"{LATIN}/t"]
    for suffix in (".json", ".csv", ".h5", ".md", ".tex", ".html"):
        assert cli(*table[:-1], table[-1] + suffix).code == 0
    picture = ["analyze", "entropy", attacked.record["path"], "-q", "--plot", f"{LATIN}/p.svg"]
    assert cli(*picture).code == 0


def test_row_48_a_dollar_in_a_run_folder_is_no_formula(cli, here, tiny_logits):
    for name in ("$x^", "$\\frac$", "a$b$c"):
        (here / name).mkdir()
        shutil.copy(tiny_logits, here / name / "a.h5")
        words = ["analyze", "entropy", f"{name}/a.h5", "-q", "--plot", f"{name}/p.svg"]
        assert cli(*words).code == 0


def test_row_48_help_on_a_terminal_of_ascii(server, here):
    """As `PYTHONIOENCODING=ascii` leaves the streams."""
    import subprocess

    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "advkit", "train", "--help"]
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u03c1" in done.stdout or b"--awp" in done.stdout


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (PermissionError(13, "Permission denied", "cat"), InputError, "cat: Permission denied"),
        (OSError(36, "File name too long", "nnn"), InputError, "nnn: File name too long"),
        (OSError(28, "No space left", "x"), StorageError, "x: the disk is full"),
    ],
)
def test_row_48_what_the_system_refuses_has_its_code(error, kind, said):
    """Folders that cannot be listed, and names that nobody looked at before."""
    reason = failures.failure(error)
    assert isinstance(reason, kind)
    assert said in str(reason)


def test_row_48_proc_is_no_folder_that_is_gone(cli, here, tiny_logits):
    words = ["analyze", "entropy", tiny_logits, "-q", "-o", "/proc/advkit/t.json"]
    outcome = cli(*words)
    refused(outcome, 6, "/proc")
    assert "gone" not in outcome.err


# At a terminal

NAMES = ("x[lr]y", "\x1b]0;title\x07", "[bold]\x1b[2J", "right\u202eleft\x9b31m")
RAW = ("\x1b]0", "\x07", "\x1b[2J", "\u202e", "\x9b")
SHOWN = ("x[lr]y", "\\x1b]0;title\\x07", "[bold]\\x1b[2J")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(cli, monkeypatch):
    """Run a command at a terminal: `screen(...)` -> code, and what it showed on both streams."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> tuple[int, str]:
        from advkit.__main__ import main

        out, err = Terminal(), Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main([str(word) for word in words])
        text = out.getvalue() + err.getvalue()
        assert not [raw for raw in RAW if raw in text], repr(text)
        return code, text

    return run


@pytest.fixture
def hostile(screen, here):
    """A data set of four classes and a run folder, their names as hostile as names can be."""
    top = photos(here / "a[red]b\x1b[2J")
    for split in ("train", "test"):
        for number, name in enumerate(NAMES):
            source = top / split / ("cat" if number % 2 else "dog")
            shutil.copytree(source, top / split / name)
        for name in ("cat", "dog"):
            shutil.rmtree(top / split / name)
    words = [*TRAIN[:-1], "--data", f"folder:{top.name}", "-o", "x[lr]y\x1b]0;t\x07"]
    code, text = screen(*words)
    assert code == 0, text
    assert "x[lr]y\\x1b]0;t\\x07" in text.replace("\n", "")
    return here


COMMANDS = [
    ["inspect", "{best}"],
    ["attack", "{best}", "--attack", "fgsm", "--eps", "0.1"],
    ["softlabels", "{best}", "--views", "2"],
    ["analyze", "masking", "{best}", "--queries", "2", "--more-steps", "12", "--points", "2"],
    ["analyze", "entropy", "{logits}"],
    ["analyze", "classes", "{logits}"],
    ["analyze", "calibration", "{logits}", "--resamples", "5"],
    ["analyze", "table", "{logits}", "-v"],  # every row of the record, which names its runs
    ["analyze", "compare", "{logits}", "{logits}"],
    ["analyze", "labels", "{labels}"],
    ["data", "info", "folder:{data}"],
    ["train", "--print-config", "--data", "folder:{data}"],
    ["attack", "{best}", "--attack", "\x1b]0;t\x07"],
    ["train", "--data", "digits", "--method", "[red]\x1b[2J"],
    ["inspect", "\x1b]0;none\x07.h5"],
    ["analyze", "entropy", "{logits}", "--debug", "--bins", "0"],
]


def test_row_49_hostile_names_in_every_command(screen, hostile):
    """Of class, data folder and run folder: shown in full, spelt out, and never as markup."""
    places = {
        "best": "x[lr]y\x1b]0;t\x07/best.safetensors",
        "logits": "x[lr]y\x1b]0;t\x07/best.fgsm-linf-0.1.h5",
        "labels": "x[lr]y\x1b]0;t\x07/best.labels-views-2.h5",
        "data": "a[red]b\x1b[2J",
    }
    shown = []
    for words in COMMANDS:
        code, text = screen(*(word.format(**places) for word in words))
        assert code in (0, 2, 3), text
        shown.append(text)
    classes = shown[5].replace("\n", "")
    assert [name for name in SHOWN if name in classes] == list(SHOWN)
    assert "x[lr]y" in "".join(shown[7].split())
    assert "x[lr]y\\x1b]0;t\\x07  robust " in shown[1]  # the line of its result


def test_row_49_forged_words_of_a_description(screen, here, tiny_run):
    tensors, info = checkpoint.read(tiny_run / "best.safetensors")
    forged = {**info, "method": "at[bold]\x1b]0;t\x07"}
    forged.pop("digest")
    checkpoint.write(here / "best.safetensors", tensors, forged)
    words = ["--attack", "fgsm", "--limit", "10"]
    for command in (["inspect", "best.safetensors"], ["attack", "best.safetensors", *words]):
        screen(*command)
    for path in here.glob("*.h5"):
        screen("analyze", "table", path)
        screen("analyze", "entropy", path)

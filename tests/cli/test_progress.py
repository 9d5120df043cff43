"""What a person sees: bars and readable records at a terminal, plain lines elsewhere."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from advkit.cli.common import failures
from advkit.runtime import progress
from tests.cli._screen import CODES
from tests.conftest import TINY

RECORD = {"kind": "analysis", "path": "a b.json", "digest": "sha256:0", "analysis": "calibration",
          "clean_ece": 0.25}  # fmt: skip


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("tty", "env", "kind"),
    [
        (True, {}, progress.Bars),
        (True, {"NO_COLOR": "1"}, progress.Lines),
        (True, {"TERM": "dumb"}, progress.Lines),
        (False, {}, progress.Lines),
    ],
)
def test_bars_only_at_a_capable_terminal(monkeypatch, tty, env, kind):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal() if tty else io.StringIO())
    assert type(progress.reporter("train", quiet=False)) is kind


def test_quiet_keeps_warnings_only(capfd):
    quiet = progress.reporter("train", quiet=True)
    quiet.begin("training", 1)
    quiet.advance(loss=0.5)
    quiet.end()
    quiet.note("by the way")
    assert capfd.readouterr().err == ""
    quiet.warn("beware")
    assert capfd.readouterr().err == "advkit train: warning: beware\n"


def test_plain_lines_tell_figures_and_time(capfd):
    lines = progress.Lines("train")
    lines.begin("training", 4)
    lines.advance(4, epoch="2/2", loss=0.5, val_robust_accuracy=0.25)
    lines.end()
    expected = "advkit train: training 4/4, epoch 2/2, loss 0.500, val robust 0.250, 0:00\n"
    assert capfd.readouterr().err == expected


def test_plain_lines_come_now_and_then(capfd, monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 10.0, 10.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines = progress.Lines("attack")
    lines.begin("pgd", 40)
    lines.advance(1)
    assert capfd.readouterr().err == ""
    lines.advance(9)
    assert capfd.readouterr().err == "advkit attack: pgd 10/40, 0:30 left\n"


def test_what_goes_on_inside_a_unit_is_told_when_it_lasts(capfd, monkeypatch):
    clock = iter([0.0, 1.0, 12.0, 12.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines = progress.Lines("train")
    lines.begin("training", 8)
    lines.inside("epoch 1/2")  # names what the units are: nothing new to say
    lines.inside("epoch 1/2 validation PGD-10", 3, 1)
    assert capfd.readouterr().err == ""
    lines.inside("epoch 1/2 validation PGD-10", 3, 2)
    told = "training 0/8, epoch 1/2 validation PGD-10 2/3, 0:12 so far"
    assert capfd.readouterr().err == f"advkit train: {told}\n"
    lines.inside("")
    lines.end()
    assert capfd.readouterr().err == "advkit train: training 0/8, 0:13 so far\n"


def test_passes_whose_end_nobody_knows_are_counted(capfd, monkeypatch):
    clock = iter([0.0, 11.0, 11.0, 11.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines = progress.Lines("attack")
    lines.begin("square", 20)
    lines.inside("square pass", done=300)
    told = "advkit attack: square 0/20, square pass 300, 0:11 so far\n"
    assert capfd.readouterr().err == told


@pytest.mark.parametrize(
    ("columns", "figures"),
    [("80", "val 50.0/25.0 %"), ("160", "loss 1.500  val clean 0.500  val robust 0.250")],
)
def test_a_bar_names_what_goes_on_and_fits_its_terminal(monkeypatch, columns, figures):
    monkeypatch.setenv("COLUMNS", columns)
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    bars = progress.Bars("train")
    bars.begin("training", 78000)
    (task,) = bars.bar.tasks
    bars.inside("epoch 29/30")
    bars.advance(70000, epoch="28/30", loss=1.5, val_clean_accuracy=0.5, val_robust_accuracy=0.25)
    assert (task.description, task.fields["figures"]) == ("epoch 29/30", figures)
    bars.inside("epoch 29/30 validation PGD-10", 4, 2)
    assert task.description == "epoch 29/30 validation PGD-10 2/4"
    bars.bar.refresh()
    last = err.getvalue().split("\r")[-1]
    assert "…" not in last
    assert figures in last
    bars.inside("")
    assert task.description == "training"
    bars.end()


@pytest.mark.parametrize("text", ["two\nlines", "a\rb", "\x1b[31mred"])
def test_a_message_is_one_harmless_line(capfd, text):
    progress.say("attack", text)
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.rstrip("\n").isprintable()


def test_no_terminal_gets_plain_lines(cli, tmp_path):
    outcome = cli("train", *TINY, "--epochs", "1", "-o", tmp_path / "run")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert any("training 7/7" in line for line in lines)
    assert all(line.startswith("advkit train: ") and line.isprintable() for line in lines)


def test_quiet_says_nothing(cli, tmp_path):
    run, logits = tmp_path / "run", tmp_path / "a.h5"
    outcomes = [
        cli("train", *TINY, "--epochs", "1", "-o", run, "-q"),
        cli("attack", run / "best.safetensors", "--attack", "fgsm", "-o", logits, "-q"),
        cli("analyze", "table", logits, "-q"),
    ]
    assert [(each.code, each.err, len(each.records)) for each in outcomes] == [(0, "", 1)] * 3


def test_terminal_gets_json_on_request():
    out = Terminal()
    failures.emit(out, RECORD, True)
    assert json.loads(out.getvalue()) == RECORD


def test_terminal_gets_a_line_and_on_request_all_rows():
    out = Terminal()
    failures.emit(out, RECORD, False)
    assert out.getvalue() == "calibration  clean ECE 0.25  → a b.json\n"
    rows = Terminal()
    failures.emit(rows, RECORD, False, rows=True)
    shown = dict(line.split(maxsplit=1) for line in rows.getvalue().splitlines())
    expected = {**RECORD, "clean_ece": "0.2500"}
    assert {key: value.strip() for key, value in shown.items()} == expected


def _at_a_terminal(*arguments: object) -> tuple[int, str]:
    """Run a command whose three streams are a terminal: (exit code, all that it shows).

    In a new process: OpenMP's threads do not survive a fork, and a child would wait for them.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "advkit", *map(str, arguments)]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    env.pop("NO_COLOR", None)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # Linux's word for a terminal whose other side was closed
        pass
    os.close(ours)
    return process.wait(60), shown.decode()


def test_a_real_terminal_gets_bars_and_no_json(tiny_run, tmp_path):
    best = tiny_run / "best.safetensors"
    arguments = ["--attack", "fgsm", "--limit", "20", "-o", tmp_path / "a.h5"]
    code, shown = _at_a_terminal("attack", best, *arguments)
    assert code == 0
    assert "━" in shown
    shown = CODES.sub("", shown)
    assert re.search(r"^tiny  robust \d+\.\d % \[.*\]  clean .* %  n 20  fgsm linf ", shown, re.M)
    assert '"kind"' not in shown


def test_missing_input_at_a_terminal_is_a_usage_error():
    code, shown = _at_a_terminal("attack", "--autoattack")
    assert code == 2
    assert len(shown.splitlines()) == 1
    assert "no checkpoint given" in shown

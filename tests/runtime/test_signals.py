"""Signals that meet code which catches the exception that they become."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from advkit.cli.common.failures import guarded
from advkit.errors import Stopped, UsageError
from advkit.runtime import signals


@pytest.fixture
def installed():
    before = {number: signal.getsignal(number) for number in signals.HANDLED}
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals.release()


@pytest.mark.parametrize("wrapped", [RuntimeError, UsageError])
def test_a_signal_that_a_library_wraps_stays_one(installed, capsys, wrapped):
    """As torch's compiler does: exit 128 + n, not that of what it made of it."""

    def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise wrapped("compiling failed") from error
        return 0

    assert guarded("bench", False, work) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "advkit bench: ended by SIGTERM\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_is_gone_on_with_by_the_same_command_says_so(installed, capsys, number):
    """Whatever it was told inside, such as training's `--resume`, which the command lacks."""

    def work() -> int:
        with signals.resumable():
            try:
                os.kill(os.getpid(), number)
            except Stopped as stopped:
                raise Stopped(number, "state saved: go on with --resume") from stopped
        return 0

    assert guarded("search adr", False, work) == 128 + number
    again = f"ended by {number.name}: the same command goes on from what was saved"
    assert capsys.readouterr().err == f"advkit search adr: {again}\n"


def test_a_failure_without_a_signal_keeps_its_code(installed, capsys):
    def work() -> int:
        raise UsageError("no such thing")

    assert guarded("bench", False, work) == 2
    assert capsys.readouterr().err == "advkit bench: error: no such thing\n"


SWALLOWING = """
import os, signal, time
from advkit.runtime import signals
signals.GRACE = 0.1
signals.install()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Exception:
    pass
time.sleep(600)
"""


def test_a_swallowed_signal_ends_the_process_after_all():
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWING], capture_output=True, text=True, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.startswith("advkit: ended by SIGTERM at once")

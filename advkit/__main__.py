"""Entry point: `advkit` and `python -m advkit`."""

from __future__ import annotations

import atexit
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

ELSEWHERE = f"advkit runs on Linux and macOS, not on {sys.platform}: on Windows use WSL"

AT_THE_END = (signal.SIGINT, signal.SIGTERM)
"""Signals that change nothing once the work is done."""


def supported() -> bool:
    """Whether the system has what outputs and resuming rest on: file locks and POSIX signals."""
    return importlib.util.find_spec("fcntl") is not None and hasattr(signal, "SIGUSR1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; 2 on a system that advkit does not run on."""
    if not supported():
        print(f"advkit: error: {ELSEWHERE}", file=sys.stderr)
        return 2
    ours = arguments is None  # the process is this program, and no guest's
    if ours:
        # Python's own handler raises wherever it is, within imports too: a traceback.
        signal.signal(signal.SIGINT, _interrupted)
        # Registered first, so that it runs last: Python then takes its handlers down, and a signal
        # would end with its own code, and without a word, a command that has done its work.
        for number in AT_THE_END:
            atexit.register(signal.signal, number, signal.SIG_IGN)
    # Not before: on Windows the import itself would fail, with a traceback for a message.
    from advkit.cli.app import run

    code = run(list(sys.argv[1:] if arguments is None else arguments))
    if ours:  # what was to be said has been said
        for number in AT_THE_END:
            signal.signal(number, lambda *_: os._exit(code))
    return code


def _interrupted(signum: int, frame: FrameType | None) -> None:
    """End at once, in one line, where no work has begun."""
    os.write(2, b"advkit: ended by SIGINT\n")
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())

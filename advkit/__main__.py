"""Entry point: `advkit` and `python -m advkit`."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Sequence

ELSEWHERE = f"advkit runs on Linux and macOS, not on {sys.platform}: on Windows use WSL"


def supported() -> bool:
    """Whether the system has what outputs and resuming rest on: file locks and POSIX signals."""
    return importlib.util.find_spec("fcntl") is not None and hasattr(signal, "SIGUSR1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; 2 on a system that advkit does not run on."""
    if not supported():
        print(f"advkit: error: {ELSEWHERE}", file=sys.stderr)
        return 2
    # Not before: on Windows the import itself would fail, with a traceback for a message.
    from advkit.cli.app import run

    return run(list(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())

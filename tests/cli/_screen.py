"""A terminal of 80 columns for commands of this process: what each stream shows, as text."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import termios
import threading
from dataclasses import dataclass

import pytest

from advkit.__main__ import main

CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
CLOCK = re.compile(r"\d+:\d\d(:\d\d)?")


@dataclass(frozen=True)
class Shown:
    """How a command ended, and what it wrote on each stream, every byte."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Stdout as a person reads it."""
        return self.out.splitlines()

    @property
    def said(self) -> list[str]:
        """Stderr as it stays on the screen: the last state of each line, its times masked."""
        rows: list[str] = []
        for text in self.err.replace("\r\n", "\n").split("\n"):
            last = text.split("\r")[-1] if "\r" in text else text
            rows.append(CLOCK.sub("TIME", CODES.sub("", last)).rstrip())
        return [row for row in rows if row]


class _Stream:
    """One stream on a terminal of its own; a thread reads it, so that no writer waits."""

    def __init__(self, encoding: str) -> None:
        self.ours, theirs = pty.openpty()
        mode = termios.tcgetattr(theirs)
        mode[1] &= ~termios.ONLCR  # the text as it was written
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        self.file = io.TextIOWrapper(io.FileIO(theirs, "w"), encoding=encoding, write_through=True)
        self.read = b""
        self.reader = threading.Thread(target=self._drain)
        self.reader.start()

    def _drain(self) -> None:
        try:
            while piece := os.read(self.ours, 4096):
                self.read += piece
        except OSError:  # Linux's word for a terminal whose other side was closed
            pass

    def text(self) -> str:
        """Close it and return what was written."""
        self.file.close()
        self.reader.join()
        os.close(self.ours)
        return self.read.decode()


def at_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    *words: object,
    stdin: str = "",
    encoding: str = "utf-8",
    **environment: str,
) -> Shown:
    """Run a command: stdout and stderr are terminals of 80 columns, stdin is a pipe."""
    out, err = _Stream(encoding), _Stream(encoding)
    with monkeypatch.context() as patch:
        patch.delenv("NO_COLOR", raising=False)
        for name, value in {"TERM": "xterm", "COLUMNS": "80", **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        patch.setattr(sys, "stdout", out.file)
        patch.setattr(sys, "stderr", err.file)
        try:
            code = main([str(word) for word in words])
        finally:
            # They go with the streams: what is still open is written by now.
            shown = out.text(), err.text()
    return Shown(code, *shown)

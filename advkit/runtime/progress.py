"""What a person sees on stderr: bars at a terminal, now and then a line elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from advkit.errors import printable, printable_lines
from advkit.runtime.reporting import Reporter

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 10.0
"""Seconds between two lines where stderr is no terminal."""


def reporter(stage: str, *, quiet: bool) -> Reporter:
    """Choose how progress is shown."""
    plain = sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb"
    if quiet:
        return Quiet(stage)
    return Lines(stage) if plain or os.environ.get("NO_COLOR") else Bars(stage)


class Quiet(Reporter):
    """Warnings only."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def warn(self, text: str) -> None:
        """Print one line."""
        say(self.stage, f"warning: {text}")


class Lines(Quiet):
    """A line at the start and end of a piece of work, and every ten seconds between."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.what, self.total, self.done, self.figures = "", 0, 0, dict[str, object]()
        self.began = self.last = 0.0
        self.first = 0
        self.spoken = ""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Remember what is going on."""
        self.what, self.total, self.done, self.first = what, total, done, done
        self.figures = {}
        self.began = self.last = time.monotonic()

    def advance(self, units: int = 1, **figures: object) -> None:
        """Count, and speak if it is time."""
        self.done += units
        self.figures.update(figures)
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            self._speak()

    def end(self) -> None:
        """Say how it ended."""
        self._speak()

    def note(self, text: str) -> None:
        """Print one line."""
        say(self.stage, text)

    def _speak(self) -> None:
        seconds = time.monotonic() - self.began
        # By the pace since this process began: what an earlier one did took none of its time.
        left = (self.total - self.done) * seconds / max(self.done - self.first, 1)
        clock = f"{_clock(left)} left" if self.done < self.total else f"{_clock(seconds)}"
        words = [f"{self.what} {self.done}/{self.total}", *described(self.figures), clock]
        line = ", ".join(words)
        # The end of a piece of work may be told by its last step already.
        if line != self.spoken:
            say(self.stage, line)
        self.spoken = line


class Bars(Quiet):
    """A live bar with the latest figures and the time that is left."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.bar: Progress | None = None

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Open a bar."""
        from rich import progress
        from rich.console import Console

        self.end()
        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[figures]}", markup=False),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
        )
        self.bar = progress.Progress(*columns, console=Console(stderr=True))
        self.bar.start()
        self.bar.add_task(printable(what), total=total, completed=done, figures="")

    def advance(self, units: int = 1, **figures: object) -> None:
        """Move the bar."""
        if self.bar is not None:
            (task,) = self.bar.tasks
            shown = "  ".join(described(figures)) if figures else task.fields["figures"]
            self.bar.update(task.id, advance=units, figures=shown)

    def end(self) -> None:
        """Leave the bar on the screen and let go of the terminal."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def note(self, text: str) -> None:
        """Print above the bar."""
        if self.bar is not None:
            line = printable(f"advkit {self.stage}: {text}")
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            say(self.stage, text)

    def warn(self, text: str) -> None:
        """Print above the bar."""
        self.note(f"warning: {text}")


SHOWN = {
    "epoch": "epoch",
    "loss": "loss",
    "val_clean_accuracy": "val clean",
    "val_robust_accuracy": "val robust",
    "robust": "robust",
    "rate": "rate",
}


def described(figures: dict[str, object]) -> list[str]:
    """Return the figures worth a glance, as words."""
    words = []
    for key, label in SHOWN.items():
        if figures.get(key) is not None:
            value = figures[key]
            words.append(f"{label} {value:.3f}" if isinstance(value, float) else f"{label} {value}")
    return words


def say(stage: str, text: str) -> None:
    """Print one line on stderr."""
    words = f"advkit {stage}".rstrip()
    line = printable(f"{words}: {text}")
    with contextlib.suppress(OSError, ValueError):  # stderr may be full or closed
        print(line, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print lines on stderr, a table for example; names in them are spelt out."""
    with contextlib.suppress(OSError, ValueError):
        print(printable_lines(text), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

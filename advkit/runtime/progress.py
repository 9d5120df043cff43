"""What a person sees on stderr: bars at a terminal, now and then a line elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from advkit.errors import printable, printable_lines
from advkit.runtime.reporting import Reporter

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 10.0
"""Seconds between two lines where stderr is no terminal."""
WIDE = 100
"""Columns of a terminal in which a bar, all figures and both times have room."""


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
        self.within = self.spoken = ""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Remember what is going on."""
        self.what, self.total, self.done, self.first = what, total, done, done
        self.figures, self.within = {}, ""
        self.began = self.last = time.monotonic()

    def advance(self, units: int = 1, **figures: object) -> None:
        """Count, and speak if it is time."""
        self.done += units
        self.figures.update(figures)
        self._speak_now_and_then()

    def inside(self, what: str, total: int = 0, done: int = 0) -> None:
        """Remember the steps of what goes on, and speak if it is time."""
        self.within = _within(what, total, done) if total or done else ""
        if self.within:
            self._speak_now_and_then()

    def end(self) -> None:
        """Say how it ended."""
        self._speak()

    def note(self, text: str) -> None:
        """Print one line."""
        say(self.stage, text)

    def _speak_now_and_then(self) -> None:
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            self._speak()

    def _speak(self) -> None:
        seconds = time.monotonic() - self.began
        # By the pace since this process began: what an earlier one did took none of its time.
        behind, ahead = self.done - self.first, self.total - self.done
        clock = f"{_clock(ahead * seconds / behind)} left" if ahead and behind else _clock(seconds)
        if ahead and not behind:
            clock += " so far"  # no pace to go by yet
        words = [f"{self.what} {self.done}/{self.total}", self.within, *described(self.figures)]
        line = ", ".join([*(word for word in words if word), clock])
        # The end of a piece of work may be told by its last step already.
        if line != self.spoken:
            say(self.stage, line)
        self.spoken = line


class Bars(Quiet):
    """A live bar: what goes on, the latest figures and the time that is left."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.bar: Progress | None = None
        self.what = ""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Open a bar."""
        from rich import progress
        from rich.console import Console

        self.end()
        self.what = what
        console = Console(stderr=True)
        # A line that does not fit is cut, and what is cut first is what goes on.
        self.narrow = console.width < WIDE
        columns = [
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=8 if self.narrow else 24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[figures]}", markup=False),
            *([] if self.narrow else [progress.TimeElapsedColumn()]),
            progress.TimeRemainingColumn(),
        ]
        self.bar = progress.Progress(*columns, console=console)
        self.bar.start()
        self.bar.add_task(printable(what), total=total, completed=done, figures="")

    def advance(self, units: int = 1, **figures: object) -> None:
        """Move the bar."""
        if self.bar is not None:
            (task,) = self.bar.tasks
            shown = self._glance(figures) if figures else task.fields["figures"]
            self.bar.update(task.id, advance=units, figures=shown)

    def inside(self, what: str, total: int = 0, done: int = 0) -> None:
        """Name it in the place of the whole work."""
        if self.bar is not None:
            (task,) = self.bar.tasks
            words = _within(what, total, done) or self.what
            self.bar.update(task.id, description=printable(words))

    def _glance(self, figures: dict[str, object]) -> str:
        # The epoch stands in the name of what goes on.
        shown = {key: value for key, value in figures.items() if key != "epoch"}
        return brief_figures(shown) if self.narrow else "  ".join(described(shown))

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


def _within(what: str, total: int, done: int) -> str:
    if total:
        return f"{what} {done}/{total}"
    return f"{what} {done}" if done else what


SHOWN = {
    "epoch": "epoch",
    "loss": "loss",
    "val_clean_accuracy": "val clean",
    "val_robust_accuracy": "val robust",
    "robust": "robust",
    "rate": "rate",
}


def described(figures: Mapping[str, object]) -> list[str]:
    """Return the figures worth a glance, as words."""
    words = []
    for key, label in SHOWN.items():
        if figures.get(key) is not None:
            value = figures[key]
            words.append(f"{label} {value:.3f}" if isinstance(value, float) else f"{label} {value}")
    return words


def brief_figures(figures: Mapping[str, object]) -> str:
    """Return the figures that a narrow terminal has room for.

    >>> brief_figures({"loss": 1.2, "val_clean_accuracy": 0.5, "val_robust_accuracy": 0.25})
    'val 50.0/25.0 %'
    """
    names = ("val_clean_accuracy", "val_robust_accuracy")
    shares = [value for name in names if isinstance(value := figures.get(name), float)]
    if shares:
        return f"val {'/'.join(f'{100 * share:.1f}' for share in shares)} %"
    return "  ".join(described(figures))


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

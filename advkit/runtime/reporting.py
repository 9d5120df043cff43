"""What an engine tells a person while it works. The command line decides how it looks."""

from __future__ import annotations


class Reporter:
    """Silent by default; every method may be called at any time."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Start a piece of work of `total` units, `done` of them behind us."""

    def advance(self, units: int = 1, **figures: object) -> None:
        """Report progress, with the latest figures by name."""

    def inside(self, what: str, total: int = 0, done: int = 0) -> None:
        """Name what goes on between two units, `done` of its `total` steps; nothing ends it.

        Without a total `done` is a number alone: how many there will be is not known.
        """

    def end(self) -> None:
        """Finish the current piece of work."""

    def note(self, text: str) -> None:
        """Tell something worth knowing, in one line."""

    def warn(self, text: str) -> None:
        """Tell something that may make a result mean less, in one line."""

"""Where a value comes from, and errors that say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from advkit.errors import UsageError

FLAG = "flag"
"""Origin of what was given on the command line."""


@contextmanager
def blaming(origin: str | None) -> Iterator[None]:
    """Have an error say where the value came from, unless it was typed just now."""
    try:
        yield
    except UsageError as error:
        if not origin or origin == FLAG:
            raise
        raise UsageError(f"{error} ({origin})") from None

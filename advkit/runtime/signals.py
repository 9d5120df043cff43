"""Signals: at once where nothing is at stake, at the next step boundary where state is saved.

A second signal always ends the process at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from advkit.errors import Stopped

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _State:
    pending: int | None = None
    deferred: bool = False


def install() -> None:
    """Take over the signals of this process (main thread only)."""
    release()
    for each in HANDLED:
        signal.signal(each, _handle)


@contextmanager
def deferred() -> Iterator[None]:
    """Let signals wait: inside, they only set what `pending` returns."""
    before = _State.deferred
    _State.deferred = True
    try:
        yield
    finally:
        _State.deferred = before


@contextmanager
def whole() -> Iterator[None]:
    """Let signals wait until a file is in place, then act on one that came.

    An exception out of a handler may surface anywhere: inside a library's callback it is lost, or
    takes the process with it, and half a file is taken for the whole.

    Raises:
        Stopped: a signal came, and nothing around this wants it to wait on.
    """
    with deferred():
        yield
    if _State.pending is not None and not _State.deferred:
        raise _ended(_State.pending)


def release() -> None:
    """Forget a signal that has been acted on."""
    _State.pending, _State.deferred = None, False


def pending() -> int | None:
    """Return the number of the signal that waits, if any."""
    return _State.pending


def _handle(signum: int, frame: FrameType | None) -> None:
    if _State.pending is not None:
        os._exit(128 + signum)
    _State.pending = signum
    if not _State.deferred:
        raise _ended(signum)


def _ended(signum: int) -> Stopped:
    return Stopped(signum, f"ended by {signal.Signals(signum).name}")

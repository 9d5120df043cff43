"""Signals: at once where nothing is at stake, at the next step boundary where state is saved.

A second signal always ends the process at once, in one line. So does the first where a library
swallows the exception that it became, after `GRACE` seconds.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from advkit.errors import Stopped

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
GRACE = 15.0
"""Seconds that code between a signal's exception and the end of the command may take."""


class _State:
    pending: int | None = None
    deferred: bool = False
    told: bool = False
    acted: int | None = None
    last: threading.Timer | None = None


def install() -> None:
    """Take over the signals of this process (main thread only)."""
    release()
    for number in HANDLED:
        # `nohup` has SIGHUP ignored: the command is to outlive its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


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
        raise ended(_State.pending)


@contextmanager
def interruptible() -> Iterator[None]:
    """Work as a guest of somebody's process: Ctrl-C waits for the next step boundary, once.

    Nothing is done where the process has a handler of its own, or outside its main thread.

    Raises:
        KeyboardInterrupt: the work stopped there, its state saved; a second Ctrl-C ends it at once.
    """
    # Python delivers signals to the main thread alone, and lets no other set a handler.
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    release()
    signal.signal(signal.SIGINT, _ask)
    try:
        yield
    except Stopped as stopped:
        if stopped.code == 128 + signal.SIGINT:
            raise KeyboardInterrupt(str(stopped)) from None
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        release()


def _ask(signum: int, frame: FrameType | None) -> None:
    if _State.pending is not None or not _State.deferred:
        raise KeyboardInterrupt
    _State.pending = signum


def release() -> None:
    """Forget a signal that has been acted on."""
    _State.pending, _State.deferred, _State.told = None, False, False
    _State.acted = None
    if _State.last is not None:
        _State.last.cancel()
        _State.last = None


def told() -> None:
    """Say that a person has been told of the end: a further signal adds no line."""
    _State.told = True


def pending() -> int | None:
    """Return the number of the signal that waits, if any."""
    return _State.pending


def ended(signum: int) -> Stopped:
    """Return the exception that a signal becomes."""
    return Stopped(signum, f"ended by {signal.Signals(signum).name}")


@contextmanager
def resumable() -> Iterator[None]:
    """Say of a stop in here that the same command goes on with the work."""
    try:
        yield
    except Stopped as stopped:
        name = signal.Signals(stopped.code - 128).name
        again = "the same command goes on from what was saved"
        raise Stopped(stopped.code - 128, f"ended by {name}: {again}") from stopped


def acted() -> int | None:
    """Return the number of the signal that was raised as an exception, if any.

    A library that catches it may raise what it likes instead.
    """
    return _State.acted


def _handle(signum: int, frame: FrameType | None) -> None:
    if _State.pending is not None:
        _end(signum)
    _State.pending = signum
    if not _State.deferred:
        _State.acted = signum
        # torch's compiler catches exceptions and goes on, for minutes.
        _State.last = threading.Timer(GRACE, _end, (signum,))
        _State.last.daemon = True
        _State.last.start()
        raise ended(signum)


def _end(signum: int) -> None:
    # Not sys.exit: the first signal waits in code that may catch exceptions, or hang.
    _tell(signum)
    os._exit(128 + signum)


def _tell(signum: int) -> None:
    """Write the one line of a process that ends at once, without what could wait or fail."""
    if _State.told or os.environ.get("RANK", "0") != "0":
        return
    name = signal.Signals(signum).name
    line = f"advkit: ended by {name} at once: what was saved before stays\n"
    with suppress(OSError):
        # A bar hides the cursor, and nobody is left to show it again.
        cursor = "\x1b[?25h\n" if os.isatty(2) else ""
        os.write(2, f"{cursor}{line}".encode())

"""Where failures become one line and an exit code, and records are printed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import TextIO

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common.options import Call, Command
from advkit.errors import (
    AdvkitError,
    Elsewhere,
    InputError,
    Stopped,
    StorageError,
    UsageError,
    brief,
    printable,
    printable_lines,
    storage,
)
from advkit.parallel import ranks
from advkit.runtime import signals
from advkit.runtime.progress import say, show

PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Packages that are installed under another name than they are imported by."""


NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "Unable to allocate",
    "could not create a primitive",
    "could not create a memory",
    "failed to map segment",
)
"""How torch's, numpy's, oneDNN's and the linker's own errors tell of it on a CPU."""


PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")
"""How gloo tells of a rank that is gone."""


NO_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What the system answers only where something is written."""


class ReaderGone(AdvkitError):
    """The process that read our stdout went away."""

    code = 141


class Reported(AdvkitError):
    """A failure that has been printed already; only its exit code is left to pass on."""

    def __init__(self, first: AdvkitError) -> None:
        super().__init__(str(first))
        self.code = first.code


def perform(command: Command, call: Call) -> None:
    """Run a command and print its records; what libraries print goes to stderr.

    Raises:
        AdvkitError: as the work does; `guarded` turns it into an exit code.
    """
    # Records keep the real stdout: a stray print of a library must not end up among them.
    stdout = sys.stdout
    talk = call.talk
    if not (talk.verbose or talk.debug):
        warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        for record in command.run(call):
            emit(stdout, record, talk.json, talk.verbose)


def guarded(stage: str, debug: bool, work: Callable[[], int]) -> int:
    """Run `work` and return its exit code, with one line on stderr for a failure."""
    try:
        try:
            code = work()
            sys.stdout.flush()
        except BrokenPipeError:
            # Caught here and not left to SIGPIPE, which would end training when any pipe closes.
            _abandon_stdout()
            raise ReaderGone("the reader of stdout went away; files are in place") from None
        return code
    except SystemExit as error:
        if not error.code:  # shell completion ends this way
            return 0
        _abandon_stdout()  # rich's word for a broken pipe
        return ReaderGone.code
    except Reported as error:
        return error.code
    except Elsewhere as error:
        return error.code
    except AdvkitError as error:
        if debug:
            show(traceback.format_exc())
        error = error if isinstance(error, Stopped) else _ended() or error
        if isinstance(error, Stopped):
            signals.told()
        say(stage, ("" if isinstance(error, Stopped) else "error: ") + str(error))
        return error.code
    except KeyboardInterrupt:
        say(stage, "ended by SIGINT")
        return 130
    except OSError as error:
        if debug:
            show(traceback.format_exc())
        if error.filename is not None:  # of a file, and not of stdout
            reason = failure(error)
            say(stage, f"error: {reason}")
            return reason.code
        _abandon_stdout()
        if error.errno == errno.ENOSPC:  # files translate theirs, so this is the help text
            say(stage, "error: cannot write to stdout: no space")
            return StorageError.code
        say(stage, f"error: {failure(error)}")
        return 1
    except Exception as error:
        if debug:
            show(traceback.format_exc())
        if stopped := _ended():
            signals.told()
            say(stage, str(stopped))
            return stopped.code
        reason = failure(error)
        say(stage, f"error: {reason}")
        return reason.code


def _ended() -> Stopped | None:
    """Return the end by a signal that a library has turned into a failure of its own."""
    signum = signals.acted()
    return signals.ended(signum) if signum is not None else None


def failure(error: Exception) -> AdvkitError:
    """Return what a failure that nobody foresaw means for a person, in one line."""
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = PACKAGES.get(top := error.name.partition(".")[0], top)
        return UsageError(
            f"the package {package} is not installed: python -m pip install {package}"
        )
    if isinstance(error, OSError) and error.filename is not None:
        name = os.fsdecode(error.filename)
        return storage(error, name) if error.errno in NO_STORAGE else unreadable(error, name)
    if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":
        where = brief(error.object[max(0, error.start - 40) : error.end + 20])
        return UsageError(f"a name that is not UTF-8 cannot be written down: {where}; rename it")
    # By name: torch, whose class it is, may not have been imported.
    if type(error).__name__ == "OutOfMemoryError":
        return AdvkitError("out of memory on the device: lower --batch-size")
    # On a CPU torch and oneDNN raise RuntimeError: only the words tell.
    if isinstance(error, MemoryError) or any(words in first for words in NO_MEMORY):
        return AdvkitError("out of memory: lower --batch-size, or free some")
    if ranks.world() > 1 and any(words in str(error) for words in PEER_GONE):
        return AdvkitError("another process of the run has ended: go on with --resume")
    return AdvkitError(
        f"{type(error).__name__}: {first} (run it again with --debug for the traceback)"
    )


def unreadable(error: OSError, name: str) -> InputError:
    """Return the error for a file or folder that nobody foresaw could not be read."""
    return InputError(f"{name}: {error.strerror}")


def emit(stdout: TextIO, record: Record | str, as_json: bool, rows: bool = False) -> None:
    """Print one record: its JSON, or a line for a person at a terminal, all its rows on request.

    Raises:
        ReaderGone: nobody reads any more.
        StorageError: the record cannot be written (a full disk behind stdout).
    """
    try:
        if isinstance(record, str):
            stdout.write(printable_lines(record) if stdout.isatty() else record)
        elif as_json or not stdout.isatty():
            stdout.write(records.line(record) + "\n")
        elif rows:
            _show(stdout, record)
        else:
            from advkit.cli.common.lines import line  # a terminal alone has use for it

            stdout.write(line(record) + "\n")
        stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        if isinstance(record, str):  # text for a person, as of `advkit presets | head`
            raise Reported(ReaderGone()) from None
        kept = "; files are in place" if record.get("path") else ""
        raise ReaderGone(f"the reader of stdout went away{kept}") from None
    except OSError as error:
        _abandon_stdout()
        reason = "no space" if error.errno == errno.ENOSPC else error.strerror
        raise StorageError(f"cannot write to stdout: {reason}; files are in place") from None


def _abandon_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush stays silent."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]


def settle_stderr() -> None:
    """Flush stderr; where that fails, keep the interpreter from failing on it once more."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stderr__.fileno())  # type: ignore[union-attr]


def _show(stdout: TextIO, record: Record) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for key, value in record.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        if isinstance(value, dict | list):
            shown = json.dumps(value, ensure_ascii=False, indent=1)
        # Text, which a cell of a plain string is not: names would be taken for markup.
        table.add_row(Text(printable(str(key))), Text(printable_lines(shown)))
    Console(file=stdout).print(table)

"""What every command does around its work: inputs, records, errors, exit codes."""

from __future__ import annotations

import sys
import traceback
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common.failures import ReaderGone, Reported, failure
from advkit.cli.common.options import Call
from advkit.errors import AdvkitError, InputError, Stopped, UsageError
from advkit.runtime.progress import say, show

CHECKED = ("checkpoint", "labels", "logits")
"""Records whose digest stands in their file."""
EMPTY = "\0"
"""Marks an empty stdin among the inputs; no path can start with it."""


def sources(call: Call, wanted: str) -> Iterator[str]:
    """Yield the inputs one by one, as text: paths named, else lines of stdin; `-` is stdin.

    Raises:
        UsageError: nothing was named and stdin is a terminal.
        InputError: stdin is empty.
    """
    for path in call.files:
        if path == "-":
            yield from _stdin(wanted)
        else:
            yield path
    if not call.files:
        if sys.stdin is not None and sys.stdin.isatty():
            raise UsageError(f"no {wanted} given: name a file, or pipe in the stage before")
        yield from _stdin(wanted)


def _stdin(wanted: str) -> Iterator[str]:
    """Yield lines; an empty stdin yields a marker, so that inputs behind it still get a turn."""
    seen = False
    for raw in sys.stdin.buffer if sys.stdin is not None else ():
        # File names are bytes on POSIX: what is no UTF-8 must reach the file system unchanged.
        # A byte order mark begins what some editors and shells write, here also amid joined lists.
        text = raw.removeprefix(BOM_UTF8).decode("utf-8", errors="surrogateescape").strip()
        if text:
            seen = True
            yield text
    if not seen:
        yield f"{EMPTY}{wanted}"


def record_of(text: str, kinds: tuple[str, ...]) -> Record:
    """Return an input as a record of a usable kind.

    Raises:
        InputError: stdin was empty, a broken record, or one of another kind.
        MismatchError: the file is another one by now than its record says.
    """
    if text.startswith(EMPTY):
        raise InputError(f"no {text[len(EMPTY) :]} on stdin: the stage before gave nothing")
    record = records.parse(text, kinds)
    path = records.wanted(record, kinds)
    if record.get("kind") in CHECKED and isinstance(record.get("digest"), str):
        from advkit.artifacts import artifact  # whoever was given a path alone needs none of it

        artifact.require_digest(Path(path), record["digest"])
    return record


def each(
    call: Call,
    stage: str,
    wanted: tuple[str, ...],
    work: Callable[[Record], Record | None],
    verdict: Callable[[Record], None] | None = None,
    noun: str = "",
) -> Iterator[Record]:
    """Do the work for every input; one that fails is reported and the rest go on.

    Args:
        call: the command line.
        stage: how the command is called in messages.
        wanted: kinds of records that the work can use.
        work: gives the record of one input, None where another process gives it.
        verdict: sees each record after it was printed and may raise.
        noun: what an input is called; its kinds if empty.

    Raises:
        Reported: with the exit code of the first failure.
    """
    first: AdvkitError | None = None
    for text in sources(call, noun or " or ".join(wanted)):
        try:
            record = work(record_of(text, wanted))
            if record is None:
                continue
            yield record
            if verdict is not None:
                verdict(record)
        except (Stopped, ReaderGone):  # these end the command, not the one input
            raise
        except Exception as error:
            if call.talk.debug:
                show(traceback.format_exc())
            reason = error if isinstance(error, AdvkitError) else failure(error)
            say(stage, f"error: {reason}")
            first = first or reason
    if first is not None:
        raise Reported(first)


def data_of(named: str | None, source: Record) -> str | None:
    """Return the data set to use: the one named, else the one that a record says, if it does."""
    recorded = source.get("data")
    return named or (recorded if isinstance(recorded, str) else None)


class Once:
    """The path of `-o`, which holds the result of one input of a call."""

    def __init__(self, call: Call, out: str | None) -> None:
        """Refuse several inputs named on the command line, before any work.

        Raises:
            UsageError: `-o` was given with more than one file.
        """
        self.out, self.used = out, False
        if len(call.files) > 1:
            self._refuse()

    def take(self) -> str | None:
        """Return where the next result goes, None where `-o` was not given.

        Raises:
            UsageError: an earlier input of this call went there.
        """
        if self.used:
            self._refuse()
        return self.out

    def _refuse(self) -> None:
        if self.out:
            raise UsageError(f"-o {self.out} holds one result: call it once for each input")

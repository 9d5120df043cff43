"""The error tree and the one table of exit codes.

AdvkitError           1   the work failed for a reason not below
  UsageError          2   unknown option, name or key; a device or package that is not there
  InputError          3   an input is missing, empty, corrupt, of the wrong kind
  MismatchError       4   inputs that do not fit together
  NumericalError      5   NaN or infinity where none may be
  StorageError        6   disk full, folder read-only or gone
  BusyError           7   another run holds that output
  Verdict             8   a verdict that was asked for came out negative
  Stopped       128 + n   ended by signal n, state saved first
  Elsewhere           n   rank 0 of the same run ended with n and has said why
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Sequence

MANY = 12
"""Names beyond which an error lists only those nearest to a mistyped one."""
SHOWN = 40
"""Names of which a list of what is known is cut."""


def printable(text: str) -> str:
    """Return text as one line that a terminal shows as it is.

    >>> print(printable("é\\n\\x1b[2J"))
    é\\n\\x1b[2J
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """Return text of several lines, each as a terminal shows it as it is.

    >>> print(printable_lines("a\\n\\x1b[2J"))
    a
    \\x1b[2J
    """
    return "\n".join(
        "\t".join(printable(cell) for cell in line.split("\t")) for line in text.split("\n")
    )


class AdvkitError(Exception):
    """A failure that a person can act on: its message is one line and says what to do.

    Names of files, which may hold anything, are spelt out in it.
    """

    code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


class UsageError(AdvkitError):
    """The command line or the configuration asks for something that does not exist."""

    code = 2


class InputError(AdvkitError):
    """An input file or record cannot be used."""

    code = 3


class MismatchError(AdvkitError):
    """Inputs are each fine but do not belong together."""

    code = 4


class NumericalError(AdvkitError):
    """A number that must be finite is not."""

    code = 5


class StorageError(AdvkitError):
    """The disk or the folder refuses to take the result."""

    code = 6


class BusyError(AdvkitError):
    """Another process is writing the same output."""

    code = 7


class Verdict(AdvkitError):
    """The work is done and the answer that was asked for is no."""

    code = 8


class Elsewhere(AdvkitError):
    """Another process of the same run failed and has said so."""

    def __init__(self, code: int) -> None:
        super().__init__("rank 0 failed")
        self.code = code


class Stopped(AdvkitError):
    """A signal asked the process to end."""

    def __init__(self, signum: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.code = 128 + signum


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that does not exist, with its nearest neighbours.

    >>> str(unknown("method", "adrr", ["adr", "at", "trades"]))
    "unknown method 'adrr': did you mean 'adr'? (known: adr, at, trades)"
    """
    names = sorted(known)
    # Below difflib's 0.6: in names as short as these one wrong letter weighs much.
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = " or ".join(repr(word) for word in near)
    question = f"did you mean {hint}? " if near else ""
    known = f"(known: {few(names, SHOWN)})" if not near or len(names) <= MANY else ""
    return UsageError(f"unknown {what} {brief(name)!r}: {question}{known}".rstrip())


def brief(value: object, width: int = 160) -> str:
    """Return what a library or a foreign file says as one printable line of bounded length.

    >>> brief(ValueError("first\\nsecond"))
    'first'
    >>> brief(KeyError()), brief("x" * 9, width=4)
    ('KeyError', 'xxx…')
    """
    line = next(iter(str(value).splitlines()), "") or type(value).__name__
    line = printable(line[:width])
    return line if len(line) < width else f"{line[: width - 1]}…"


def storage(error: OSError, path: object) -> AdvkitError:
    """Translate an operating-system error met while writing `path`."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file-size limit is reached",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.ENOENT: "the folder is gone",
        errno.ENOTDIR: "a file is in the place of its folder",
        errno.ELOOP: "a link is in its place, or links lead in a circle",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    # How /proc, among others, answers: the folder is there.
    if error.errno == errno.ENOENT and _stands_in_a_folder(path):
        reason = "nothing can be made in its folder"
    return StorageError(f"cannot write {path}: {reason}; earlier files are intact")


def _stands_in_a_folder(path: object) -> bool:
    try:
        return os.path.isdir(os.path.dirname(os.path.abspath(str(path))))
    except OSError:  # the working directory itself is gone
        return False


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are.

    >>> few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(brief(name) for name in names[:most]) + rest

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
import re
from collections.abc import Iterable, Sequence

MANY = 12
"""Names beyond which an error lists only those nearest to a mistyped one."""
SHOWN = 40
"""Names of which a list of what is known is cut."""
CLOSE, SURE, AS_NEAR = 0.7, 0.8, 0.1
"""Likeness (difflib's, in [0, 1]) of a neighbour, of one beyond doubt, and between equals."""
CLOSE_SHORT, FEW = 0.62, 4
"""The first of them for names of so few letters, in which one slip weighs more."""
SHORT = 3
"""Letters that an abbreviation has at least."""


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


def unknown(
    what: str, name: str, known: Iterable[str], meant: Iterable[str] | None = None
) -> UsageError:
    """Return the error for a name that does not exist, with its nearest neighbours.

    >>> str(unknown("method", "adrr", ["adr", "at", "trades"]))
    "unknown method 'adrr': did you mean 'adr'? (known: adr, at, trades)"

    Args:
        what: kind of thing that was named.
        name: as typed.
        known: every name that there is.
        meant: its neighbours, where the caller knows more than the names say.
    """
    names = sorted(known)
    asked = did_you_mean(near(name, names) if meant is None else meant)
    listed = f"(known: {few(names, SHOWN)})" if not asked or len(names) <= MANY else ""
    words = [f"unknown {what} {brief(name)!r}" + (":" if asked else ""), asked, listed]
    return UsageError(" ".join(word for word in words if word))


def did_you_mean(names: Iterable[str]) -> str:
    """Return the question after the neighbours of a mistyped name; empty where it has none.

    >>> did_you_mean(["adr", "adaad"])
    "did you mean 'adr' or 'adaad'?"
    """
    hint = " or ".join(repr(word) for word in names)
    return f"did you mean {hint}?" if hint else ""


def near(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three names that may have been meant, the nearest first.

    Case, dashes, underscores and dots make no difference. A name of the same stem, the word before
    the first dash, comes before all others; where nothing is very near, a name may also be short
    for the one typed.

    >>> near("ADR", ["adr", "at"]), near("ard-wb", ["ard-wa", "iad-wa"])
    (['adr'], ['ard-wa'])
    >>> near("wideresnet", ["resnet18", "wrn"]), near("calib", ["calibration", "classes"])
    (['wrn'], ['calibration'])
    """
    typed, names = _folded(name), {_folded(word): word for word in sorted(known, reverse=True)}
    if not typed:
        return []
    if typed in names:
        return [names[typed]]
    match = difflib.SequenceMatcher(b=typed, autojunk=False)
    likeness = {}
    for folded, word in names.items():
        match.set_seq1(folded)
        likeness[word] = match.ratio()
    least = CLOSE if len(typed) > FEW else CLOSE_SHORT
    begins = [w for folded, w in names.items() if len(typed) >= SHORT and folded.startswith(typed)]
    close = [word for word in names.values() if likeness[word] >= least or word in begins]
    if all(likeness[word] < SURE for word in close):
        close = [names[folded] for folded in names if _short_for(folded, typed)] or close
    stem = _stem(name)
    close = [word for word in close if _stem(word) == stem] or close
    best = max((likeness[word] for word in close), default=0)
    ranked = sorted(close, key=lambda word: (-likeness[word], word[0] != name[0], word))
    return [word for word in ranked if likeness[word] >= best - AS_NEAR][:3]


def same(name: str, other: str) -> bool:
    """Whether two names differ in case, dashes, underscores and dots at most.

    >>> same("--Batch_Size", "batch-size"), same("at", "adr")
    (True, False)
    """
    return _folded(name) == _folded(other)


def _folded(name: str) -> str:
    return re.sub(r"[-_.\s]", "", name.casefold())


def _stem(name: str) -> str:
    return re.split(r"[-_.\s]", name.casefold().lstrip("-"))[0]


def _short_for(short: str, typed: str) -> bool:
    """Whether a name's letters, of which there are half as many at most, stand in another in order.

    Both begin with the same one: `wrn` is short for `wideresnet`.
    """
    if not SHORT <= len(short) <= len(typed) / 2 or short[0] != typed[0]:
        return False
    letters = iter(typed)
    return all(letter in letters for letter in short)


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

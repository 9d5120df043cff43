"""Cases in a forked child: a crash, a hang, an allocation or an action is seen and named."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEMORY = 768 << 20
"""Bytes of address space that a child may take beyond what it starts with."""
PATIENCE = 60.0
"""Seconds after which a case counts as a hang."""
ACTIONS = (
    "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty",
    "subprocess.Popen", "socket.connect", "socket.bind", "os.remove", "os.rename", "os.mkdir",
    "os.rmdir", "os.symlink", "os.link", "shutil.rmtree", "ctypes.dlopen",
)  # fmt: skip
"""What no reader has any business to do (names of CPython's audit events)."""


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_acting: list[str] | None = None
"""Forbidden things done since `watching` began; None while nobody looks."""


@contextmanager
def watching() -> Iterator[list[str]]:
    """Give a list that fills with the forbidden things done in the block (in a child only)."""
    global _acting
    _acting = []
    try:
        yield _acting
    finally:
        _acting = None


@dataclass
class Outcomes:
    """How often cases came out how, and those that broke a promise."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, case: int, outcome: str, detail: str, seconds: float = 0.0) -> None:
        """Count one case."""
        self.counts[outcome] += 1
        self.slowest = max(self.slowest, seconds)
        if outcome not in ("refused", "same", "sound"):
            self.violations.append(f"case {case}: {outcome}: {detail}")


def run(
    cases: Sequence[int],
    work: Callable[[int], tuple[str, str]],
    *,
    patience: float = PATIENCE,
) -> Outcomes:
    """Do the cases in children, a new one where one died.

    Args:
        cases: numbers of the cases.
        work: does one and returns (outcome, detail); what it raises is a violation.
        patience: seconds for one case.
    """
    found = Outcomes()
    left = list(cases)
    while left:
        done = 0
        for case, outcome, detail, seconds in _child(left, work, patience):
            found.add(case, outcome, detail, seconds)
            done += 1
        left = left[done:]
    return found


def _child(
    cases: Sequence[int],
    work: Callable[[int], tuple[str, str]],
    patience: float,
) -> Iterator[tuple[int, str, str, float]]:
    """Yield the outcomes of cases until the child ends, the last one being why if it died."""
    receive, send = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about forking beside threads: the child uses none
        pid = os.fork()
    if pid == 0:
        os.close(receive)
        _serve(send, cases, work)
    os.close(send)
    begun = 0
    try:
        for line in _lines(receive, patience):
            yield tuple(json.loads(line))
            begun += 1
        hung = False
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        hung = True
    finally:
        os.close(receive)
        _, status = os.waitpid(pid, 0)
    if begun < len(cases):
        code = os.waitstatus_to_exitcode(status)
        why = signal.Signals(-code).name if code < 0 else f"exit {code}"
        detail = f"no answer in {patience:g} s" if hung else why
        yield cases[begun], "hang" if hung else "crash", detail, patience if hung else 0.0


def _lines(receive: int, patience: float) -> Iterator[bytes]:
    """Yield lines of a pipe.

    Raises:
        TimeoutError: none came for too long.
    """
    held = b""
    while True:
        while b"\n" in held:
            line, held = held.split(b"\n", 1)
            yield line
        if not select.select([receive], [], [], patience)[0]:
            raise TimeoutError
        more = os.read(receive, 1 << 16)
        if not more:
            return
        held += more


def _serve(send: int, cases: Sequence[int], work: Callable[[int], tuple[str, str]]) -> None:
    """Do cases in the child, and never return from it."""
    code = 1
    try:
        warnings.simplefilter("ignore")  # as the command line does
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        if "torch" in sys.modules:  # its threads did not come along: never wait for them
            sys.modules["torch"].set_num_threads(1)
        faulthandler.disable()  # the parent names the signal
        sys.addaudithook(_note)
        _bound_memory()
        for case in cases:
            begun = time.perf_counter()
            outcome = _outcome(work, case)
            line = json.dumps([case, *outcome, time.perf_counter() - begun]) + "\n"
            os.write(send, line.encode())
        code = 0
    finally:
        os._exit(code)


def _outcome(work: Callable[[int], tuple[str, str]], case: int) -> tuple[str, str]:
    try:
        return work(case)
    except MemoryError as error:
        return "memory", _where(error)
    except BaseException as error:  # SystemExit and panics of Rust too
        return "exception", _where(error)


def _where(error: BaseException) -> str:
    """Return the error in one line, with where in advkit it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if "advkit/" in each.filename]
    notes = " ".join(getattr(error, "__notes__", []))[:1500]
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}: {str(error)[:400]!r}{place}{notes}"


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _acting is None:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
    if writes or event in ACTIONS:
        _acting.append(f"{event} {str(arguments)[:80]}")


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

"""Runs command lines in processes that end where a plan says: `python -m tests.faults._driver`.

One warm process imports everything once. For each line of JSON that it reads it forks a child,
which puts the plan's patches in place and runs one advkit command line. So a kill is a real
SIGKILL of a real process, costs no import, and production code knows nothing of it. Alone, with
`python -m tests.faults._driver one PLAN WORD...`, it runs one command line in this process.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM = (
    "advkit.training.run", "advkit.evaluation.run", "advkit.search.temperature",
    "advkit.softlabels.labelling", "advkit.softlabels.merge", "advkit.evaluation.merge",
    "advkit.attacks.upstream.autoattack", "advkit.analyses", "advkit.cli.app", "sklearn.datasets",
    "torch._dynamo",
)  # fmt: skip


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose(folder: Path, instead: str) -> None:
    """Remove a folder, and put a file in its place if there is a text for it."""
    shutil.rmtree(folder)
    if instead:
        folder.write_text(instead)


def plain_user() -> None:
    """Give up what root may: it owns its files, and other users' are closed to it."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # Linux' third version of the call, this process
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def at_call(number: int, act: Callable[[], None], only: str) -> Callable[[object], bool]:
    """Return what counts calls about names that match `only` and acts in the one with a number."""
    seen = [0]

    def count(about: object) -> bool:
        if not re.search(only, str(about)):
            return False
        seen[0] += 1
        if seen[0] == number:
            act()
            return True
        return False

    return count


def _half_written(hit: Callable[[object], bool]) -> None:
    """In the middle of writing a temporary file: half its bytes are there."""
    from advkit.artifacts import hdf5

    for name in ("write_bytes", "write_text"):
        real = getattr(Path, name)

        def write(self: Path, data: Any, *more: Any, _real: Any = real, **named: Any) -> int:
            if not self.name.endswith(".tmp"):
                return int(_real(self, data, *more, **named))
            _real(self, data[: len(data) // 2], *more, **named)
            hit(self.name)
            return int(_real(self, data, *more, **named))

        setattr(Path, name, write)
    sink = hdf5._Sink.write

    def write_block(self: Any, data: Any, /) -> int:
        hit(self.name)
        return sink(self, data)

    hdf5._Sink.write = write_block  # type: ignore[method-assign]


def _around(module: Any, name: str, before: Any = None, after: Any = None) -> None:
    real = getattr(module, name)

    def call(*arguments: Any, **named: Any) -> Any:
        if before:
            before(arguments[-1])
        found = real(*arguments, **named)
        if after:
            after(arguments[-1])
        return found

    setattr(module, name, call)


def _line(hit: Callable[[object], bool]) -> None:
    """In the middle of a line that is appended to a log."""
    from advkit.artifacts import files

    real = files.append_line

    def append(path: Path, line: str) -> None:
        before = path.read_bytes() if path.exists() else b""
        path.write_bytes(before + line[: len(line) // 2].encode())
        hit(path)
        path.write_bytes(before)
        real(path, line)

    files.append_line = append


def _step(hit: Callable[[object], bool]) -> None:
    """Between the backward pass and the update of the weights."""
    import torch

    _around(torch.optim.SGD, "step", before=hit)


def _poisoned(x: Any) -> Any:
    x = x.clone()
    x.view(-1)[0] = float("nan")
    return x


def _poisoned_gradient(found: Any, model: Any) -> Any:
    """The loss as it was, and a gradient that is not a number: d√w/dw at 0."""
    loss, seen = found
    weight = next(model.parameters())
    return loss + (weight.sum() * 0).abs().sqrt(), seen


def poison(place: str, number: int) -> None:
    """Let a NaN turn up at a call: input (pixels), loss, gradient, targets."""
    modules, name = {
        "input": (
            ["evaluation.run", "softlabels.labelling", "training.selection", "images.batches"],
            "pixels",
        ),
        "loss": ([f"objectives.{each}" for each in OBJECTIVES], "outer"),
        "gradient": ([f"objectives.{each}" for each in OBJECTIVES], "outer"),
        "targets": (["labels.adr", "labels.soft"], "targets"),
    }[place]
    calls = [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)  # parts are known by their signatures
        def call(*arguments: Any, **named: Any) -> Any:
            found = real(*arguments, **named)
            calls[0] += 1
            if calls[0] != number:
                return found
            if place == "gradient":
                return _poisoned_gradient(found, arguments[0])
            return (found[0] * float("nan"), found[1]) if place == "loss" else _poisoned(found)

        call.__kwdefaults__ = real.__kwdefaults__
        return call

    for module in (importlib.import_module(f"advkit.{each}") for each in modules):
        setattr(module, name, wrap(getattr(module, name)))


OBJECTIVES = ("natural", "at", "trades", "mart")
POINTS: dict[str, Callable[[Callable[[object], bool]], None]] = {
    "temporary": _half_written,
    "fsync": lambda hit: _around(os, "fsync", before=hit),
    "rename": lambda hit: _around(os, "replace", before=hit),
    "renamed": lambda hit: _around(os, "replace", after=hit),
    "unlink": lambda hit: _around(Path, "unlink", before=hit),
    "line": _line,
    "step": _step,
}
"""Named points: half a temporary file written, before a sync, before and after a rename, before
a file is removed, half a log line written, before a weight update."""


def prepare(plan: dict[str, Any]) -> None:
    """Put the plan's patches in place.

    kill: [point, call, part of the name]; set: {"module.NAME": value}; memory: MiB that may be
    added to what the process has; file: bytes that a file may have; absent: packages that are
    not installed, and what forgets that it has seen them; lose: [point, call, folder, instead],
    a folder that goes; nan: [place, call], see `poison`; signals: [point, call, signal, part of
    the name] each; plain: whether permissions are to count, as they do for all but root; at: when
    it may begin, on the monotonic clock, which all processes share; ignore: signals that are
    ignored from the start.
    """
    if plan.get("plain"):
        plain_user()
    if "at" in plan:
        time.sleep(max(0.0, plan["at"] - time.monotonic()))
    for name, value in plan.get("set", {}).items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    if "kill" in plan:
        point, number, *only = plan["kill"]
        POINTS[point](at_call(number, die, *only or [""]))
    for name in plan.get("ignore", []):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    for point, number, name, *only in plan.get("signals", []):
        raised = getattr(signal, name)
        act = functools.partial(signal.raise_signal, raised)
        POINTS[point](at_call(number, act, *only or [""]))
    if "lose" in plan:
        point, number, path, instead = plan["lose"]
        POINTS[point](at_call(number, lambda: lose(Path(path), instead), ""))
    if "nan" in plan:
        poison(*plan["nan"])
    for package in plan.get("absent", []):
        sys.modules[package] = None  # type: ignore[assignment]
        for loaded in [each for each in sys.modules if each.startswith(f"{package}.")]:
            del sys.modules[loaded]
    for user in plan.get("forget", []):
        folder, _, name = user.rpartition(".")
        sys.modules.pop(user, None)
        if hasattr(sys.modules.get(folder), name):
            delattr(sys.modules[folder], name)
    if "file" in plan:
        # What lies on the disk already stays; the kernel refuses to write beyond this offset.
        resource.setrlimit(resource.RLIMIT_FSIZE, (plan["file"], resource.RLIM_INFINITY))
    if "memory" in plan:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = used + (plan["memory"] << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def child(job: dict[str, Any]) -> int:
    """Run one command line with the streams, folder and patches of a job."""
    os.setsid()
    streams = {0: ("stdin", os.O_RDONLY), 1: ("stdout", None), 2: ("stderr", None)}
    for number, (name, flags) in streams.items():
        flags = flags if flags is not None else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(job.get(name) or os.devnull, flags, 0o644), number)
    os.chdir(job["cwd"])
    os.environ.update(job.get("env", {}))
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", closefd=False)
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    from advkit.__main__ import main

    prepare(job.get("plan", {}))
    code = main(job["words"])
    sys.stdout.flush()
    return code


def serve() -> None:
    """Fork a child for each line; answer with its id, or, asked to wait, with how it ended."""
    ended: dict[int, int] = {}
    for module in WARM:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            print(json.dumps(_waited(job["wait"], job["timeout"], ended)), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = child(job)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)


def _waited(pid: int, timeout: float, ended: dict[int, int]) -> int | None:
    until = time.monotonic() + timeout
    while pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended[found] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > until:
            return None
        else:
            time.sleep(0.002)
    return ended[pid]


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        from advkit.__main__ import main

        prepare(json.loads(sys.argv[2]))
        sys.exit(main(sys.argv[3:]))
    serve()

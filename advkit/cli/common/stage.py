"""What every command does around its work: inputs, records, errors, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common.options import Command, Given
from advkit.cli.common.progress import reporter, say
from advkit.config import resolve
from advkit.errors import (
    AdvkitError,
    Elsewhere,
    InputError,
    MismatchError,
    Stopped,
    StorageError,
    UsageError,
)
from advkit.parallel import ranks
from advkit.runtime import memory
from advkit.runtime.reporting import Reporter

if TYPE_CHECKING:
    import torch

    from advkit.images.image_set import ImageSet

EMPTY = "\0"
"""Marks an empty stdin among the inputs; no path can start with it."""
TINY = ("small-cnn", "resnet8")
PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Packages that are installed under another name than they are imported by."""
NO_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "Unable to allocate",
             "could not create a primitive", "could not create a memory")  # fmt: skip
"""How torch's, numpy's and oneDNN's own errors tell of it on a CPU."""
PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")
"""How gloo tells of a rank that is gone."""


class ReaderGone(AdvkitError):
    """The process that read our stdout went away."""

    code = 141


class Reported(AdvkitError):
    """A failure that has been printed already; only its exit code is left to pass on."""

    def __init__(self, first: AdvkitError) -> None:
        super().__init__(str(first))
        self.code = first.code


def call(command: Command, given: Given) -> None:
    """Run a command and print its records; what libraries print goes to stderr.

    Raises:
        AdvkitError: as the work does; `guarded` turns it into an exit code.
    """
    stdout = sys.stdout
    if not (given.get("verbose") or given.get("debug")):
        warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        for record in command.run(given) or ():
            emit(stdout, record, bool(given.get("json")))


def guarded(stage: str, debug: bool, work: Callable[[], Any]) -> int:
    """Run `work` and return its exit code, with one line on stderr for a failure."""
    try:
        try:
            code = work()
            sys.stdout.flush()
        except BrokenPipeError:
            _abandon_stdout()
            raise ReaderGone("the reader of stdout went away; files are in place") from None
        return code if isinstance(code, int) else 0
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
            traceback.print_exc()
        say(stage, ("" if isinstance(error, Stopped) else "error: ") + str(error))
        return error.code
    except KeyboardInterrupt:
        say(stage, "ended by SIGINT")
        return 130
    except OSError as error:
        if debug:
            traceback.print_exc()
        _abandon_stdout()
        if error.errno == errno.ENOSPC:  # files translate theirs, so this is the help text
            say(stage, "error: cannot write to stdout: no space")
            return StorageError.code
        say(stage, f"error: {failure(error)}")
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        found = failure(error)
        say(stage, f"error: {found}")
        return found.code


def failure(error: Exception) -> AdvkitError:
    """Return what a failure that nobody foresaw means for a person, in one line."""
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = PACKAGES.get(top := error.name.partition(".")[0], top)
        return UsageError(
            f"the package {package} is not installed: python -m pip install {package}"
        )
    if type(error).__name__ == "OutOfMemoryError":
        return AdvkitError("out of memory on the device: lower --batch-size")
    if isinstance(error, MemoryError) or any(words in first for words in NO_MEMORY):
        return AdvkitError("out of memory: lower --batch-size, or free some")
    if ranks.world() > 1 and any(words in str(error) for words in PEER_GONE):
        return AdvkitError("another process of the run has ended: go on with --resume")
    return AdvkitError(
        f"{type(error).__name__}: {first} (run it again with --debug for the traceback)"
    )


def emit(stdout: TextIO, record: Record | str, as_json: bool) -> None:
    """Print one record: a JSON line, or a readable form at a terminal.

    Raises:
        ReaderGone: nobody reads any more.
        StorageError: the record cannot be written (a full disk behind stdout).
    """
    try:
        if isinstance(record, str):
            stdout.write(record)
        elif as_json or not stdout.isatty():
            stdout.write(records.line(record) + "\n")
        else:
            _show(stdout, record)
        stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        raise ReaderGone("the reader of stdout went away; files are in place") from None
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

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for key, value in record.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        if isinstance(value, dict | list):
            shown = json.dumps(value, ensure_ascii=False, indent=1)
        table.add_row(key, shown)
    Console(file=stdout).print(table)


def sources(given: Given, wanted: str) -> Iterator[str]:
    """Yield the inputs one by one, as text: paths named, else lines of stdin; `-` is stdin.

    Raises:
        UsageError: nothing was named and stdin is a terminal.
        InputError: stdin is empty.
    """
    named = given.get("files") or []
    for path in named:
        if path == "-":
            yield from _stdin(wanted)
        else:
            yield path
    if not named:
        if sys.stdin is not None and sys.stdin.isatty():
            raise UsageError(f"no {wanted} given: name a file, or pipe in the stage before")
        yield from _stdin(wanted)


def _stdin(wanted: str) -> Iterator[str]:
    """Yield lines; an empty stdin yields a marker, so that inputs behind it still get a turn."""
    seen = False
    for raw in sys.stdin.buffer if sys.stdin is not None else ():
        text = raw.decode("utf-8", errors="surrogateescape").strip()
        if text:
            seen = True
            yield text
    if not seen:
        yield f"{EMPTY}{wanted}"


def record_of(text: str, kinds: tuple[str, ...]) -> Record:
    """Return an input as a record of a usable kind.

    Raises:
        InputError: stdin was empty, a broken record, or one of another kind.
    """
    if text.startswith(EMPTY):
        raise InputError(f"no {text[len(EMPTY) :]} on stdin: the stage before gave nothing")
    record = records.parse(text)
    records.wanted(record, kinds)
    return record


def each(
    given: Given,
    stage: str,
    wanted: tuple[str, ...],
    work: Callable[[Record], Record | None],
    verdict: Callable[[Record], None] | None = None,
    noun: str = "",
) -> Iterator[Record]:
    """Do the work for every input; one that fails is reported and the rest go on.

    Args:
        given: the command line.
        stage: how the command is called in messages.
        wanted: kinds of records that the work can use.
        work: gives the record of one input, None where another process gives it.
        verdict: sees each record after it was printed and may raise.
        noun: what an input is called; its kinds if empty.

    Raises:
        Reported: with the exit code of the first failure.
    """
    first: AdvkitError | None = None
    for text in sources(given, noun or " or ".join(wanted)):
        try:
            record = work(record_of(text, wanted))
            if record is None:
                continue
            yield record
            if verdict is not None:
                verdict(record)
        except (Stopped, ReaderGone):
            raise
        except Exception as error:
            if given.get("debug"):
                traceback.print_exc()
            found = error if isinstance(error, AdvkitError) else failure(error)
            say(stage, f"error: {found}")
            first = first or found
    if first is not None:
        raise Reported(first)


def speaker(stage: str, given: Given) -> Reporter:
    """Return the reporter of a stage; of several processes that torchrun started, one speaks."""
    if ranks.rank() > 0 and not given.get("shard"):
        return Reporter()
    return reporter(stage, quiet=bool(given.get("quiet")))


def device(text: str | None) -> torch.device:
    """Choose where to compute: under torchrun each process has a CUDA device of its own.

    Raises:
        UsageError: no such device here; there is no silent fallback to the CPU.
    """
    import torch

    name = text or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.world() > 1:
        name = f"cuda:{ranks.local_rank()}"
    kind, _, number = name.partition(":")
    there = {
        "cpu": 0 if number else 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind not in there or (number and not number.isdigit()):
        raise UsageError(f"unknown device {name!r}: auto, cpu, cuda, cuda:N or mps")
    if int(number or 0) >= there[kind]:
        raise UsageError(f"--device {name}: there is no such device here")
    if kind == "cpu":
        memory.keep()
    if kind == "cuda":  # fp32 means fp32, and the same seed the same result
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return torch.device(name)


def threads(given: Given, arch: str) -> int:
    """Choose the CPU threads: given, or 1 for tiny nets, where more only get in the way.

    The processes of torchrun on one machine share its cores.
    """
    if given.get("threads") is not None:
        if given["threads"] < 1:
            raise UsageError("--threads must be at least 1")
        return int(given["threads"])
    return 1 if arch in TINY else ranks.cores()


def require_one(given: Given) -> None:
    """Refuse `-o` for several inputs named on the command line, before any work.

    Raises:
        UsageError: `-o` was given with more than one file.
    """
    if given["out"] and len(given.get("files") or []) > 1:
        raise UsageError(f"-o {given['out']} holds one result: call it once for each input")


def output(given: Given) -> Path | None:
    """Return where `-o` puts the one result it is for, None if it was not given.

    Raises:
        UsageError: another input of this call has used it.
    """
    if not given["out"]:
        return None
    if given.get("out used"):
        raise UsageError(f"-o {given['out']} holds one result: call it once for each input")
    given["out used"] = True
    return Path(given["out"])


def require_file_name(out: Path) -> None:
    """Check where an HDF5 output is to go.

    Raises:
        UsageError: its name does not end in .h5.
        StorageError: a folder is in its place.
    """
    if out.suffix != ".h5":
        raise UsageError(f"-o {out}: the name must end in .h5")
    if out.is_dir():
        raise StorageError(f"cannot write {out}: a folder is in its place")


def use_threads(count: int) -> None:
    """Set torch's CPU threads."""
    import torch

    torch.set_num_threads(count)


def chosen(given: Given, names: Sequence[str]) -> Given:
    """Return the named options as they were given."""
    return {name: given.get(name) for name in names}


def location(given: Given, source: Record, path: Path, info: Mapping[str, Any]) -> str:
    """Find a checkpoint's data: given, else the record says, else the run's configuration.

    Checkpoints hold no path, so that equal work gives equal bytes wherever it is done.
    """
    name = str(info["data"]["name"])
    if given.get("data"):
        return str(given["data"])
    if isinstance(source.get("data"), str):
        return str(source["data"])
    beside = path.parent / "config.toml"
    if beside.exists():
        place = str(resolve.read(beside).get("data", name))
        if registry.split_path(place)[0] == name:
            return place
    return name


def images(given: Given, data_set: str, info: Mapping[str, Any], split: str) -> ImageSet:
    """Load a split of the data that a checkpoint is used on, at the size it was trained at."""
    from advkit import data

    size = given.get("image_size")
    name = registry.split_path(data_set)[0]
    if size is None and name == info["data"]["name"]:
        size = info["config"].get("image_size")
    elif size is None and "image_size" in data_options(name):
        size = info["model"]["input_shape"][1]
    listed = given.get("image_list") if split == "test" else None
    return data.load(data_set, split, root=given["data_root"], image_size=size, image_list=listed)


def data_options(name: str) -> set[str]:
    """Return the options that a data set has."""
    return {option.name for option in registry.part("data", name).options}


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Check that the file in place was made by the same work.

    Raises:
        MismatchError: it was not; the message lists what differs.
    """
    keys = sorted(before.keys() | now.keys())
    changed = [f"{k}: {before.get(k)} -> {now.get(k)}" for k in keys if before.get(k) != now.get(k)]
    if changed:
        raise MismatchError(
            f"{out} was made otherwise ({', '.join(changed)}): choose another -o, or --overwrite"
        )

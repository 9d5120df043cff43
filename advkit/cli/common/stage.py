"""What every command does around its work: inputs, records, errors, exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common.failures import ReaderGone, Reported, failure
from advkit.cli.common.options import Given
from advkit.cli.common.progress import say
from advkit.config import resolve
from advkit.errors import (
    AdvkitError,
    InputError,
    Stopped,
    StorageError,
    UsageError,
)

if TYPE_CHECKING:
    from advkit.images.image_set import ImageSet

EMPTY = "\0"
"""Marks an empty stdin among the inputs; no path can start with it."""


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

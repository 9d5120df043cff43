"""The stage that exports a checkpoint: a folder in a format that others read, whole or absent."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from advkit import models
from advkit.artifacts import files, identity, locks
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.doors import card, graphs
from advkit.doors.formats import WRITERS, Outgoing
from advkit.doors.options import ExportOptions
from advkit.errors import InputError, MismatchError, UsageError, brief, storage
from advkit.runtime import reading, signals
from advkit.runtime.reporting import Reporter

BOOK = "advkit.json"
"""File of an exported folder that says what it was made from."""


def carry_out(path: Path, options: ExportOptions, reporter: Reporter) -> Record:
    """Export a checkpoint, or find that done; return the record.

    Raises:
        InputError: no checkpoint or logits file.
        MismatchError: results of another checkpoint, or something else lies in the place.
        NumericalError: a graph gives other logits than the net.
        UsageError: a package is missing.
    """
    started = time.monotonic()
    if options.out:
        place = files.named(Path(options.out))
    else:
        place = files.named(path).with_name(f"{path.stem}.{options.to}")
    files.require_apart([place], (path, *options.logits))
    _require_outside(place, (path, *options.logits))
    if options.to == "onnx":
        graphs.require_onnx()
    net, info = models.load_finite(path)
    rows = card.results(info, options.logits, path)
    for path_of, row in zip(options.logits, rows, strict=True):
        if options.to == "robustbench" and not card.on_board(info, row):
            reporter.warn(
                f"{path_of}: not in the entry's robust accuracy, which is of AutoAttack's standard "
                "version on the checkpoint's data, norm and eps"
            )
    work = {"checkpoint": info["digest"], "to": options.to,
            "results": [row["digest"] for row in rows]}  # fmt: skip
    with locks.lock(place):
        if _there(place, work, options.overwrite):
            reporter.note(f"{place}: already done")
            seconds = 0.0
        else:
            _write(place, Outgoing(net, net.state_dict(), info, rows), work)
            seconds = round(time.monotonic() - started, 3)
        book = _book(place)
    return records.make(
        "export",
        place / str(book["main"]),
        str(book["digest"]),
        to=options.to,
        folder=records.relative(place),
        checkpoint=records.relative(path),
        arch=info["arch"],
        method=info["method"],
        data=info["data"]["name"],
        seconds=seconds,
    )


def _require_outside(place: Path, inputs: Sequence[Path]) -> None:
    """Check that the folder to be written, and with --overwrite replaced, holds nothing in use.

    Raises:
        UsageError: an input lies in it, or the working directory.
    """
    whole = place.resolve()
    for path in (*inputs, Path.cwd()):
        if whole in (path.resolve(), *path.resolve().parents):
            raise UsageError(f"-o {place}: {path} lies in it: choose a folder of its own")


def _there(place: Path, work: Mapping[str, object], overwrite: bool) -> bool:
    """Whether the same export lies there.

    Raises:
        MismatchError: something else does, and it is not to be replaced: what is no export is
            never removed, whatever the options.
    """
    if not place.exists():
        return False
    if not (place / BOOK).is_file():
        if place.is_dir() and not any(place.iterdir()):
            return False
        raise MismatchError(f"{place} is there and no export: choose another -o")
    if overwrite:
        return False
    before = _book(place)
    identity.require_same({key: before.get(key) for key in work}, work, place)
    return True


def _book(place: Path) -> Mapping[str, object]:
    """Return what an export says of itself.

    Raises:
        InputError: it is corrupt.
    """
    try:
        book = json.loads(reading.text(place / BOOK, reading.SETTINGS))
        if isinstance(book, dict) and {"main", "digest"} <= book.keys():
            return book
        reason: object = "it lacks keys"
    except (OSError, ValueError, RecursionError) as error:
        reason = brief(error)
    raise InputError(f"{place / BOOK}: corrupt: {reason}; --overwrite makes it anew")


def _write(place: Path, out: Outgoing, work: Mapping[str, object]) -> None:
    """Write the folder under another name and put it in place.

    Raises:
        StorageError: disk full, folder read-only or gone.
    """
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    # We hold the place, so that what lies there under such names is of writers that died.
    for ending in ("tmp", "old"):
        for stale in place.parent.glob(f".{glob.escape(place.name)}.*.{ending}"):
            _remove(stale)
    try:
        temporary.mkdir(parents=True)
        main = WRITERS[str(work["to"])](out, temporary)
        book = {**work, "main": main.relative_to(temporary).as_posix(), "digest": _digest(main)}
        (temporary / BOOK).write_text(json.dumps(book, indent=2) + "\n", encoding="utf-8")
        with signals.whole():
            if place.exists():
                place.rename(old)
            temporary.rename(place)
    except OSError as error:
        raise storage(error, place) from error
    finally:
        for leftover in (temporary, old):
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _digest(main: Path) -> str:
    """Return the digest of the file, or of a folder's weights and configuration."""
    parts = sorted(main.glob("*")) if main.is_dir() else [main]
    sha = hashlib.sha256()
    for part in parts:
        sha.update(reading.content(part, part.stat().st_size))
    return f"sha256:{sha.hexdigest()}"

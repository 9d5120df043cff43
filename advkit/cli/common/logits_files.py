"""Logits files in place: found again, merged from shards, and their records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit.artifacts import identity
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common import machine, shards
from advkit.cli.common.options import Given

if TYPE_CHECKING:
    from advkit.artifacts import descriptions
    from advkit.artifacts.hdf5 import Logits
    from advkit.evaluation.settings import AttackSettings


def found(out: Path, settings: AttackSettings, info: Mapping[str, Any], data: str) -> Logits:
    """Return the file that lies there, if the same work made it.

    Raises:
        MismatchError: other work did; the message says what differs.
    """
    from advkit.artifacts import hdf5
    from advkit.evaluation import passes

    there = hdf5.read_logits(out)
    package = passes.implementation(settings, len(info["data"]["classes"]))
    now = identity.of_work(
        settings.described(), info["digest"], data, package.get("implementation")
    )
    identity.require_same(identity.identity(there.info), now, out)
    return there


def merged(given: Given, paths: Sequence[Path], out: Path) -> Logits:
    """Return the logits of all shards, put in place at `out` or found there.

    Raises:
        MismatchError: not all shards of one evaluation, or something else lies there.
    """
    from advkit.artifacts import hdf5
    from advkit.evaluation import merge, remarks

    reporter = machine.speaker("attack", given)
    if out.exists() and not given["overwrite"]:
        there = hdf5.read_logits(out)
        shards.require_whole(there.info, paths, out)
        reporter.note(f"{out}: already done")
        return there
    logits = merge.logits(paths)
    remarks.of_merged(logits, reporter)
    digest = hdf5.write_logits(out, logits)
    info: descriptions.Logits = {**logits.info, "digest": digest}
    return dataclasses.replace(logits, info=info, path=str(out))


def record(logits: Logits, out: Path, checkpoint: Path | None, seconds: float) -> Record:
    """Return the record of a logits file; `checkpoint` is None where nobody knows it."""
    from advkit.evaluation.verdicts import figures

    info = logits.info
    return records.make(
        "logits",
        out,
        info["digest"],
        **shards.of(checkpoint, out),
        data=info["data"]["name"],
        arch=info["arch"],
        method=info["method"],
        role=info["role"],
        seed=info["parents"][0]["seed"],
        attack_seed=info["seed"],
        **figures(logits),
        **shards.named(info),
        seconds=seconds,
    )

"""The stage that trains: options become one configuration, a run folder, and its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from advkit.artifacts import files
from advkit.artifacts import record as records
from advkit.artifacts.descriptions import ALARMS
from advkit.artifacts.record import Record
from advkit.config import resolve
from advkit.config.machine import computing
from advkit.config.settings import Settings
from advkit.errors import InputError
from advkit.images import extra
from advkit.parallel import world as distributed
from advkit.runtime.reporting import Reporter
from advkit.training import manifest
from advkit.training import run as training
from advkit.training.alarms import CLOSING
from advkit.training.metrics_log import Row
from advkit.training.options import TrainOptions
from advkit.training.run_folder import ROLES, RunFolder
from advkit.training.selection import JUDGED

EMITTED = {"best": ("best",), "final": ("final",), "all": ROLES}
"""`--emit` → the roles whose checkpoints get a record."""


@dataclass(frozen=True)
class Trained:
    """A run that went to its end, and the records of the checkpoints asked for."""

    folder: RunFolder
    records: Sequence[Record]


def train(
    resolved: resolve.Resolved,
    options: TrainOptions,
    speaking: Callable[[], Reporter] = Reporter,
) -> Trained | None:
    """Train one resolved configuration, or find its run done.

    Under torchrun the processes train together, and rank 0 alone returns the run.

    Args:
        resolved: the configuration.
        options: where it goes and how it is begun.
        speaking: makes the reporter of the process that leads.

    Raises:
        AdvkitError: see `errors`; what was trained is kept to go on from.
    """
    device = options.torch_device()
    resolved = resolved.on(device.type)
    chosen = resolved.settings
    loggers = options.loggers
    folder = RunFolder(options.folder(chosen))
    files.exists(folder.path)  # refuses a name that nobody can have
    files.require_apart(folder.replaced(), _inputs(chosen, options))
    world = distributed.start(device)
    reporter = speaking() if world.leads else Reporter()
    threads = options.threads_for(chosen.arch)
    try:
        with computing(device, threads):
            fresh = training.train(
                resolved,
                folder,
                device=device,
                threads=threads,
                data_root=options.root,
                resume=options.going_on,
                overwrite=options.overwrite,
                elastic=options.resume_elastic,
                reporter=reporter,
                world=world,
                loggers=loggers,
            )
    finally:
        distributed.stop()
    if not world.leads:
        return None
    if not fresh:
        reporter.note(f"{folder.path}: already done")
    emitted = list(_records(folder, chosen, options.emit))
    if not emitted:
        raise InputError(
            f"{folder.path}: the run is done, but its {options.emit} checkpoint is gone"
        )
    if fresh:
        _tell(emitted[0], reporter)
    return Trained(folder, emitted)


def _inputs(chosen: Settings, options: TrainOptions) -> Sequence[str | None]:
    """Return the files that a run reads."""
    # A run's own configuration may be read back: it is replaced with --overwrite alone.
    config = options.config if options.overwrite else None
    teachers = (chosen.teacher, chosen.natural_teacher)
    more = [] if chosen.extra_data is None else map(str, extra.files(chosen.extra_data))
    return (chosen.soft_labels, *teachers, chosen.init, *more, config)


def _tell(record: Record, reporter: Reporter) -> None:
    """Say how far the best epoch and the last one lie apart, and what else chose the best."""
    for name in (name for name in JUDGED if name in record):
        reporter.note(
            f"{name.replace('_', ' ')} {record[name]:.3f}, which chooses, and "
            f"{record['robust_accuracy']:.3f} under PGD-10 (validation, epoch {record['epoch']})"
        )
    if CLOSING in record:
        reporter.note(
            f"final: {record['final_robust_accuracy']:.3f} under PGD-10 on cross-entropy, "
            f"{record[CLOSING]:.3f} on the margin (validation)"
        )
    gap = record.get("overfitting_gap")
    if gap is not None:
        reporter.note(
            f"robust accuracy: best {record['best_robust_accuracy']:.3f}, "
            f"final {record['final_robust_accuracy']:.3f}, overfitting gap {gap:.3f} (validation, "
            "PGD-10)"
        )


def _records(folder: RunFolder, chosen: Settings, emit: str) -> Iterator[Record]:
    # With `--wa` the average is what the run is for; `all` names both.
    suffix = "-ema" if chosen.wa and emit != "all" else ""
    # Of files that were seen to belong together: another process may have begun to replace them.
    whole = manifest.finished(folder)
    seconds = round(sum(row["seconds"] for row in whole.rows), 3)
    for role in (f"{role}{suffix}" for role in EMITTED[emit]):
        info = whole.checkpoints.get(role)
        if info is not None:
            figures = {**info["metrics"], **_gap(whole.rows, role), "seconds": seconds}
            yield records.make(
                "checkpoint",
                folder.checkpoint(role),
                info["digest"],
                run=folder.path.resolve().name,
                data=chosen.data,
                arch=chosen.arch,
                method=chosen.method,
                augment=chosen.augment,
                role=role,
                seed=chosen.seed,
                **figures,
            )


def _gap(rows: Sequence[Row], role: str) -> dict[str, float]:
    """Return best, final and their difference on the validation split."""
    key = "val_robust_accuracy" + ("-ema" if role.endswith("-ema") else "")
    # Epochs without an attack (natural training) have no such figure.
    values = [row[key] for row in rows if key in row]
    if not values:
        return {}
    best, final = max(values), values[-1]
    closing = CLOSING + ("-ema" if role.endswith("-ema") else "")
    margin = {CLOSING: rows[-1][closing]} if closing in rows[-1] else {}
    alarms: dict[str, float] = {name: True for name in ALARMS if any(name in row for row in rows)}
    return {
        "best_robust_accuracy": best,
        "final_robust_accuracy": final,
        "overfitting_gap": best - final,
        **margin,
        **alarms,
    }

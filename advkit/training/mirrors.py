"""`--log`: the metrics of a run also in the formats of TensorBoard, spreadsheets and wandb.

`metrics.jsonl` is the record, and what a mirror shows comes from it. So a mirror that fails costs
nothing but itself: it is left out from there on, and a line says so. Begun again, by `--resume`
or anew, every mirror holds all epochs so far, each of them once.
"""

from __future__ import annotations

import csv
import io
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from advkit.artifacts import files
from advkit.errors import UsageError, brief, unknown
from advkit.runtime import reading
from advkit.runtime.reporting import Reporter
from advkit.training.run_folder import RunFolder

Row = Mapping[str, float]
"""A line of `metrics.jsonl`."""
LOGGERS = ("tensorboard", "csv", "wandb")
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""Logger → the package that it needs, which the extra of the same name installs."""


class Mirror(Protocol):
    """Another form of a run's metrics."""

    def begin(self, rows: Sequence[Row]) -> None:
        """Show the epochs that are behind the run."""

    def add(self, row: Row) -> None:
        """Show one more epoch."""

    def close(self) -> None:
        """Write what is still held."""


def names(text: str | None) -> tuple[str, ...]:
    """Return the loggers of `--log`, which are apart by commas.

    >>> names("csv, csv"), names(None)
    (('csv',), ())

    Raises:
        UsageError: no such logger, or its package is not installed.
    """
    wanted = tuple(dict.fromkeys(word.strip() for word in text.split(","))) if text else ()
    for name in wanted:
        if name not in LOGGERS:
            raise unknown("--log", name, LOGGERS)
        if name in PACKAGES and find_spec(PACKAGES[name]) is None:
            raise UsageError(
                f"--log {name}: the package {PACKAGES[name]} is not installed: "
                f"python -m pip install {PACKAGES[name]}"
            )
    return wanted


class Mirrors:
    """All mirrors of a run; with none it does nothing."""

    def __init__(
        self,
        names: Sequence[str] = (),
        folder: RunFolder | None = None,
        config: Mapping[str, object] | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.reporter = reporter or Reporter()
        self.mirrors: dict[str, Mirror] = {}
        if folder is None or not names:
            return
        rows = folder.rows()
        for name in names:
            self._try(name, partial(self._begin, name, folder, config or {}, rows))

    def add(self, row: Row) -> None:
        """Show one more epoch everywhere."""
        self._all(lambda mirror: mirror.add(row))

    def close(self) -> None:
        """Write what is still held."""
        self._all(lambda mirror: mirror.close())

    def _begin(
        self, name: str, folder: RunFolder, config: Mapping[str, object], rows: Sequence[Row]
    ) -> None:
        mirror = self.mirrors[name] = _made(name, folder.path, config)
        mirror.begin(rows)

    def _all(self, work: Callable[[Mirror], None]) -> None:
        for name, mirror in list(self.mirrors.items()):
            self._try(name, partial(work, mirror))

    def _try(self, name: str, work: Callable[[], None]) -> None:
        """Do a mirror's work; one that fails is left out, and training goes on."""
        try:
            work()
        except Exception as error:  # whatever a foreign package raises
            self.mirrors.pop(name, None)
            self.reporter.warn(
                f"--log {name} failed and is left out from here on ({brief(error)}); the run goes "
                "on, and metrics.jsonl holds all epochs"
            )


def _made(name: str, folder: Path, config: Mapping[str, object]) -> Mirror:
    if name == "wandb":
        return Wandb(folder, config)
    return Csv(folder) if name == "csv" else TensorBoard(folder)


class Csv:
    """`metrics.csv`: a line an epoch under one header, written anew as a whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.rows: list[Row] = []

    def begin(self, rows: Sequence[Row]) -> None:
        """Write the epochs so far."""
        self.rows = list(rows)
        self._write()

    def add(self, row: Row) -> None:
        """Write one more."""
        self.rows.append(row)
        self._write()

    def close(self) -> None:
        """Do nothing: it is written."""

    def _write(self) -> None:
        # Some columns come late: the masking alarm stands in the epochs alone in which it rang.
        header = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(self.path, text.getvalue())


class TensorBoard:
    """`tensorboard/`: event files, a scalar a figure of an epoch, its step the epoch."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # The mark makes readers drop what earlier files say from epoch 1 on: all of it is told
        # anew, so that no epoch is there twice and none is missing, however a run was stopped.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=1)

    def begin(self, rows: Sequence[Row]) -> None:
        """Tell the epochs so far, at about the times at which they ended."""
        left = sum(float(row.get("seconds", 0.0)) for row in rows)
        now = time.time()
        for row in rows:
            left -= float(row.get("seconds", 0.0))
            self._tell(row, now - left)
        self.writer.flush()

    def add(self, row: Row) -> None:
        """Tell one more, and have it on disk."""
        self._tell(row, time.time())
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()

    def _tell(self, row: Row, when: float) -> None:
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, float(value), int(row["epoch"]), walltime=when)


class Wandb:
    """A run of wandb, online or offline as its own settings say, in the project `advkit`.

    `wandb.json` beside the metrics holds the run's id and how many epochs it was told, so that a
    resumed run goes on with the same one.
    """

    def __init__(self, folder: Path, config: Mapping[str, object]) -> None:
        import wandb

        self.file = folder / "wandb.json"
        known = json.loads(reading.text(self.file, reading.SETTINGS)) if self.file.exists() else {}
        self.id, self.told = str(known.get("id") or secrets.token_hex(4)), int(known.get("told", 0))
        self.run = wandb.init(
            project="advkit",
            name=folder.resolve().name,
            dir=str(folder),
            id=self.id,
            resume="allow",
            config=dict(config),
            # Standard output holds records alone.
            settings=wandb.Settings(silent=True, console="off"),
        )

    def begin(self, rows: Sequence[Row]) -> None:
        """Tell the epochs that the run was not told before; it forgets none."""
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Tell one more, unless it was told before it was stopped and trained again."""
        epoch = int(row["epoch"])
        if epoch > self.told:
            self.run.log(dict(row), step=epoch)
            self.told = epoch
            files.write_text(self.file, json.dumps({"id": self.id, "told": epoch}) + "\n")

    def close(self) -> None:
        """Have all of it sent, or on disk."""
        self.run.finish()

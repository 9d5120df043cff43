"""The folder of one training run: what lies where, and whether it is new, partial or done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from advkit.artifacts import files
from advkit.config import resolve
from advkit.config.resolve import Resolved
from advkit.config.settings import Settings
from advkit.errors import InputError, MismatchError, UsageError

ROLES = ("best", "best-ema", "final", "final-ema")
Row = dict[str, float]
"""An epoch's metrics: counts, averages, seconds, and whether the masking alarm rang."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run. `final.safetensors` is written last: where it lies, the run is done."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def metrics_file(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def state_file(self) -> Path:
        """What `--resume` goes on from; gone when the run is done."""
        return self.path / "state.safetensors"

    def checkpoint(self, role: str) -> Path:
        """`best`, `final`, `best-ema` or `final-ema`."""
        return self.path / f"{role}.safetensors"

    @property
    def done(self) -> bool:
        """Whether the run went to its end."""
        return self.checkpoint("final").exists() and self.config_file.exists()

    @property
    def begun(self) -> bool:
        """Whether anything was learned: a configuration alone is no run yet."""
        return self.state_file.exists() or self.metrics_file.exists() or self.done

    def held(self) -> AbstractContextManager[None]:
        """Hold the folder for this process.

        Raises:
            BusyError: another process trains here.
            StorageError: it cannot be written.
        """
        return files.lock(self.path)

    def require_fit(self, wanted: Resolved, *, resume: bool, overwrite: bool) -> None:
        """Check that a run with these options may go on, or begin, here; touch nothing.

        Raises:
            MismatchError: it holds a run with other options, or a partial one without `resume`,
                or something else.
            StorageError: it cannot be written.
        """
        files.folder(self.path)
        files.sweep(self.path, self._names())  # temporary files of a killed writer
        if not self.config_file.exists():
            if any(self.path.iterdir()):
                raise MismatchError(f"{self.path} is not empty and not a run: choose another -o")
            return
        own = self._own_settings()
        if overwrite or not self.begun:
            return
        changed = resolve.differences(own, wanted.settings)
        if changed:
            raise MismatchError(
                f"{self.path} holds a run with other options ({changed}): "
                "choose another -o or --name, or --overwrite"
            )
        if not self.done and not resume:
            raise MismatchError(
                f"{self.path} holds an unfinished run: go on with --resume, or --overwrite"
            )

    def as_begun(self, wanted: Resolved) -> Resolved:
        """Return the options with what the run that lies here did before they could be asked for.

        The same command finds its run in place, also where a later version trains otherwise.
        """
        if not self.begun:
            return wanted
        try:
            return wanted.as_begun(resolve.unasked(self.config_file))
        except InputError:  # nothing there, or nothing that can be read: `require_fit` says so
            return wanted

    def _own_settings(self) -> Settings:
        try:
            return self.settings()
        except (InputError, UsageError) as error:
            raise MismatchError(
                f"{self.config_file} is no run's configuration ({error}): choose another -o"
            ) from None

    def forget_if_empty(self) -> None:
        """Remove the folder if nothing ever lay in it."""
        with suppress(OSError):
            self.path.rmdir()

    def _names(self) -> list[str]:
        """Return the names of a run's files, the mark of a finished one first."""
        roles = [f"{role}.safetensors" for role in ("final", "final-ema", "best", "best-ema")]
        # wandb's own folder stays: it may hold what was never sent.
        mirrors = ("metrics.csv", "tensorboard", "wandb.json")
        return [
            roles[0],
            self.state_file.name,
            *roles[1:],
            *mirrors,
            "metrics.jsonl",
            "config.toml",
        ]

    def tidy(self) -> None:
        """Remove the state of a finished run, which a kill may have left."""
        if self.done:
            self.state_file.unlink(missing_ok=True)

    def begin(self, wanted: Resolved, *, overwrite: bool) -> None:
        """Make the folder that of this run, once nothing can go wrong before the first step."""
        if overwrite:
            # The mark of a finished run goes first and the configuration is replaced, not
            # removed: cut off anywhere, this leaves an unfinished run and no stranger's folder.
            names = [self.path / name for name in self._names()[:-1]]
            # Logits lie beside their checkpoint and say nothing about the new one.
            stale = [path for role in ROLES for path in self.path.glob(f"{role}.*.h5*")]
            for path in (*names, *stale):
                if path.is_file():
                    path.unlink()
                elif path.is_dir():
                    shutil.rmtree(path)
        if overwrite or not self._same(wanted):  # it says where each value came from, once
            files.write_text(self.config_file, wanted.toml())

    def _same(self, wanted: Resolved) -> bool:
        if self.state_file.exists():
            return True
        return self.config_file.exists() and self._own_settings().flat() == wanted.settings.flat()

    def settings(self) -> Settings:
        """Return the settings of the run that lies here."""
        return resolve.resolve((resolve.read(self.config_file), "the run's own")).settings

    def rows(self) -> list[Row]:
        """Return the metrics so far, a row an epoch."""
        if not self.metrics_file.exists():
            return []
        try:
            lines = self.metrics_file.read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        except (OSError, ValueError, RecursionError):
            raise InputError(f"{self.metrics_file}: corrupt: not JSON lines") from None

    def keep_rows(self, epochs: int) -> None:
        """Drop rows of epochs that the saved state has not seen, and a torn last line."""
        if self.metrics_file.exists():
            lines = self.metrics_file.read_text(encoding="utf-8").splitlines()[:epochs]
            files.write_text(self.metrics_file, "".join(f"{line}\n" for line in lines))

    def add_row(self, row: Mapping[str, float]) -> None:
        """Append one epoch's metrics."""
        files.append_line(self.metrics_file, json.dumps(row, allow_nan=False))

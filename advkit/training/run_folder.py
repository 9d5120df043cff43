"""The folder of one training run: what lies where, and whether it is new, partial or done."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from advkit.artifacts import files, locks
from advkit.config import resolve, stored
from advkit.config.resolve import Resolved
from advkit.config.settings import BY_MACHINE, PART_FOLDERS, Settings
from advkit.errors import InputError, MismatchError, StorageError, UsageError
from advkit.registry import sources
from advkit.runtime import reading
from advkit.training import metrics_log
from advkit.training.metrics_log import Row

ROLES = ("best", "best-ema", "final", "final-ema")


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
        return self.path / files.STATE

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
        return any((self.path / name).exists() for name in self._names()[:-1])

    def held(self) -> AbstractContextManager[None]:
        """Hold the folder for this process.

        Raises:
            BusyError: another process trains here.
            StorageError: it cannot be written.
        """
        return locks.lock_folder(self.path)

    def replaced(self) -> list[Path]:
        """Return what `--overwrite` removes or replaces: the run's files, the configuration last.

        Among them are logits and labels beside a checkpoint: they say nothing about the new one.
        """
        *names, config = (self.path / name for name in self._names())
        stale = [path for role in ROLES for path in self.path.glob(f"{role}.*.h5*")]
        return [*names, *stale, config]

    def require_fit(self, wanted: Resolved, *, resume: bool, overwrite: bool) -> None:
        """Check that a run with these options may go on, or begin, here; touch nothing.

        Raises:
            MismatchError: it holds a run with other options, or a partial one without `resume`,
                or something else.
            StorageError: it cannot be listed.
        """
        files.sweep(self.path, self._names())  # temporary files of a killed writer
        if not self.config_file.exists():
            self.require_config()
            self._require_empty()
            return
        if overwrite or not self.begun:
            self._own_settings()
            return
        self.require_same(wanted)
        if not self.done and not resume:
            raise MismatchError(
                f"{self.path} holds an unfinished run: go on with --resume, or --overwrite"
            )

    def _require_empty(self) -> None:
        try:
            empty = all(path.name == locks.INSIDE for path in self.path.iterdir())
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be listed: {error.strerror}") from None
        if not empty:
            raise MismatchError(f"{self.path} is not empty and not a run: choose another -o")

    def require_same(self, wanted: Resolved) -> None:
        """Check that the run that lies here is of these options; touch nothing.

        Raises:
            MismatchError: it has others, which the message lists.
        """
        changed = resolve.differences(self._own_settings(), wanted.settings)
        if changed:
            raise MismatchError(
                f"{self.path} holds a run with other options ({changed}): "
                "choose another -o or --name, or --overwrite"
            )

    def as_begun(self, wanted: Resolved) -> Resolved:
        """Return the options with what the run that lies here did before they could be asked for.

        The same command finds its run in place, also where a later version trains otherwise.
        """
        if not self.begun:
            return wanted
        try:
            return wanted.as_begun(stored.unasked(self.config_file))
        except InputError:  # nothing there, or nothing that can be read: `require_fit` says so
            return wanted

    def _own_settings(self) -> Settings:
        try:
            return self.settings()
        except (InputError, UsageError) as error:
            raise MismatchError(
                f"{self.config_file} is no run's configuration ({error}): choose another -o"
            ) from None

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
        """Remove what a kill may have left in a finished run, where that can be written.

        That is its state, unless somebody works here, and temporary files of dead writers.
        """
        locks.tidy_folder(self.path, self.state_file)
        with suppress(StorageError, OSError):
            files.sweep(self.path, self._names())

    def begin(self, wanted: Resolved, *, overwrite: bool) -> None:
        """Make the folder that of this run, once nothing can go wrong before the first step."""
        if overwrite:
            # The mark of a finished run goes first and the configuration is replaced, not
            # removed: cut off anywhere, this leaves an unfinished run and no stranger's folder.
            for path in self.replaced()[:-1]:
                if path.is_symlink() or path.is_file():  # the link goes, not what it leads to
                    path.unlink()
                elif path.is_dir():
                    shutil.rmtree(path)
        if overwrite or not self._same(wanted):  # it says where each value came from, once
            files.write_text(self.config_file, wanted.toml())

    def _same(self, wanted: Resolved) -> bool:
        if self.state_file.exists():
            return True
        return self.config_file.exists() and self._own_settings().flat() == wanted.settings.flat()

    def require_config(self) -> None:
        """Check that a run that lies here has its configuration.

        Raises:
            InputError: the rest of a run lies there without it.
        """
        if self.begun and not self.config_file.exists():
            raise InputError(
                f"{self.config_file}: missing, while the rest of a run lies there: put it back, "
                "or choose another -o"
            )

    def own_values(self) -> dict[str, object]:
        """Return the options of the run that lies here.

        Raises:
            InputError: its configuration is damaged.
            UsageError: it needs somebody else's part, which is not here.
        """
        # Earlier runs do not name what the machine decides: they did as the default says.
        default = {name: getattr(Settings, name) for name in BY_MACHINE}
        values = {**default, **stored.read(self.config_file)}
        try:
            resolve.resolve((values, "the run's own"))
        except UsageError as error:
            self._require_parts()
            raise InputError(
                f"{self.config_file}: no configuration of a run ({error}): put the right one "
                "back, or choose another -o"
            ) from None
        return values

    def _require_parts(self) -> None:
        """Check that all parts of the run are here.

        Raises:
            UsageError: one is not.
        """
        from advkit.artifacts import checkpoint  # imports torch, which --help does without

        for kind, path in (("state", self.state_file), ("checkpoint", self.checkpoint("final"))):
            if path.exists():
                described: Mapping[str, str] = checkpoint.read(path, kind)[1].get("parts", {})
                for shelf in PART_FOLDERS:
                    sources.require(described, shelf, self.path)

    def settings(self) -> Settings:
        """Return the settings of the run that lies here."""
        return resolve.resolve((stored.read(self.config_file), "the run's own")).settings

    def lines(self) -> list[str]:
        """Return the lines of the log so far, but for a torn last one."""
        return metrics_log.lines(self.metrics_file)

    def rows(self) -> list[Row]:
        """Return the metrics so far, a row an epoch.

        Raises:
            InputError: the log is corrupt.
        """
        return metrics_log.rows(self.lines(), self.metrics_file)

    def write_lines(self, lines: Sequence[str]) -> None:
        """Make the log that of these lines, unless it is."""
        text = "".join(f"{line}\n" for line in lines)
        file = self.metrics_file
        there = reading.content(file, reading.DOCUMENT) if file.exists() else b""
        if there != text.encode():
            files.write_text(file, text)

    def add_line(self, line: str) -> None:
        """Append one epoch's metrics."""
        files.append_line(self.metrics_file, line)

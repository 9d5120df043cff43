"""The runs that analyses are given, from their checkpoints and logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from advkit.artifacts import checkpoint, descriptions
from advkit.errors import InputError
from advkit.training import manifest
from advkit.training.metrics_log import Row
from advkit.training.run_folder import ROLES, RunFolder


@dataclass(frozen=True)
class Trained:
    """A checkpoint as analyses see it: its path, its description, and the metrics beside it."""

    path: str
    info: descriptions.Checkpoint

    @property
    def metrics(self) -> Path:
        """Where the metrics of its run lie."""
        return RunFolder(Path(self.path).parent).metrics_file

    def rows(self) -> list[Row]:
        """Return the metrics of its run, a row an epoch.

        Raises:
            InputError: there are none beside it, or they are those of another run.
        """
        if "metrics" not in self.info:
            raise InputError(f"{self.path}: an imported net, whose training is not recorded")
        rows = RunFolder(Path(self.path).parent).rows()
        if not rows:
            raise InputError(f"{self.path}: no metrics.jsonl of its run lies beside it")
        epoch = self.info["metrics"]["epoch"]
        if len(rows) < epoch:
            raise InputError(
                f"{self.metrics}: {len(rows)} epochs, but {Path(self.path).name} is of epoch "
                f"{epoch}: the metrics of another run"
            )
        if not manifest.agree({self.info["role"]: self.info["metrics"]}, rows):
            raise InputError(
                f"{self.metrics}: other figures than {Path(self.path).name} has of epoch {epoch}: "
                "the metrics of another run"
            )
        return rows


def trained(path: Path | str) -> Trained:
    """Read what analyses need to know of a checkpoint, or of a run by its folder or its log.

    Raises:
        InputError: missing, corrupt, or not a checkpoint; a folder without one.
    """
    run = RunFolder(Path(path).parent)
    if Path(path).name == run.metrics_file.name:
        if not Path(path).exists():
            raise InputError(f"{path}: no such file")
        path = _checkpoint(run)  # the log is of the run, which its checkpoints describe
    elif Path(path).is_dir():
        path = _checkpoint(RunFolder(Path(path)))
    return Trained(str(path), checkpoint.read_info(path))


def _checkpoint(run: RunFolder) -> Path:
    """Return a checkpoint of a run: the best one, which lies there from the first epoch on."""
    for role in ROLES:
        if run.checkpoint(role).exists():
            return run.checkpoint(role)
    raise InputError(f"{run.path}: no checkpoint of a run lies in this folder")

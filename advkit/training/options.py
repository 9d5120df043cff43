"""Options of the stage that trains: what a run is, and how it is begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advkit.config import methods
from advkit.config.machine import Machine, Output, require_name
from advkit.config.settings import METHOD, RUN, Settings
from advkit.errors import UsageError, brief
from advkit.options import declared

EMIT = ("best", "final", "all")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Machine, Output):
    """Options of `advkit train`; `settings` are those of the run that were given."""

    preset: str | None = declared(
        None,
        METHOD,
        "numbers of the paper, of its code, or LTD's for its competitors",
        methods.PRESETS,
    )
    config: str | None = declared(None, RUN, "read options from a TOML file; flags win")
    print_config: bool = declared(False, "Actions", "print the resolved configuration and stop")
    resume: bool = declared(False, "Actions", "go on with the run in its folder, or start it")
    resume_elastic: bool = declared(False, "Actions", "--resume with another number of processes")
    name: str | None = declared(None, RUN, "added to the run folder's name")
    log: str | None = declared(
        None, RUN, "also write epochs for tensorboard, csv, wandb (apart by commas)"
    )
    emit: str = declared("best", RUN, "which checkpoints get a record", EMIT)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: no such checkpoint, or a name that no folder can have.
        """
        super().__post_init__()
        if self.name and (not self.name.isprintable() or "/" in self.name or len(self.name) > 100):
            raise UsageError(
                f"--name {brief(self.name)}: at most 100 printable characters without a slash"
            )
        if self.emit not in EMIT:
            raise UsageError(f"--emit {self.emit}: one of {', '.join(EMIT)}")

    @property
    def going_on(self) -> bool:
        """Whether a run in its folder is gone on with."""
        return self.resume or self.resume_elastic

    @property
    def loggers(self) -> tuple[str, ...]:
        """The loggers of `--log`.

        Raises:
            UsageError: no such logger, or its package is not installed.
        """
        from advkit.training import mirrors  # imports what --help does without

        return mirrors.names(self.log)

    def folder(self, chosen: Settings) -> Path:
        """Return where the run goes."""
        if self.out:
            return Path(self.out)
        place = Path("runs") / (chosen.run_name + (f"-{self.name}" if self.name else ""))
        require_name("the run's folder", place)
        return place

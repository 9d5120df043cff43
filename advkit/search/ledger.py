"""The trials of a search in its folder: one JSON line each, never run again.

Lines, unlike the other stores of unfinished work (see `evaluation.partial`): a trial is a run of
hours that people follow, and its figures are the result.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TypedDict

from advkit.artifacts import descriptions, files
from advkit.artifacts.descriptions import Trial
from advkit.errors import InputError, MismatchError, NumericalError
from advkit.runtime import reading


class Judged(TypedDict):
    """What was measured of a student on held-out examples, see `evaluator.judge`."""

    robust_accuracy: float
    pgd_accuracy: float
    loss_ce: float
    loss_kl: float


class Ledger:
    """The finished trials of one search, in memory and in `trials.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "trials.jsonl"
        self.trials: list[Trial] = []

    def open(self, identity: str) -> None:
        """Read what is there, having checked that it belongs to this search.

        Raises:
            InputError: the file is corrupt.
            MismatchError: the folder holds a search with other options.
        """
        files.folder(self.folder)
        mark = self.folder / "search.toml"
        if mark.exists() and reading.text(mark, reading.SETTINGS) != identity:
            raise MismatchError(
                f"{self.folder} holds a search with other options: choose another -o"
            )
        files.write_text(mark, identity)
        if self.path.exists():
            self.trials = self._read()

    def _read(self) -> list[Trial]:
        """Return the finished trials; a last line that was cut off is dropped and run again."""
        try:
            whole, _, torn = reading.text(self.path).rpartition("\n")
            trials = [json.loads(line) for line in whole.splitlines()]
        except (ValueError, RecursionError):
            raise InputError(f"{self.path}: corrupt: not JSON lines") from None
        for number, trial in enumerate(trials, start=1):
            wrong = descriptions.trial_fault(trial)
            if wrong:
                raise InputError(f"{self.path}: corrupt: in line {number} {wrong}")
        if torn:
            files.write_text(self.path, f"{whole}\n" if whole else "")
        return trials

    def find(self, kind: str, temperature: float) -> Trial | None:
        """Return a finished trial."""
        for trial in self.trials:
            if (trial["kind"], trial["temperature"]) == (kind, temperature):
                return trial
        return None

    def add(self, trial: Trial) -> None:
        """Append a trial.

        Raises:
            NumericalError: a figure is NaN or infinite: nothing can be chosen by it.
            ValueError: the evaluator forgot a figure, or fills it in wrongly.
        """
        for name, value in trial.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise NumericalError(
                    f"{trial['kind']} at T = {trial['temperature']:g}: {name} is {value}: "
                    "lower --lr"
                )
        wrong = descriptions.trial_fault(trial)
        if wrong:
            raise ValueError(f"a trial of {trial['kind']} in which {wrong}")
        files.append_line(self.path, json.dumps(trial))
        self.trials.append(trial)

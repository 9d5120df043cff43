"""The trials of a search in its folder: one JSON line each, never run again.

Lines, unlike the other stores of unfinished work (see `evaluation.partial`): a trial is a run of
hours that people follow, and its figures are the result.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypedDict, TypeVar, cast

from advkit.artifacts import describing, files, provenance
from advkit.errors import InputError, MismatchError, NumericalError
from advkit.runtime import reading

CHAIN, PART = "chain", "# part "
"""The key of a line's link; how a line of `search.toml` begins that says what a part means."""


class Judged(TypedDict):
    """What was measured of a student on held-out examples, see `evaluator.judge`."""

    robust_accuracy: float
    pgd_accuracy: float
    loss_ce: float
    loss_kl: float


Line = TypeVar("Line", bound=Mapping[str, object])
"""What one search says of a trial."""


class Ledger(Generic[Line]):
    """The finished trials of one search, in memory and in `trials.jsonl`.

    Each line carries `chain`, the sha256 over the link before it and what the line says; the first
    link is the search itself. So a line that was edited, moved or taken from elsewhere shows.
    """

    def __init__(
        self,
        folder: Path,
        fault: Callable[[object], str] = describing.trial_fault,
        way_out: str = "remove it: runs that lie beside it are only measured again",
    ) -> None:
        """Take a search's folder, what says why something is no trial, and what helps then."""
        self.folder, self.path = folder, folder / "trials.jsonl"
        self._fault, self._way_out = fault, way_out
        self.trials: list[Line] = []
        self._link = ""

    def open(self, identity: str, parts: Mapping[str, str]) -> int:
        """Read what is there, having checked that it belongs to this search.

        Args:
            identity: what the search is, as text.
            parts: what its parts mean, by name; see `registry.sources`.

        Returns:
            How many trials of an earlier version, which has no chain, are to be measured again.

        Raises:
            InputError: the file is corrupt.
            MismatchError: the folder holds a search with other options, something else, or trials
                that were edited.
        """
        mark, self._link = self.folder / "search.toml", _linked(identity)
        meant = "".join(f"{PART}{name} is {digest}\n" for name, digest in sorted(parts.items()))
        if mark.exists():
            self._require_same(_said(mark), identity, meant)
        else:
            files.folder(self.folder)
            self._require_empty()
        if not mark.exists() or _said(mark) != (identity + meant).encode():
            files.write_text(mark, identity + meant)
        return self._read() if self.path.exists() else 0

    def _require_same(self, mark: bytes, identity: str, meant: str) -> None:
        # Searches of the first versions do not say what their parts meant.
        if mark == (identity + meant).encode() or mark == identity.encode():
            return
        edited = mark.partition(PART.encode())[0] == identity.encode()
        what = "of before a part was edited" if edited else "with other options"
        raise MismatchError(f"{self.folder} holds a search {what}: choose another -o")

    def _require_empty(self) -> None:
        if any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise MismatchError(
                f"{self.folder} is not empty and has no search.toml: put it back, or choose "
                "another -o"
            )

    def _read(self) -> int:
        """Take over the finished trials; a last line that was cut off is dropped and run again."""
        try:
            whole, _, torn = _said(self.path).decode("utf-8-sig").rpartition("\n")
            lines = [json.loads(line) for line in whole.splitlines()]
        except (ValueError, RecursionError):
            raise InputError(f"{self.path}: corrupt: not JSON lines") from None
        for number, line in enumerate(lines, start=1):
            wrong = self._fault(line)
            if wrong:
                raise InputError(f"{self.path}: corrupt: in line {number} {wrong}")
        if lines and not any(CHAIN in line for line in lines):
            files.write_text(self.path, "")
            return len(lines)
        for number, line in enumerate(lines, start=1):
            chain, trial = line.pop(CHAIN, None), cast(Line, line)
            self._link = _linked(self._link, trial)
            if chain != self._link:
                raise MismatchError(
                    f"{self.path}: line {number} was edited or is of another search: put the right "
                    f"file back, or {self._way_out}"
                )
            self.trials.append(trial)
        if torn:
            files.write_text(self.path, f"{whole}\n" if whole else "")
        return 0

    def find(self, **keys: object) -> Line | None:
        """Return the first finished trial that says all of this."""
        for trial in self.trials:
            if all(trial.get(key) == value for key, value in keys.items()):
                return trial
        return None

    def add(self, trial: Line) -> None:
        """Append a trial.

        Raises:
            NumericalError: a figure is NaN or infinite: nothing can be chosen by it.
            ValueError: the evaluator forgot a figure, or fills it in wrongly.
        """
        for name, value in trial.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise NumericalError(f"{_called(trial)}: {name} is {value}: lower --lr")
        wrong = self._fault(trial)
        if wrong:
            raise ValueError(f"a trial of {trial['kind']} in which {wrong}")
        link = _linked(self._link, trial)
        files.append_line(self.path, json.dumps({**trial, CHAIN: link}))
        self.trials.append(trial)
        self._link = link


def _said(path: Path) -> bytes:
    try:
        return reading.content(path, reading.DOCUMENT)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _called(trial: Mapping[str, object]) -> str:
    """Return a trial's name for a message."""
    if "temperature" in trial:
        return f"{trial['kind']} at T = {trial['temperature']:g}"
    return f"{trial['kind']} {trial.get('number', '')}".rstrip()


def _linked(before: str, trial: Mapping[str, object] | None = None) -> str:
    """Return the next link of a chain."""
    text = provenance.canonical([before, trial])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

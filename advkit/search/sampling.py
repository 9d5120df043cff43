"""Optuna: what is tried next, and the journal of what was.

A trial is drawn by a sampler made for it alone, seeded by the search's seed and the trial's number,
from what the trials before it gave. No sampler's state has to outlive a process, so a search that
was killed draws on as if it had not been.

The journal is Optuna's journal file, which its own tools read; here it is written line by line
through `artifacts.files`: whole, synced, not through links and under the search's own lock. It is
held to the ledger of the search, which is written first.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from advkit.artifacts import files
from advkit.errors import InputError, MismatchError, UsageError
from advkit.runtime import reading, seeding
from advkit.search.space import PAPER, RANGES, Point, at

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution
    from optuna.trial import FrozenTrial, TrialState

STARTUP = 6
"""Trials drawn at random before the sampler has a model of the space."""
STUDY = "adr"
BACK = "put the right one back, or remove it: it is made from trials.jsonl"


@dataclass(frozen=True)
class Told:
    """A trial as Optuna is told of it.

    `scores` are by epoch; `whole` says whether it went to the last rung, None that it goes on.
    """

    number: int
    point: Point
    scores: Mapping[int, float] = field(default_factory=dict)
    whole: bool | None = None


def require() -> None:
    """Check that Optuna is there.

    Raises:
        UsageError: it is not.
    """
    if find_spec("optuna") is None:
        raise UsageError(
            "search adr: the package optuna is not installed: python -m pip install optuna"
        )


def draw(seed: int, number: int, past: Sequence[Told]) -> Point:
    """Return what a trial tries: the paper's choice first, then what Optuna's TPE proposes.

    A function of its arguments alone.

    Args:
        seed: of the search.
        number: of the trial, from 0.
        past: the finished trials before it, in order.

    Source: Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; all
    coordinates together (`multivariate`) as Optuna has it.
    """
    if number == 0:
        return PAPER
    import optuna

    with _quiet():
        sampler = optuna.samplers.TPESampler(
            seed=seeding.derive(seed, "search adr", number) % 2**32,  # numpy's take no more
            n_startup_trials=STARTUP,
            multivariate=True,
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for told in past:
            study.add_trial(_frozen(told))
        return at(study.ask(_distributions()).params)


class Journal:
    """The study of one search in its journal file."""

    def __init__(self, path: Path) -> None:
        """Open it; a file that is not there is begun with the first trial.

        Raises:
            InputError: it is corrupt.
        """
        self.path = path
        from optuna.storages import JournalStorage

        try:
            with _quiet():
                self._storage = JournalStorage(_Lines(path))  # any object with its two methods
            names = [study.study_name for study in self._storage.get_all_studies()]
            if names not in ([], [STUDY]):
                raise MismatchError(f"{path}: not the journal of this search: {BACK}")
            self._study = 0 if names else None
            self._trials()
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, AssertionError):
            raise InputError(f"{path}: corrupt: not Optuna's journal: {BACK}") from None

    def begun(self, number: int) -> Point | None:
        """Return what a trial tries, where it is in the journal.

        Raises:
            MismatchError: nothing that this search would try.
        """
        trials = self._trials()
        if number >= len(trials):
            return None
        params = trials[number].params
        inside = params.keys() == RANGES.keys() and all(
            low <= params[name] <= high for name, (low, high, _) in RANGES.items()
        )
        if not inside:
            raise self._other(number)
        return at(params)

    def tell(self, told: Told) -> None:
        """Have the journal say of a trial what the search knows by now.

        Of a search that was stopped it may know more than that already: what is there is compared.

        Raises:
            MismatchError: it says something else.
        """
        trials = self._trials()
        known = trials[told.number] if told.number < len(trials) else self._begin(told)
        wanted = _frozen(told)
        if known.params != wanted.params or not _fits(known, wanted):
            raise self._other(told.number)
        if known.state.is_finished():
            return
        number = self._storage.get_trial_id_from_study_id_trial_number(self._study, told.number)
        for epochs, score in told.scores.items():
            if epochs not in known.intermediate_values:
                self._storage.set_trial_intermediate_value(number, epochs, score)
        if wanted.state.is_finished():
            self._storage.set_trial_state_values(number, wanted.state, wanted.values)

    def _begin(self, told: Told) -> FrozenTrial:
        from optuna.study import StudyDirection

        with _quiet():
            if self._study is None:
                self._study = self._storage.create_new_study([StudyDirection.MAXIMIZE], STUDY)
            begun = _frozen(Told(told.number, told.point))
            return self._storage.get_trial(self._storage.create_new_trial(self._study, begun))

    def require_no_more(self, trials: int) -> None:
        """Check that there are no trials beyond those of the search.

        Raises:
            MismatchError: there are.
        """
        if len(self._trials()) > trials:
            raise self._other(trials)

    def _trials(self) -> list[FrozenTrial]:
        return [] if self._study is None else self._storage.get_all_trials(self._study)

    def _other(self, number: int) -> MismatchError:
        return MismatchError(
            f"{self.path}: of trial {number} it says something else than the search: {BACK}"
        )


class _Lines:
    """The file behind the journal: a JSON line each, as Optuna's `JournalFileBackend` has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        files.require_no_link(path)
        try:
            text = reading.content(path, reading.DOCUMENT).decode() if path.exists() else ""
            whole, _, torn = text.rpartition("\n")
            self._logs = [json.loads(line) for line in whole.splitlines()]
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except RecursionError:
            raise ValueError("lists within lists without end") from None
        if torn:  # what a killed process leaves
            files.write_text(path, f"{whole}\n" if whole else "")

    def read_logs(self, log_number_from: int) -> list[dict[str, object]]:
        """Return the entries from a number on."""
        return self._logs[log_number_from:]

    def append_logs(self, logs: Sequence[Mapping[str, object]]) -> None:
        """Write entries, one by one."""
        for log in logs:
            line = json.dumps(log, separators=(",", ":"))
            files.append_line(self.path, line)
            self._logs.append(json.loads(line))


def _fits(known: FrozenTrial, wanted: FrozenTrial) -> bool:
    """Whether what is known of a trial and what is wanted of it are of one trial.

    Either may be further. A finished one is the whole of it, though.
    """
    there, asked = known.intermediate_values.items(), wanted.intermediate_values.items()
    if not known.state.is_finished():
        return bool(there <= asked or (asked <= there and not wanted.state.is_finished()))
    if not wanted.state.is_finished():
        return bool(asked <= there)
    return bool(known.state == wanted.state and known.values == wanted.values and there == asked)


def _frozen(told: Told) -> FrozenTrial:
    from optuna.trial import create_trial

    with _quiet():
        finished = told.whole is not None
        return create_trial(
            state=_state(told.whole),
            params=told.point.coordinates,
            distributions=_distributions(),
            intermediate_values=dict(told.scores),
            value=told.scores[max(told.scores)] if finished else None,
            user_attrs=told.point.options,
        )


def _state(whole: bool | None) -> TrialState:
    from optuna.trial import TrialState

    if whole is None:
        return TrialState.RUNNING
    return TrialState.COMPLETE if whole else TrialState.PRUNED


def _distributions() -> dict[str, FloatDistribution]:
    from optuna.distributions import FloatDistribution

    return {
        name: FloatDistribution(low, high, log=log) for name, (low, high, log) in RANGES.items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling what it does: the search has its own words."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental features, as `multivariate` once was
            yield
    finally:
        optuna.logging.set_verbosity(before)

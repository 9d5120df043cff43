"""The stage that searches LTD's temperature: inputs bound, trials run, the choice written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from advkit.artifacts import analysis, files, locks
from advkit.artifacts import record as records
from advkit.artifacts.document import aligned
from advkit.artifacts.record import Record
from advkit.artifacts.result import Result
from advkit.config import resolve
from advkit.config.machine import computing
from advkit.errors import UsageError
from advkit.images import extra
from advkit.options import parse_temperatures
from advkit.parallel import ranks
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from advkit.search.machine import Machine, defaults
from advkit.search.options import SearchOptions
from advkit.search.temperature import Plan, TemperatureSearch
from advkit.training import binding
from advkit.training.options import TrainOptions


@dataclass(frozen=True)
class Searched:
    """A search that went to its end; `result` holds the choice and a row for each trial."""

    path: Path
    result: Result
    description: Mapping[str, object]

    @property
    def record(self) -> Record:
        """What the stage prints of it."""
        digest = analysis.digest(self.result, self.description)
        figures = {"analysis": "search temperature", **self.result.numbers}
        return records.make("analysis", self.path, digest, **figures)

    @property
    def text(self) -> str:
        """The trials as a table for a person, without their digests."""
        shown = [place for place, name in enumerate(self.result.columns) if name != "digest"]
        lines = (self.result.columns, *self.result.rows)
        return aligned([[line[place] for place in shown] for line in lines])

    @property
    def disagreement(self) -> str:
        """What the criteria would each have chosen; empty where all agree."""
        numbers = self.result.numbers
        choices = {key: numbers[f"by_{key}"] for key in ("robust", "loss_ce", "loss_kl")}
        if len(set(choices.values())) == 1:
            return ""
        words = ", ".join(f"{key}: {value}" for key, value in choices.items())
        return f"the criteria differ: {words}; chosen by {numbers['criterion']}"


def search(
    options: SearchOptions, runs: TrainOptions, upstream: binding.Upstream, reporter: Reporter
) -> Searched:
    """Search, or go on with the search in its folder, and write the choice there.

    Args:
        options: what is searched.
        runs: of each trial's run, but for the temperature.
        upstream: gives the record of a labels file where `runs` names none.
        reporter: hears what goes on.

    Raises:
        AdvkitError: see `errors`; finished trials are kept and gone on from.
    """
    if ranks.world() > 1:
        raise UsageError(
            "search is one process's work: its runs are small; start it without torchrun"
        )
    grid = parse_temperatures(options.grid, "--grid")
    plan = Plan(grid, options.criterion, options.threshold, options.refine)
    layers = binding.bound(binding.layers(runs), upstream)
    chosen = resolve.resolve(*layers).settings
    out = Path(runs.out) if runs.out else Path("runs") / f"{chosen.run_name}-search"
    found = [out / name for name in ("search.json", "search.toml", "trials.jsonl")]
    more = [] if chosen.extra_data is None else extra.files(chosen.extra_data)
    files.require_apart(found, (chosen.soft_labels, *more, runs.config))
    machine = Machine(runs.torch_device(), runs.threads_for(chosen.arch), runs.root, reporter)
    # A search that is done and lies where nobody may write is found so all the same.
    with (
        computing(machine.device, machine.threads),
        locks.where_possible(out, files.exists(found[0])),
        signals.resumable(),
    ):
        own = defaults(found[1], machine.device.type)
        work = TemperatureSearch([own, *layers], plan, out, machine)
        choice, trials = work.run()
        # Substitutes and students measure different things: a column for whatever any trial has.
        columns = tuple(dict.fromkeys(key for trial in trials for key in trial))
        rows = tuple(tuple(trial.get(key) for key in columns) for trial in trials)
        searched = Searched(found[0], Result(choice, columns, rows), work.describe())
        if not analysis.lies_there(searched.path, searched.result, searched.description):
            analysis.write(searched.path, searched.result, searched.description)
    return searched

"""`advkit search temperature`: LTD's two-step search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import train
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command
from advkit.cli.common.speaker import speaker
from advkit.config import resolve, settings
from advkit.config.machine import computing
from advkit.errors import UsageError
from advkit.options import options_of
from advkit.parallel import ranks
from advkit.search.options import SearchOptions
from advkit.training.options import TrainOptions

LEFT_OUT = {"method", "objective", "labels", "wa", "ema_decay", "teacher", "temperature"}


def run(call: Call) -> Iterator[Record]:
    """Search and yield one record with the choice."""
    from advkit.artifacts import analysis, files
    from advkit.artifacts.document import aligned
    from advkit.artifacts.result import Result
    from advkit.options import parse_temperatures
    from advkit.search.temperature import Machine, Plan, TemperatureSearch
    from advkit.training import binding

    if ranks.world() > 1:
        raise UsageError(
            "search is one process's work: its runs are small; start it without torchrun"
        )
    wanted = call.build(SearchOptions)
    plan = Plan(parse_temperatures(wanted.grid), wanted.criterion, wanted.threshold, wanted.refine)
    runs = call.build(TrainOptions, settings={**call.pick(settings.options()), "method": "ltd"})
    layers = binding.bound(binding.layers(runs), lambda: train.labels_or_teacher(call))
    chosen = resolve.resolve(*layers).settings
    out = Path(runs.out) if runs.out else Path("runs") / f"{chosen.run_name}-search"
    here = Machine(
        runs.torch_device(),
        runs.threads_for(chosen.arch),
        runs.root,
        speaker("search temperature", call),
    )
    with computing(here.device, here.threads), files.lock(out):
        search = TemperatureSearch(layers, plan, out, here)
        choice, trials = search.run()
        columns = tuple(dict.fromkeys(key for trial in trials for key in trial))
        rows = tuple(tuple(trial.get(key) for key in columns) for trial in trials)
        result = Result(choice, columns, rows)
        description = search.describe()
        path = out / "search.json"
        analysis.write(path, result, description)
    if not call.talk.quiet:
        import sys

        shown = [c for c in columns if c != "digest"]
        lines: list[list[object]] = [
            list(shown),
            *([trial.get(c) for c in shown] for trial in trials),
        ]
        print(aligned(lines), file=sys.stderr)
    _explain(choice, here.reporter)
    digest = analysis.digest(result, description)
    yield records.make("analysis", path, digest, analysis="search temperature", **choice)


def _explain(choice: dict[str, Any], reporter: Any) -> None:
    picks = {key: choice[key] for key in ("by_robust", "by_loss_ce", "by_loss_kl")}
    if len(set(picks.values())) > 1:
        words = ", ".join(f"{key.removeprefix('by_')}: {value}" for key, value in picks.items())
        reporter.note(f"the criteria differ: {words}; chosen by {choice['criterion']}")


COMMAND = Command(
    "temperature",
    "Find the teacher's temperature for LTD: substitutes bound it, students choose it.",
    (
        *options_of(SearchOptions),
        *(option for option in settings.options() if option.name not in LEFT_OUT),
        *(option for option in train.OWN if option.name == "config"),
        options.DATA_ROOT,
        *options.MACHINE,
        options.OUT,
    ),
    run,
    argument="[LABELS]",
    single=False,
    example="advkit search temperature "
    "runs/digits-small-cnn-natural-s0/best.labels-views-all.h5 --grid 1,2,5,10",
)

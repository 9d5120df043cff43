"""`advkit search temperature`: LTD's two-step search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import train
from advkit.cli.common import machine, options
from advkit.cli.common.options import Command, Given
from advkit.config import resolve, settings
from advkit.errors import UsageError
from advkit.options import Option
from advkit.parallel import ranks

LEFT_OUT = {"method", "objective", "labels", "wa", "ema_decay", "teacher", "temperature"}
OWN = (
    Option("grid", "str", "1,2,3,5,8,10,12,15,20,50", "temperatures of both steps", "Search"),
    Option("criterion", "str", "robust", "what the second step looks for", "Search",
           ("robust", "loss")),
    Option("threshold", "float", None,
           "clean accuracy that a substitute must keep; the teacher's less 0.05", "Search"),
    Option("refine", "int", 2, "golden-section steps after the grid", "Search"),
)  # fmt: skip


def run(given: Given) -> Iterator[Record]:
    """Search and yield one record with the choice."""
    from advkit.artifacts import analysis, files
    from advkit.artifacts.document import aligned
    from advkit.artifacts.result import Result
    from advkit.options import parse_temperatures
    from advkit.search.temperature import Machine, Plan, TemperatureSearch

    if ranks.world() > 1:
        raise UsageError(
            "search is one process's work: its runs are small; start it without torchrun"
        )
    grid = parse_temperatures(given["grid"] or "1,2,3,5,8,10,12,15,20,50")
    refine = 2 if given["refine"] is None else given["refine"]
    plan = Plan(grid, given["criterion"] or "robust", given["threshold"], refine)
    filled = {**dict.fromkeys(LEFT_OUT), "resume": None, **given, "method": "ltd"}
    layers = train.bound(filled, train.layers(filled))
    chosen = resolve.resolve(*layers).settings
    out = Path(given["out"]) if given["out"] else Path("runs") / f"{chosen.run_name}-search"
    here = Machine(
        machine.device(given["device"]),
        machine.threads(given, chosen.arch),
        Path(given["data_root"]) if given["data_root"] else None,
        machine.speaker("search temperature", given),
    )
    machine.use_threads(here.threads)
    with files.lock(out):
        search = TemperatureSearch(layers, plan, out, here)
        choice, trials = search.run()
        columns = tuple(dict.fromkeys(key for trial in trials for key in trial))
        rows = tuple(tuple(trial.get(key) for key in columns) for trial in trials)
        result = Result(choice, columns, rows)
        description = search.describe()
        path = out / "search.json"
        analysis.write(path, result, description)
    if not given["quiet"]:
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
        *OWN,
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

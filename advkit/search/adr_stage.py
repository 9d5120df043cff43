"""The stage that searches ADR's numbers: inputs bound, trials run and told, the choice written."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from advkit.artifacts import analysis, files, locks
from advkit.artifacts import record as records
from advkit.artifacts.document import aligned
from advkit.artifacts.record import Record
from advkit.artifacts.result import Result
from advkit.config import origins, resolve
from advkit.config.machine import computing
from advkit.config.resolve import Resolved
from advkit.errors import UsageError
from advkit.parallel import ranks
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from advkit.search import sampling, trials
from advkit.search.adr import CHOSEN, AdrSearch, Choice, Plan
from advkit.search.machine import Machine, defaults
from advkit.search.options import AdrOptions
from advkit.search.trials import Rung
from advkit.training import binding
from advkit.training.options import TrainOptions
from advkit.training.run_folder import RunFolder

FILES = ("search.json", "search.toml", "trials.jsonl", "journal.log")
"""What a search writes in its folder beside its runs."""
COLUMNS = (
    "trial", "tau", "lambda", "ema_decay", "epochs", "ended", "clean_accuracy", "robust_accuracy",
    "pgd_accuracy", "masking_alarm",
)  # fmt: skip


def search(
    options: AdrOptions, runs: TrainOptions, reporter: Reporter, show: Callable[[str], None]
) -> Iterator[Record]:
    """Search, or go on with the search in its folder, and write the choice there.

    Yields the record of each run's best checkpoint as it ends, hard labels first, then the choice.

    Args:
        options: how long is searched.
        runs: of each trial's run, but for what is searched.
        reporter: hears what goes on.
        show: gets the table for a person.

    Raises:
        AdvkitError: see `errors`; what was done is kept and gone on from.
    """
    if ranks.world() > 1:
        raise UsageError("search is one process's work: start it without torchrun")
    layers = binding.layers(runs)
    if runs.out:  # before the inputs are read, which binds them
        _require_apart(Path(runs.out), layers, runs)
    layers = binding.bound_extra(binding.bound_init(layers))
    chosen = resolve.resolve(*layers).settings
    resolve.refuse_idle(runs.settings, chosen)
    for role in chosen.teachers:
        raise UsageError(f"--objective {chosen.objective} asks a {role}: search adr has none")
    out = Path(runs.out) if runs.out else Path("runs") / f"{chosen.run_name}-search"
    _require_apart(out, layers, runs)
    result_file = out / FILES[0]
    sampling.require()
    machine = Machine(runs.torch_device(), runs.threads_for(chosen.arch), runs.root, reporter)
    with ExitStack() as stack:
        stack.enter_context(computing(machine.device, machine.threads))
        # Data and options that make no search leave the folder as it was.
        own = defaults(out / FILES[1], machine.device.type)
        work = AdrSearch([own, *layers], Plan(options.trials, options.seconds), out, machine)
        stack.enter_context(locks.where_possible(out, files.exists(result_file)))
        stack.enter_context(signals.resumable())
        lines = []
        for line in work.run():
            lines.append(line)
            yield _trial(work, line)
        numbers, description = work.choice(lines), work.describe()
        result = Result(numbers, COLUMNS, tuple(_row(work, line) for line in lines))
        if analysis.lies_there(result_file, result, description):
            reporter.note(f"{out}: already done")
        else:
            analysis.write(result_file, result, description)
        show(aligned([COLUMNS, *result.rows]))
        reporter.note(outcome(numbers))
        digest = analysis.digest(result, description)
        best = work.resolved(trials.point_of(work.chosen(lines)))
        figures = {"analysis": "search adr", **numbers, "command": command(best, runs)}
        yield records.make("analysis", result_file, digest, **figures)


def _require_apart(out: Path, layers: Sequence[resolve.Layer], runs: TrainOptions) -> None:
    named = [layer.get(key) for layer, _ in layers for key in ("extra_data", "init")]
    inputs = [str(path) for path in named if path]
    files.require_apart([out / name for name in FILES], (*inputs, runs.config))


def outcome(numbers: Choice) -> str:
    """Say in a sentence how the chosen numbers compare with hard labels."""
    low, high = (100 * float(str(numbers[f"difference_{end}"])) for end in ("low", "high"))
    plain = numbers["plain"]
    said = {
        "better": f"better than {plain}",
        "worse": f"worse than {plain}",
        "no difference seen": f"{plain} is as good: the interval holds 0",
    }[str(numbers["verdict"])]
    return (
        f"τ {numbers['tau']}, λ {numbers['lambda']}, γ {numbers['ema_decay']}: {said} "
        f"({low:+.1f} to {high:+.1f} points on {numbers['n']} images, the best of "
        f"{numbers['trials']} trials on them: test images decide)"
    )


def command(resolved: Resolved, runs: TrainOptions) -> str:
    """Return the command that trains a configuration, with what differs from the defaults."""
    settings = resolved.settings
    words = ["advkit", "train", "--method", settings.method]
    for name, value in settings.flat().items():
        origin = resolved.origins.get(name, "")
        given = origin in (origins.FLAG, CHOSEN) or origin.startswith("from ")
        if given and value is not None and name not in ("method", "objective", "labels", "wa"):
            words += _flag(f"--{name.replace('_', '-')}", value)
    if runs.data_root:
        words += ["--data-root", runs.data_root]
    return shlex.join(words)


def _flag(flag: str, value: object) -> Sequence[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _trial(work: AdrSearch, line: Rung) -> Record:
    """Return the record of a run's best checkpoint, with what was judged of it."""
    number = line.get("number")
    adr = number is not None
    folder = RunFolder(work.folder(number))
    said = {key: value for key, value in line.items() if key in COLUMNS}
    return records.make(
        "checkpoint",
        folder.checkpoint("best"),
        line["digest"],
        run=folder.path.name,
        data=work.base.data,
        arch=work.base.arch,
        method=work.base.method if adr else work.plain_method,
        role="best",
        seed=work.base.seed,
        trial=number,
        **said,
        ended=line["epochs"] == work.base.epochs,
        n=len(work.held_out),
    )


def _row(work: AdrSearch, line: Rung) -> tuple[object, ...]:
    known = {**line, "trial": line.get("number"), "ended": line["epochs"] == work.base.epochs}
    return tuple(known.get(column) for column in COLUMNS)

"""The stage that times methods: their configurations, the measurement, the table written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from advkit import registry
from advkit.artifacts import analysis, files, locks, provenance
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.artifacts.result import Result
from advkit.bench import images, measure, table
from advkit.bench.options import LEFT_OUT, BenchOptions
from advkit.config import methods, origins, resolve, stored
from advkit.config.machine import computing
from advkit.config.settings import ATTACKED, Settings
from advkit.errors import UsageError
from advkit.options import options_of, parse_budget
from advkit.parallel import ranks
from advkit.runtime.reporting import Reporter


@dataclass(frozen=True)
class Timed:
    """What methods cost here; `first` is the one that ratios are to."""

    result: Result
    first: Settings
    options: BenchOptions
    environment: Mapping[str, str | int]

    @property
    def path(self) -> Path | None:
        """Where the table goes, if anywhere."""
        return Path(self.options.out) if self.options.out else None

    @property
    def description(self) -> Mapping[str, object]:
        """Of the table."""
        described = {key: v for key, v in self.first.described().items() if key not in LEFT_OUT}
        own = {each.name: getattr(self.options, each.name) for each in options_of(BenchOptions)}
        return provenance.describe(
            "analysis",
            config={"analysis": "bench", **described, **own},
            seed=self.first.seed,
            parents=[],
            environment=self.environment,
        )

    @property
    def record(self) -> Record:
        """What the stage prints of it."""
        rows = [dict(zip(self.result.columns, row, strict=True)) for row in self.result.rows]
        figures = {
            "analysis": "bench",
            "data": self.first.data,
            "arch": self.first.arch,
            "batch_size": self.first.batch_size,
            **self.environment,
            **self.result.numbers,
            "rows": rows,
            "groups": list(self.result.groups),
        }
        digest = analysis.digest(self.result, self.description)
        return records.make("analysis", self.path, digest, **figures)

    def write(self) -> None:
        """Write the table where it is to go.

        Raises:
            MismatchError: something else lies there.
            StorageError: the file cannot be written.
        """
        if self.path is None:
            return
        if self.path.exists() and not self.options.overwrite:
            analysis.require_same(self.path, self.result, self.description)
            return
        analysis.write(self.path, self.result, self.description)


def bench(options: BenchOptions, reporter: Reporter, show: Callable[[str], None]) -> Timed:
    """Time every method and write the table.

    Args:
        options: what is timed, and where.
        reporter: hears what goes on.
        show: gets the table as text, before a file in its place may refuse it.

    Raises:
        AdvkitError: see `errors`.
    """
    out = Path(options.out) if options.out else None
    kept = out is not None and files.exists(out) and not options.overwrite
    if out is not None:
        analysis.check(out, kept=kept)
        files.require_apart([out], [options.config])
    budget = parse_budget(options.budget) if options.budget else None
    device = options.torch_device()
    names = _methods(options.methods)
    chosen = {name: _configuration(options, name, device.type) for name in names}
    if ranks.world() > 1:
        raise UsageError("bench is one process's work: start it without torchrun")
    first = next(iter(chosen.values()))
    threads = options.threads_for(first.arch)
    held = nullcontext() if out is None else locks.unless(kept, out)
    with held, computing(device, threads):
        facts = images.facts(first, options.data_root)
        costs = measure.compare(chosen, facts, device, options.steps, reporter)
        wishes = table.Wishes(
            options.clean_accuracy, options.robust_accuracy, options.watts, budget
        )
        result = table.report(chosen, costs, facts.test, wishes)
        timed = Timed(result, first, options, {"device": device.type, "threads": threads})
        show(result.text)
        timed.write()
    return timed


def _methods(text: str) -> list[str]:
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names:
        raise UsageError("--methods names none")
    for name in names:
        methods.parse(name)
    return list(dict.fromkeys(names))


def _configuration(options: BenchOptions, method: str, kind: str = "cpu") -> Settings:
    """Return a method's configuration; options that only other methods have are left to them.

    Args:
        options: of the bench.
        method: by name.
        kind: of device, cpu, cuda or mps, whose defaults it has.
    """
    layers: list[resolve.Layer] = [(options.settings, origins.FLAG)]
    if options.config:
        path = Path(options.config)
        layers.insert(0, (stored.read(path), f"from {path.name}"))
    foreign = _foreign(method) | LEFT_OUT
    own = [({k: v for k, v in layer.items() if k not in foreign}, w) for layer, w in layers]
    resolved = resolve.resolve(*own, ({"method": method}, "bench"), preset=options.preset)
    return resolved.on(kind).settings


def _foreign(method: str) -> set[str]:
    """Return the options of objectives and label sources that a method does not use."""
    choices = methods.parse(method)
    chosen = (("objectives", choices.objective), ("labels", choices.labels))
    every = {x.name for folder, _ in chosen for x in registry.shared_options(folder)}
    # Of both together: ARD's temperature is an option of its objective and of its labels.
    own = {x.name for folder, part in chosen for x in registry.part(folder, part).options}
    foreign = every - own
    # A file's or a flag's attack is for the methods that attack; natural training has none.
    if not registry.part("objectives", choices.objective).constants.get("ATTACKS", True):
        foreign |= set(ATTACKED)
    return foreign

"""`advkit bench`: what each method costs here, before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.bench import projection
from advkit.bench.options import BenchOptions
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command
from advkit.cli.common.speaker import speaker
from advkit.config import methods, resolve, settings
from advkit.config.machine import Machine, Output, computing
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.options import options_of
from advkit.parallel import ranks
from advkit.runtime.reporting import Reporter

if TYPE_CHECKING:
    import torch

    from advkit.artifacts.result import Result

LEFT_OUT = {
    "method",
    "objective",
    "labels",
    "wa",
    "awp",
    "soft_labels",
    "teacher",
    "labels_digest",
    "extra_data",
    "extra_fraction",
    "extra_digest",
    "workers",
    "split_seed",
    "image_list",
}
"""What the bench chooses by itself, or what changes no time."""


def run(call: Call) -> Iterator[Record]:
    """Time every method and yield one record with the table."""
    wanted, here = call.build(BenchOptions), call.build(Machine)
    budget = projection.parse_budget(wanted.budget) if wanted.budget else None
    flags = call.pick(settings.options())
    chosen = {name: resolved(flags, wanted, name) for name in _methods(wanted.methods)}
    if ranks.world() > 1:
        raise UsageError("bench is one process's work: start it without torchrun")
    device = here.torch_device()
    threads = here.threads_for(next(iter(chosen.values())).arch)
    with computing(device, threads):
        result = _measured(chosen, wanted, here, device, budget, speaker("bench", call))
    environment = {"device": device.type, "threads": threads}
    if not call.talk.quiet:
        print(result.text, file=sys.stderr)
    yield _record(result, chosen, wanted, call.build(Output), environment)


def _methods(text: str) -> list[str]:
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names:
        raise UsageError("--methods names none")
    for name in names:
        methods.parse(name)
    return list(dict.fromkeys(names))


def resolved(flags: Mapping[str, Any], wanted: BenchOptions, name: str) -> Settings:
    """Return a method's configuration; options that only other methods have are left to them."""
    layers: list[resolve.Layer] = [(flags, resolve.FLAG)]
    if wanted.config:
        path = Path(wanted.config)
        layers.insert(0, (resolve.read(path), f"from {path.name}"))
    foreign = _foreign(name) | LEFT_OUT
    kept = [({k: v for k, v in layer.items() if k not in foreign}, w) for layer, w in layers]
    return resolve.resolve(*kept, ({"method": name}, "bench"), preset=wanted.preset).settings


def _foreign(name: str) -> set[str]:
    """Return the options of objectives and label sources that a method does not use."""
    choices = methods.parse(name)
    used = {"objectives": choices.objective, "labels": choices.labels}
    foreign = set()
    for folder, part in used.items():
        mine = {option.name for option in registry.part(folder, part).options}
        foreign |= {option.name for option in registry.shared_options(folder)} - mine
    if not registry.part("objectives", choices.objective).constants.get("ATTACKS", True):
        foreign.add("attack_steps")
    return foreign


def _measured(
    chosen: Mapping[str, Settings],
    wanted: BenchOptions,
    here: Machine,
    device: torch.device,
    budget: float | None,
    reporter: Reporter,
) -> Result:
    from advkit.bench import images, measure, table

    facts = images.facts(next(iter(chosen.values())), here.data_root)
    found = measure.compare(chosen, facts, device, wanted.steps, reporter)
    wishes = table.Wishes(wanted.clean_accuracy, wanted.robust_accuracy, wanted.watts, budget)
    return table.report(chosen, found, facts.test, wishes)


def _record(
    result: Result,
    chosen: Mapping[str, Settings],
    wanted: BenchOptions,
    output: Output,
    environment: Mapping[str, Any],
) -> Record:
    from advkit.artifacts import analysis, provenance

    first = next(iter(chosen.values()))
    described = {key: value for key, value in first.described().items() if key not in LEFT_OUT}
    description = provenance.describe(
        "analysis",
        config={"analysis": "bench", **described, **asdict(wanted)},
        seed=first.seed,
        parents=[],
        environment=environment,
    )
    out = Path(output.out) if output.out else None
    if out is not None:
        analysis.check(out)
        if out.exists() and not output.overwrite:
            analysis.require_same(out, result, description)
        analysis.write(out, result, description)
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return records.make(
        "analysis",
        out,
        analysis.digest(result, description),
        analysis="bench",
        data=first.data,
        arch=first.arch,
        batch_size=first.batch_size,
        **environment,
        **result.numbers,
        rows=rows,
        groups=list(result.groups),
    )


COMMAND = Command(
    "bench",
    "Time each method on this machine, on random images, and project hours and AutoAttack's time.",
    (
        *options_of(BenchOptions),
        *(option for option in settings.options() if option.name not in LEFT_OUT),
        options.DATA_ROOT,
        *options.MACHINE,
        options.OUT,
        options.OVERWRITE,
    ),
    run,
    example="advkit bench --data cifar10 --arch resnet18 --budget 12h",
)

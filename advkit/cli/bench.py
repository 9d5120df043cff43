"""`advkit bench`: what each method costs here, before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.bench import projection
from advkit.cli.common import machine, options, stage
from advkit.cli.common.options import Command, Given
from advkit.config import methods, resolve, settings
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.options import Option
from advkit.parallel import ranks

if TYPE_CHECKING:
    from advkit.artifacts.result import Result

METHODS = "at,adr,at-awp,adr-awp,trades,ltd"
LEFT_OUT = {
    "method", "objective", "labels", "wa", "awp", "soft_labels", "teacher", "labels_digest",
    "extra_data", "extra_fraction", "extra_digest", "workers", "split_seed", "image_list",
}  # fmt: skip
"""What the bench chooses by itself, or what changes no time."""
OWN = (
    Option("methods", "str", METHODS, "methods to time; ratios are to the first", "Bench"),
    Option("steps", "int", 5, "timed training steps of each method", "Bench", limits=">= 1"),
    Option("watts", "float", None, "what the machine draws, for kWh", "Bench", limits="> 0"),
    Option("budget", "str", None, "say what fits: 4h, 90m or 2d", "Bench"),
    Option("clean_accuracy", "float", 0.82, "assumed of the nets under AutoAttack", "Bench",
           limits="[0, 1]"),
    Option("robust_accuracy", "float", 0.5, "assumed likewise: these cost every pass", "Bench",
           limits="[0, 1]"),
    Option("preset", "str", None, "numbers of the paper or of its code", settings.METHOD,
           methods.PRESETS),
    Option("config", "str", None, "read options from a TOML file; flags win", settings.RUN),
)  # fmt: skip


def run(given: Given) -> Iterator[Record]:
    """Time every method and yield one record with the table."""
    own = _own(given)
    budget = projection.parse_budget(own["budget"]) if own["budget"] else None
    chosen = {name: resolved(given, name) for name in _methods(own["methods"])}
    if ranks.world() > 1:
        raise UsageError("bench is one process's work: start it without torchrun")
    device = machine.device(given["device"])
    threads = machine.threads(given, next(iter(chosen.values())).arch)
    machine.use_threads(threads)
    result = _measured(chosen, own, given, device, budget)
    yield _record(result, chosen, own, given, {"device": device.type, "threads": threads})


def _own(given: Given) -> dict[str, Any]:
    found = {}
    for option in OWN:
        value = given.get(option.name)
        option.check(value)
        found[option.name] = option.default if value is None else value
    return found


def _methods(text: str) -> list[str]:
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names:
        raise UsageError("--methods names none")
    for name in names:
        methods.parse(name)
    return list(dict.fromkeys(names))


def resolved(given: Given, name: str) -> Settings:
    """Return a method's configuration; options that only other methods have are left to them."""
    flags = stage.chosen(given, [option.name for option in settings.options()])
    layers: list[resolve.Layer] = [(flags, resolve.FLAG)]
    if given["config"]:
        path = Path(given["config"])
        layers.insert(0, (resolve.read(path), f"from {path.name}"))
    foreign = _foreign(name) | LEFT_OUT
    kept = [({k: v for k, v in layer.items() if k not in foreign}, w) for layer, w in layers]
    return resolve.resolve(*kept, ({"method": name}, "bench"), preset=given["preset"]).settings


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
    chosen: dict[str, Settings], own: dict[str, Any], given: Given, device: Any,
    budget: float | None,
) -> Result:  # fmt: skip
    from advkit.bench import images, measure, table

    facts = images.facts(next(iter(chosen.values())), given["data_root"])
    speaker = machine.speaker("bench", given)
    found = measure.compare(chosen, facts, device, own["steps"], speaker)
    wishes = table.Wishes(own["clean_accuracy"], own["robust_accuracy"], own["watts"], budget)
    return table.report(chosen, found, facts.test, wishes)


def _record(
    result: Result, chosen: dict[str, Settings], own: dict[str, Any], given: Given,
    environment: dict[str, Any],
) -> Record:  # fmt: skip
    from advkit.artifacts import analysis, provenance

    first = next(iter(chosen.values()))
    described = {key: value for key, value in first.described().items() if key not in LEFT_OUT}
    description = provenance.describe(
        "analysis", config={"analysis": "bench", **described, **own}, seed=first.seed,
        parents=[], environment=environment,
    )  # fmt: skip
    out = Path(given["out"]) if given["out"] else None
    if out is not None:
        analysis.check(out)
        if out.exists() and not given["overwrite"]:
            analysis.require_same(out, result, description)
        analysis.write(out, result, description)
    if not given["quiet"]:
        print(result.text, file=sys.stderr)
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return records.make(
        "analysis", out, analysis.digest(result, description), analysis="bench",
        data=first.data, arch=first.arch, batch_size=first.batch_size, **environment,
        **result.numbers, rows=rows, groups=list(result.groups),
    )  # fmt: skip


COMMAND = Command(
    "bench",
    "Time each method on this machine, on random images, and project hours and AutoAttack's time.",
    (
        *OWN,
        *(option for option in settings.options() if option.name not in LEFT_OUT),
        options.DATA_ROOT,
        *options.MACHINE,
        options.OUT,
        options.OVERWRITE,
    ),
    run,
    example="advkit bench --data cifar10 --arch resnet18 --budget 12h",
)

"""Analyses that ask a model: their shared options, and the model with its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common import machine, options, stage
from advkit.cli.common.options import Given
from advkit.errors import UsageError
from advkit.formulas.threat import parse_eps
from advkit.options import Option
from advkit.registry import Part

if TYPE_CHECKING:
    from advkit.analyses.probing.probe import Probe

OPTIONS = (
    options.NORM,
    options.EPS,
    Option("data", "str", None, "data set; the checkpoint's", "Data"),
    Option("image_size", "int", None, "of folder:DIR; the checkpoint's input size", "Data"),
    Option("image_list", "str", None, "of imagenet: file that names the test images", "Data"),
    Option("limit", "int", None, "first N test examples, class balanced", "Data"),
    options.DATA_ROOT,
    Option("seed", "int", None, "seed of every draw (0)", "Attack"),
    Option("batch_size", "int", None, "examples in a batch (250)", "Machine"),
    *options.MACHINE,
)


def options_of(part: Part) -> tuple[Option, ...]:
    """Return the shared options, `--limit` with the part's own default in its help."""
    own = part.constants.get("LIMIT")
    return tuple(
        replace(each, help=f"{each.help} ({own})") if each.name == "limit" and own else each
        for each in OPTIONS
    )


def check(given: Given) -> None:
    """Refuse impossible values before any work.

    Raises:
        UsageError: there are some.
    """
    for name in ("limit", "batch_size"):
        if given[name] is not None and given[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    if given["eps"] is not None:
        parse_eps(given["eps"], given["norm"] or "linf")


def probe(given: Given, name: str, source: Record, part: Part) -> Probe:
    """Load the model of a checkpoint and its test data.

    A part's `LIMIT` is how many examples it asks about where `--limit` does not say.
    """
    from advkit.analyses.probing import probe as _probe
    from advkit.artifacts import checkpoint

    path = Path(records.wanted(source, ("checkpoint",)))
    info = checkpoint.read_info(path)
    trained = info["config"]
    norm = given["norm"] or trained["norm"]
    if norm != trained["norm"] and given["eps"] is None:
        raise UsageError(
            f"--norm {norm}: the checkpoint's eps {trained['eps']} is one of "
            f"{trained['norm']}; give --eps too"
        )
    device = machine.device(given["device"])
    machine.use_threads(machine.threads(given, info["arch"]))
    place = stage.location(given, source, path, info)
    return _probe.probe(
        str(path), stage.images(given, place, info, "test"), eps=given["eps"] or trained["eps"],
        norm=norm, limit=given["limit"] or part.constants.get("LIMIT"), device=device,
        seed=given["seed"] or 0, batch_size=given["batch_size"] or 250,
        reporter=machine.speaker(name, given),
    )  # fmt: skip


def checkpoints(given: Given, part: Part) -> dict[str, Mapping[str, Any]]:
    """Return the descriptions of the checkpoints that a part's own options name (`CHECKPOINTS`).

    Raises:
        InputError: one is missing or none.
    """
    from advkit.artifacts import checkpoint

    names = [name for name in part.constants.get("CHECKPOINTS", ()) if given[name]]
    return {name: checkpoint.read_info(Path(given[name])) for name in names}


def described(inputs: Sequence[Any]) -> Mapping[str, Any]:
    """Return what the models were asked, for the analysis' description."""
    found: dict[str, Any] = {}
    for each in inputs:
        for key, value in each.described.items():
            found.setdefault(key, []).append(value)
    return {key: each[0] if len(each) == 1 else each for key, each in found.items()}


def parents(inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return checkpoints and data of all inputs."""
    return [parent for each in inputs for parent in each.parents]


def environment(given: Given, inputs: Sequence[Any]) -> dict[str, Any]:
    """Return what a float's last bit may depend on."""
    device, arch = inputs[0].device.type, inputs[0].info["arch"]
    return {"device": device, "threads": machine.threads(given, arch)}

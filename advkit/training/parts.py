"""The parts of a training method: its label source and its objective, with their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from advkit import registry
from advkit.config.settings import Settings
from advkit.images.batches import Batch
from advkit.labels import Context
from advkit.objectives import Given
from advkit.registry import sources


@dataclass(frozen=True)
class Parts:
    """The functions of a method, waiting for a batch.

    `targets` gives the rows (B, C) that the student is asked for, `inner` the loss per example
    (B,) that the attack ascends, `outer` the loss that the student descends and its logits by
    kind. `start` names the attack's first noise. `needs_ema`: the labels come from the weight
    average. `clean_first`: the clean pass precedes the attack's.
    """

    targets: Callable[[Batch, Context], Tensor]
    inner: Callable[[Tensor, Given], Tensor]
    outer: Callable[[nn.Module, Tensor, Tensor, Given], tuple[Tensor, dict[str, Tensor]]]
    start: str
    needs_ema: bool
    clean_first: bool


def parts_of(settings: Settings) -> Parts:
    """Return the parts that the settings name."""
    labels = registry.load("labels", settings.labels)
    objective = registry.load("objectives", settings.objective)
    needs = registry.part("labels", settings.labels).constants.get("NEEDS", ())
    constants = registry.part("objectives", settings.objective).constants
    options = settings.options_of("objectives")
    # Where BN moves during the attack, its order counts: clean first, as in ADR's TRADES.
    clean_when = constants.get("CLEAN_WHEN", {})
    return Parts(
        targets=_bound(labels.targets, settings.options_of("labels")),
        inner=_bound(objective.inner, options),
        outer=_bound(objective.outer, options),
        start=settings.attack_start or constants.get("START", "uniform"),
        needs_ema="ema" in needs,
        clean_first=any(options.get(name) in values for name, values in clean_when.items()),
    )


def digests(settings: Settings) -> dict[str, str]:
    """Return what the parts of a run mean, by `shelf/name`; see `registry.sources`.

    A net of another package is no part.
    """
    return sources.digests(
        ("objectives", settings.objective),
        ("labels", settings.labels),
        *sources.family(settings.arch),
        ("data", settings.data_name),
    )


def _bound(function: FunctionType, options: Mapping[str, object]) -> partial[Any]:
    """Bind the options that a function declares, under its own spelling (`lambda_`)."""
    # A part gets the options it declares; `lambda` is a word of Python, hence `lambda_`.
    declared = function.__kwdefaults__ or {}
    values = {name: options[name.rstrip("_")] for name in declared if name.rstrip("_") in options}
    return partial(function, **values)

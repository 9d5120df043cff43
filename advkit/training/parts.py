"""The parts of a training run: objective, label source, augmentation, with their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, cast

from torch import Generator, Tensor, nn

from advkit import registry
from advkit.config.settings import Settings
from advkit.images.augment import Augmentation, Shape
from advkit.images.batches import Batch
from advkit.labels import Context
from advkit.objectives import Given
from advkit.registry import sources
from advkit.runtime.memory import moved


@dataclass(frozen=True)
class Keeping:
    """How a part keeps a memory: `begin` makes it from the labels of the split and C.

    `update` changes it in place, from places (B,), classes (B,), what the part told (B, C) and the
    epoch.
    """

    begin: Callable[[Tensor, int], dict[str, Tensor]]
    update: Callable[[Mapping[str, Tensor], Tensor, Tensor, Tensor, int], None]


@dataclass(frozen=True)
class Parts:
    """The functions of a method, waiting for a batch.

    `targets` gives the rows (B, C) that the student is asked for, `inner` the loss per example
    (B,) that the attack ascends, `outer` the loss that the student descends and its logits by
    kind. `start` names the attack's first noise. `needs_ema`: the labels come from the weight
    average. `clean_first`: the clean pass precedes the attack's. `keeps`: the memories, by shelf.

    `sees` names what `inner` gets by keyword beside logits and what is given: `x`, the clean
    images, and `x_adv`, the iterate.
    """

    targets: Callable[[Batch, Context], Tensor]
    inner: Callable[..., Tensor]
    outer: Callable[[nn.Module, Tensor, Tensor, Given], tuple[Tensor, dict[str, Tensor]]]
    start: str
    needs_ema: bool
    clean_first: bool
    sees: frozenset[str] = frozenset()
    keeps: Mapping[str, Keeping] = field(default_factory=dict)


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
        sees=frozenset({*inspect.signature(objective.inner).parameters} & {"x", "x_adv"}),
        keeps={
            **_keeping("labels", labels, settings.options_of("labels")),
            **_keeping("objectives", objective, options),
        },
    )


def augmentation_of(settings: Settings) -> Augmentation:
    """Return the augmentation that the settings name."""
    module = registry.load("augment", settings.augment)
    constants = registry.part("augment", settings.augment).constants
    options = settings.options_of("augment")
    # Partials, not closures: what decodes files may be sent to other processes.
    return Augmentation(
        settings.augment,
        partial(_drawn, _bound(module.draw, options)),
        partial(_applied, _bound(module.apply, options)),
        views=constants.get("VIEWS", False),
        cropped=constants.get("CROPPED", False),
        mixed=_bound(module.mixed, options) if constants.get("MIXES", False) else None,
        by_image=constants.get("BY_IMAGE", False),
    )


def digests(settings: Settings) -> dict[str, str]:
    """Return what the parts of a run mean, by `shelf/name`; see `registry.sources`.

    A net of another package is no part.
    """
    return sources.digests(
        ("objectives", settings.objective),
        ("labels", settings.labels),
        ("augment", settings.augment),
        *sources.family(settings.arch),
        ("data", settings.data_name),
    )


def _keeping(shelf: str, module: ModuleType, options: Mapping[str, object]) -> dict[str, Keeping]:
    """Return how a part keeps its memory, by its shelf; nothing of a part that has none."""
    if not hasattr(module, "memory"):
        return {}
    return {shelf: Keeping(_bound(module.memory, options), _bound(module.update, options))}


def _bound(function: FunctionType, options: Mapping[str, object]) -> partial[Any]:
    """Bind the options that a function declares, under its own spelling (`lambda_`)."""
    # A part gets the options it declares; `lambda` is a word of Python, hence `lambda_`.
    declared = function.__kwdefaults__ or {}
    values = {name: options[name.rstrip("_")] for name in declared if name.rstrip("_") in options}
    return partial(function, **values)


def _drawn(
    draw: partial[Tensor], n: int, shape: Shape, generator: Generator, pad: int, flip: bool
) -> Tensor:
    supplied = {"generator": generator, "pad": pad, "flip": flip}
    return draw(n, shape, **_wanted(draw, supplied))


def _applied(apply: partial[Tensor], images: Tensor, rows: Tensor, pad: int) -> Tensor:
    return apply(images, moved(rows, images.device), **_wanted(apply, {"pad": pad}))


def _wanted(function: partial[Tensor], supplied: Mapping[str, object]) -> dict[str, object]:
    """Return what a function asks for of what the engine supplies."""
    code = cast(FunctionType, function.func).__code__
    first = code.co_argcount
    asked = code.co_varnames[first : first + code.co_kwonlyargcount]
    return {name: supplied[name] for name in asked if name in supplied}

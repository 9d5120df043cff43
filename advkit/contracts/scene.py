"""What parts are tried on: a few images, a small net, and a look at what must stay as it was."""

from __future__ import annotations

import copy
import inspect
import itertools
import random
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from advkit import models, registry
from advkit.errors import AdvkitError
from advkit.images.batches import Batch, Batches
from advkit.images.image_set import Images
from advkit.objectives import Given
from advkit.registry import Part
from advkit.registry.declarations import TEACHERS

CLASSES, COUNT, EPOCHS = 5, 12, 200
SMALL = {"width": 4, "depth": 10, "widen": 1}
"""Options that make an architecture small, where it has them."""
QUICK = {"steps": 3, "restarts": 1, "queries": 20}
"""Options that make an attack quick, where it has them."""


class Breach(AdvkitError):
    """A part does not keep a promise."""


def demand(kept: object, otherwise: str) -> None:
    """Check that a promise is kept.

    Raises:
        Breach: it is not; the message says how that shows.
    """
    if not kept:
        raise Breach(otherwise)


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Return normal draws of a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(channels: int = 3, size: int = 8) -> Tensor:
    """Return random images (COUNT, channels, size, size) in [0, 1]."""
    return torch.rand(COUNT, channels, size, size, generator=torch.Generator().manual_seed(0))


def classes() -> Tensor:
    """Return their classes, (COUNT,)."""
    return torch.arange(COUNT) % CLASSES


def small(
    name: str = "small-cnn", channels: int = 3, *, statistics: bool = True, seed: int = 0
) -> nn.Module:
    """Return a small net whose BN statistics, unless told otherwise, are those of some images."""
    normalisation = ([0.4] * channels, [0.3] * channels)
    known = {option.name for option in registry.part("models", name).options}
    chosen = {option: value for option, value in SMALL.items() if option in known}
    net = models.build(
        name, CLASSES, channels=channels, statistics=normalisation, seed=seed, **chosen
    )
    if statistics:
        with torch.no_grad():
            net.train()(images(channels, 16))
    return net.eval()


def generators() -> list[object]:
    """Return the state of every global random generator."""
    kind, keys, *rest = np.random.get_state()
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        (kind, typing.cast(typing.Any, keys).tolist(), *rest),
    ]


def state(net: nn.Module) -> list[object]:
    """Return everything about a net that a part must leave as it was."""
    tensors = {name: value.tolist() for name, value in net.state_dict().items()}
    return [
        tensors,
        [module.training for module in net.modules()],
        [getattr(module, "track_running_stats", None) for module in net.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()],
    ]


@contextmanager
def untouched(*things: Tensor | nn.Module) -> Iterator[None]:
    """Check that nets, tensors and the global generators are left as they were.

    Raises:
        Breach: one is not.
    """

    def look() -> list[object]:
        seen = [
            state(thing) if isinstance(thing, nn.Module) else (thing.tolist(), thing.grad)
            for thing in things
        ]
        return [*seen, *generators()]

    before = copy.deepcopy(look())
    yield
    demand(
        look() == before,
        "it changes what it is given (nets, their modes and gradients, tensors) or draws from a "
        "global random generator",
    )


def batch_of(x: Tensor) -> Batch:
    """Return images as a batch of training."""
    raw = (x * 255).to(torch.uint8)
    names = tuple(str(label) for label in range(CLASSES))
    split = Images("x", "train", raw, classes(), names, pad=1, flip=True)
    whole = Batches(split, torch.arange(COUNT), COUNT, 0, torch.device("cpu"))
    return whole.at(whole.order(0), 0, 0)


def given_of(part: Part, net: nn.Module, x: Tensor, epoch: int = EPOCHS) -> Given:
    """Return random targets for images, the net's clean logits, and what an objective asks."""
    rows = torch.softmax(draws(COUNT, CLASSES, seed=1), dim=1)
    with torch.no_grad():
        clean = net(x)
    return Given(
        classes(),
        rows,
        lambda: clean,
        teachers=dict.fromkeys(TEACHERS, teacher_of(net)),
        memory=memory_of(part),
        index=torch.arange(COUNT),
        epoch=epoch,
        epochs=EPOCHS,
    )


def teacher_of(net: nn.Module) -> nn.Module:
    """Return a fixed net of the same form with other weights."""
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    for number, parameter in enumerate(teacher.parameters()):
        parameter.data.add_(draws(*parameter.shape, seed=number), alpha=0.5)
    return teacher


def memory_of(part: Part) -> dict[str, Tensor]:
    """Return the memory of a label source or objective at its beginning; empty if it has none."""
    module = registry.load(part.folder, part.name)
    begun: dict[str, Tensor] = (
        module.memory(classes(), CLASSES) if hasattr(module, "memory") else {}
    )
    return begun


def inner_loss(
    part: Part, given: Given, x: Tensor, chosen: Mapping[str, object] | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return an objective's inner loss as a function of an iterate and its logits."""
    inner = registry.load("objectives", part.name).inner
    asked = {*inspect.signature(inner).parameters} & {"x", "x_adv"}

    def loss(x_adv: Tensor, logits: Tensor) -> Tensor:
        pictures = {"x": x, "x_adv": x_adv}
        seen = {name: pictures[name] for name in asked}
        losses: Tensor = inner(logits, given, **seen, **(chosen or {}))
        return losses

    return loss


def having(function: Callable[..., object], chosen: Mapping[str, object]) -> dict[str, object]:
    """Return the chosen options that a function has."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in chosen.items() if name in known}


def settings(function: Callable[..., object]) -> list[dict[str, object]]:
    """Return every combination of the choices of a function's options."""
    hints = typing.get_type_hints(function)
    choices = {
        name: typing.get_args(hints[name]) if _is_literal(hints[name]) else (False, True)
        for name, one in inspect.signature(function).parameters.items()
        if one.kind is one.KEYWORD_ONLY and (hints[name] is bool or _is_literal(hints[name]))
    }
    return [dict(zip(choices, one, strict=True)) for one in itertools.product(*choices.values())]


def _is_literal(hint: object) -> bool:
    return typing.get_origin(hint) is typing.Literal

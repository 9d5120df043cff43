"""Architectures: logits from pixels in [0, 1], with the normalisation inside as buffers.

An architecture is named by its file; trailing numbers are its first options in their order:
`wrn-34-10` is `wrn.py` with depth 34 and widen factor 10.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from advkit import registry
from advkit.artifacts import checkpoint, descriptions
from advkit.errors import InputError, MismatchError, NumericalError, UsageError, brief
from advkit.models import _zoos
from advkit.models._blocks import Net, Statistics, SubsampledConv
from advkit.models._normalised import normalised
from advkit.models._zoos import arguments, given, published, require
from advkit.registry import sources
from advkit.runtime import seeding

__all__ = [
    "Net",
    "Statistics",
    "SubsampledConv",
    "arguments",
    "build",
    "given",
    "load",
    "load_finite",
    "published",
    "require",
    "require_finite",
    "require_logits",
    "restore",
]


def build(
    arch: str,
    classes: int,
    *,
    channels: int,
    statistics: Statistics,
    seed: int,
    size: int | None = None,
    **options: object,
) -> nn.Module:
    """Build a freshly initialised net; the global generator is left as it was.

    Args:
        arch: name, see `registry.split_numbers`; or PACKAGE:NAME of torchvision's or timm's nets.
        classes: number of logits.
        channels: 1 or 3; an architecture's `CHANNELS` says if it takes only one of them.
        statistics: per-channel mean and standard deviation of pixels in [0, 1].
        seed: of the initial weights.
        size: height of the images, which a package's net may be built for.
        options: the architecture's own options.

    Raises:
        UsageError: no such architecture, or options or channels that it cannot take.
    """
    if registry.is_outside(arch):
        for key in options:
            raise UsageError(f"--{key.replace('_', '-')} has no meaning for {arch}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.derive(seed, "weights"))
            foreign = _zoos.build(
                arch, classes, channels=channels, statistics=statistics, size=size
            )
        return foreign.to(memory_format=torch.channels_last)
    name, numbers = registry.split_numbers(arch)
    module = registry.load("models", name)
    part = registry.part("models", name)
    known = {option.name: option for option in part.options}
    allowed = part.constants.get("CHANNELS", (channels,))
    if channels not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise UsageError(f"{arch} takes images of {wanted} channels, not {channels}")
    for key, value in {**options, **numbers}.items():
        if key not in known:
            raise UsageError(f"--{key.replace('_', '-')} has no meaning for {arch}")
        try:
            known[key].require(value)
        except UsageError as error:
            raise UsageError(f"{arch}: {error}") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.derive(seed, "weights"))
        net = _made(
            getattr(module, part.place.function or "build"),
            classes,
            {"channels": channels, "statistics": statistics},
            {**options, **numbers},
            str(part.path),
        )
    _require_sized(net, str(part.path))
    # The layout that convolutions are fastest in, on CPUs and GPUs.
    return net.to(memory_format=torch.channels_last)


def _made(
    make: Callable[..., object],
    classes: int,
    supplied: Mapping[str, Any],
    options: Mapping[str, object],
    where: str,
) -> nn.Module:
    """Call a part's function with what it asks for of what is supplied.

    A net that is not told the statistics cannot normalise: it gets normalised images.

    Raises:
        UsageError: it makes no net.
    """
    asked = inspect.signature(make).parameters
    told = {name: value for name, value in supplied.items() if name in asked}
    net = make(classes, **told, **options)
    if not isinstance(net, nn.Module):
        raise UsageError(
            f"{where}: what it builds is of type {type(net).__name__}, no torch.nn.Module"
        )
    return net if "statistics" in asked else normalised(net, supplied["statistics"], where)


def _require_sized(net: nn.Module, where: str) -> None:
    """Refuse lazy layers: their weights are made from the first image, too late for a seed.

    Raises:
        UsageError: it has some; the message names the file and the first.
    """
    for name, layer in net.named_modules():
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        if any(is_lazy(tensor) for tensor in own):
            raise UsageError(
                f"{where}: layer {name or 'itself'} ({type(layer).__name__}) has no weights before "
                "it has seen an image: give it its sizes, as nn.Linear(in, out)"
            )


def load(
    path: Path | str, device: torch.device | str = "cpu"
) -> tuple[nn.Module, descriptions.Checkpoint]:
    """Rebuild the net of a checkpoint, in eval mode: (model, description).

    Raises:
        InputError: missing, corrupt or foreign file, or one that describes no model.
        MismatchError: the tensors are not those of the architecture that the file names.
    """
    tensors, info = checkpoint.read(path)
    model = restore(tensors, info, path)
    return model.to(device).eval(), info


def load_finite(
    path: Path | str, device: torch.device | str = "cpu"
) -> tuple[nn.Module, descriptions.Checkpoint]:
    """Rebuild the net of a checkpoint whose answers are to be used, see `load`.

    Raises:
        NumericalError: a weight is not finite.
    """
    model, info = load(path, device)
    require_finite(model.state_dict(), path)
    return model, info


def restore(
    tensors: Mapping[str, Tensor], info: descriptions.Checkpoint, where: object
) -> nn.Module:
    """Build the net that a description names and fill it.

    Raises:
        InputError: the description names no model.
        MismatchError: names, shapes or dtypes differ; the message lists the first. Or the net is
            of somebody else's source, and that is another one now.
        UsageError: the net is one of a package that is not installed, or a part that is not here.
    """
    sources.require(info.get("parts", {}), "models", where)
    with suppress(KeyError, TypeError):  # what a forged description lacks is told below
        require(info["model"]["arch"])
    try:
        described, classes = info["model"], len(info["data"]["classes"])
        arch, options = described["arch"], described["options"]
        _require_size({**options, **registry.split_numbers(arch)[1]}, tensors)
        build_it = partial(
            build,
            arch,
            classes,
            channels=described["input_shape"][0],
            statistics=(described["mean"], described["std"]),
            seed=0,
            size=described["input_shape"][1],
            **options,
        )
        with suppress(RuntimeError), torch.device("meta"):  # shapes before memory
            _compare(build_it().state_dict(), tensors, where)
        model = build_it()
    except (
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        ValueError,
        RuntimeError,
        UsageError,
    ) as error:
        raise InputError(f"{where}: its description names no model: {brief(error)}") from None
    _compare(model.state_dict(), tensors, where)
    model.load_state_dict(dict(tensors))
    return model


def _require_size(options: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Refuse to build a net of more layers or channels than a file has weights.

    Raises:
        ValueError: an option says so.
    """
    # Each unit of width or depth has at least one weight of its own.
    most = sum(tensor.numel() for tensor in tensors.values())
    for name, value in options.items():
        if isinstance(value, int) and value > most:
            raise ValueError(f"{name} is {value}, but it holds {most} weights")


def _compare(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: object) -> None:
    problems = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{name} is not in the architecture" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        want, got = expected[name], tensors[name]
        if want.shape != got.shape or want.dtype != got.dtype:
            shapes = f"{got.dtype} {tuple(got.shape)}, not {want.dtype} {tuple(want.shape)}"
            problems.append(f"{name} is {shapes}")
    if problems:
        listed = "; ".join(sorted(problems)[:3])
        raise MismatchError(f"{where}: {len(problems)} tensors do not fit: {listed}")


def require_logits(logits: Tensor, rows: int, classes: int, arch: str) -> None:
    """Check that a net's answer has the shape of logits: (B, classes).

    Raises:
        NumericalError: it has another, or is no tensor; the message names the architecture.
    """
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (rows, classes):
        raise NumericalError(
            f"architecture {arch!r}: its answer to {rows} images of {classes} classes is {shape}, "
            f"not {(rows, classes)}"
        )


def require_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Check weights before an evaluation.

    Raises:
        NumericalError: naming the first tensor with NaN or infinity.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NumericalError(f"{where}: {name} holds NaN or infinity")

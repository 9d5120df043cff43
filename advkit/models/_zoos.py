"""Nets of torchvision and timm by their own names: `torchvision:resnet18`, `timm:vit_tiny_…`.

Weights keep the package's names; nothing is downloaded. A net of timm's may be one with arguments:
`timm:vit_tiny_patch16_224,patch_size=4`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from advkit.errors import UsageError, brief, unknown
from advkit.models._blocks import Statistics
from advkit.models._normalised import normalised
from advkit.registry import is_outside

ARGUMENTS = ("patch_size", "window_size", "depth", "embed_dim", "num_heads", "reg_tokens")
"""timm's arguments that a name may carry. No others: `pretrained` would download, and
`checkpoint_path` unpickle."""


def build(
    arch: str, classes: int, *, channels: int, statistics: Statistics, size: int | None
) -> nn.Module:
    """Build a net of one of the packages, freshly initialised.

    Args:
        arch: PACKAGE:NAME, for timm's also with arguments.
        classes: number of logits.
        channels: of the images; torchvision's nets take 3.
        statistics: per-channel mean and standard deviation of pixels in [0, 1].
        size: height of the images, for nets that are built for one; None for their own.

    Raises:
        UsageError: the package is not installed, has no such net, or none for such images.
    """
    package, name, arguments = split(arch)
    module = _module(package)
    names = module.list_models()
    # A name with more in it could make timm load from elsewhere.
    if name not in names:
        raise unknown(f"{package} net", name, names)
    try:
        if package == "torchvision":
            net = _torchvision(module, name, classes, channels, size)
        else:
            net = _timm(module, name, classes, channels, size, arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"{arch} cannot be built for this: {brief(error)}") from None
    return normalised(net, statistics, arch)


def split(arch: str) -> tuple[str, str, dict[str, int]]:
    """Return (package, name, arguments) of a package's net.

    >>> split("timm:vit_tiny_patch16_224,patch_size=4,depth=6")
    ('timm', 'vit_tiny_patch16_224', {'patch_size': 4, 'depth': 6})

    Raises:
        UsageError: arguments that such a name cannot carry.
    """
    package, _, rest = arch.partition(":")
    name, *words = rest.split(",")
    arguments: dict[str, int] = {}
    for word in words:
        key, _, value = word.partition("=")
        if package != "timm":
            raise UsageError(f"{arch}: nets of {package} take no arguments here")
        # Five digits are nobody's depth.
        if key not in ARGUMENTS or key in arguments or not re.fullmatch("[0-9]{1,4}", value):
            raise UsageError(
                f"{arch}: {word!r} is none of the arguments {', '.join(ARGUMENTS)}, each once, "
                "with a whole number below 10000"
            )
        arguments[key] = int(value)
    return package, name, arguments


def arguments(said: Mapping[str, object]) -> dict[str, int]:
    """Return those of timm's arguments that a name may carry.

    >>> arguments({"img_size": [32, 32], "patch_size": 4, "depth": True})
    {'patch_size': 4}
    """
    # A truth value is a whole number too.
    return {name: value for name, value in said.items()
            if name in ARGUMENTS and type(value) is int and 0 <= value < 10000}  # fmt: skip


def published(arch: str) -> tuple[list[int], list[float], list[float]] | None:
    """Return (input shape, mean, std) of a timm net's own configuration; None for all others.

    Raises:
        UsageError: timm is not installed, or has no such net.
    """
    if not arch.startswith("timm:"):
        return None
    package, name, _ = split(arch)
    module = _module(package)
    if name not in module.list_models():
        raise unknown("timm net", name, module.list_models())
    config = module.get_pretrained_cfg(name)
    if config is None:
        return None
    return list(config.input_size), list(config.mean), list(config.std)


def require(arch: str) -> None:
    """Check that the package of an architecture is there, if it is a package's.

    Raises:
        UsageError: it is not installed, or the name carries arguments that it cannot.
    """
    if is_outside(arch):
        _module(split(arch)[0])


def _module(package: str) -> ModuleType:
    try:
        if package == "torchvision":
            return importlib.import_module("torchvision.models")
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(
            f"--arch {package}:NAME needs the package {package}: python -m pip install {package}"
        ) from None


def _torchvision(
    module: Any, name: str, classes: int, channels: int, size: int | None
) -> nn.Module:
    if channels != 3:
        raise ValueError(f"it takes images of 3 channels, not {channels}")
    options: dict[str, object] = {"image_size": size} if name.startswith("vit_") and size else {}
    # Heads beside the main one, which some nets have in training alone, would give several logits.
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    net: nn.Module = module.get_model(name, weights=None, num_classes=classes, **options)
    return net


def _timm(
    module: Any,
    name: str,
    classes: int,
    channels: int,
    size: int | None,
    arguments: Mapping[str, int],
) -> nn.Module:
    common: Mapping[str, object] = {
        "pretrained": False,
        "num_classes": classes,
        "in_chans": channels,
        **arguments,
    }
    sized = {"img_size": size} if size else {}
    try:
        net: nn.Module = module.create_model(name, **common, **sized)
    except TypeError:  # a net for images of any size
        sized = {}
        net = module.create_model(name, **common)
    net.__dict__[_GIVEN] = {**sized, **arguments}
    return net


_GIVEN = "_advkit_given"


def given(net: nn.Module) -> dict[str, int]:
    """Return what a net of timm's was built with beside classes and channels, as timm calls it."""
    return dict(net.__dict__.get(_GIVEN, {}))

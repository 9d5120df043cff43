"""From the names of others' codes to those of our architectures.

Where an architecture has a public original our names are that one's (RobustBench's, TRADES',
AWP's, DeepMind's, torchvision's), so that little is left to say: wrappers, the normalisation in
front, torchvision's words in a net of CIFAR form, and blocks that a forward pass never reaches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from advkit.errors import MismatchError

Numbers = list[float]
WRAPPERS = ("module", "model", "_orig_mod", "backbone")
"""DataParallel's, a wrapper's, torch.compile's and a backbone's first words."""
MEANS = ("mean", "mu", "_mean", "means")
STDS = ("std", "sigma", "_std", "stds", "sd")
RENAMED: tuple[tuple[str, str], ...] = (
    # torchvision's and timm's ResNets; ours of CIFAR form speak as RobustBench's do.
    (r"\.downsample\.", ".shortcut."),
    (r"^fc\.", "linear."),
    (r"^linear\.", "fc."),
    (r"\.shortcut\.(\d)", r".downsample.\1"),
)
"""Pattern and replacement; used where the result is a name of ours and the original is none."""
IDLE = (r"^sub_block1\.",)
"""TRADES' WRN and those after it hold a block that no forward pass reaches."""
COUNTER = ".num_batches_tracked"
"""BN's counter, which early files lack; it counts for no logit."""
SHOWN = 3
"""Names of each kind that an error lists."""


@dataclass
class Fitted:
    """A state dict under our names, with what was in front of the net and what is to be told."""

    tensors: dict[str, Tensor]
    statistics: tuple[Numbers, Numbers] | None = None
    remarks: list[str] = field(default_factory=list)
    problem: str = ""


def fitted(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], channels: int) -> Fitted:
    """Bring a foreign state dict to the names and dtypes of an architecture.

    Args:
        tensors: foreign.
        expected: the architecture's state dict, `mean` and `std` of the normalisation among it.
        channels: of the images.

    Returns:
        The tensors without `mean` and `std`; `problem` says in one line what does not fit, empty
        where all does.

    Raises:
        MismatchError: two normalisations, or one that no image of so many channels has.
    """
    net = {name: tensor for name, tensor in expected.items() if name not in ("mean", "std")}
    rest, statistics = _normalisation(dict(tensors), net, channels)
    result = Fitted({}, statistics)
    named = _renamed(_unwrapped(rest, net), net)
    idle = [name for name in named if name not in net and _matches(name, IDLE)]
    for name in idle:
        del named[name]
    if idle:
        result.remarks.append(f"{len(idle)} tensors that no forward pass uses are left out")
    counters = [name for name in net.keys() - named.keys() if name.endswith(COUNTER)]
    named.update({name: torch.zeros((), dtype=torch.int64) for name in counters})
    result.problem = _problem(named, net)
    if not result.problem:
        result.tensors = _cast(named, net, result.remarks)
    return result


def _normalisation(
    tensors: dict[str, Tensor], net: Mapping[str, Tensor], channels: int
) -> tuple[dict[str, Tensor], tuple[Numbers, Numbers] | None]:
    """Take the layer that normalises out of a state dict."""
    pairs = []
    for name in tensors:
        prefix, _, last = name.rpartition(".")
        if last not in MEANS or name in net:
            continue
        dot = f"{prefix}." if prefix else ""
        pairs += [(name, f"{dot}{std}") for std in STDS if f"{dot}{std}" in tensors]
    if not pairs:
        return tensors, None
    if len(pairs) > 1:
        names = " and ".join(pair[0] for pair in pairs[:SHOWN])
        raise MismatchError(f"holds {len(pairs)} normalisations ({names}); wanted: one")
    mean, std = (tensors.pop(name).detach().double().flatten().tolist() for name in pairs[0])
    if {len(mean), len(std)} - {1, channels}:
        raise MismatchError(f"{pairs[0][0]} has {len(mean)} channels, the images have {channels}")
    means, stds = (values * channels if len(values) == 1 else values for values in (mean, std))
    if not all(value > 0 for value in stds):
        raise MismatchError(f"{pairs[0][1]} is not above 0 everywhere")
    return tensors, (means, stds)


def _unwrapped(tensors: dict[str, Tensor], net: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the first words that all names share and that no name of the net begins with."""
    own = {name.partition(".")[0] for name in net}
    while tensors:
        heads = {name.partition(".")[0] for name in tensors}
        (head, *others) = heads
        # A number is the place in an nn.Sequential whose first layer normalised.
        known = head in WRAPPERS or head.isdecimal()
        if others or not known or head in own or head in tensors:
            break
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    return tensors


def _renamed(tensors: Mapping[str, Tensor], net: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_name(name, net): tensor for name, tensor in tensors.items()}


def _name(name: str, net: Mapping[str, Tensor]) -> str:
    if name in net:
        return name
    for pattern, replacement in RENAMED:
        ours = re.sub(pattern, replacement, name)
        if ours in net:
            return ours
    return name


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _problem(tensors: Mapping[str, Tensor], net: Mapping[str, Tensor]) -> str:
    missing = [name for name in net if name not in tensors]
    unexpected = [name for name in tensors if name not in net]
    shapes = [
        f"{name} {tuple(tensors[name].shape)}, not {tuple(net[name].shape)}"
        for name in net
        if name in tensors and tensors[name].shape != net[name].shape
    ]
    integers = [
        name
        for name in net
        if name in tensors and net[name].is_floating_point() > tensors[name].is_floating_point()
    ]
    kinds = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", shapes),
        ("of no real numbers", integers),
    )
    told = [f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds if names]
    return ", ".join(told)


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _cast(
    tensors: Mapping[str, Tensor], net: Mapping[str, Tensor], remarks: list[str]
) -> dict[str, Tensor]:
    """Return the tensors in the order and dtypes of the net; told where rounding or widening."""
    kinds = {str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()
             if tensor.is_floating_point() and tensor.dtype != net[name].dtype}  # fmt: skip
    if kinds:
        remarks.append(f"{' and '.join(sorted(kinds))} weights became float32")
    return {name: tensors[name].to(expected.dtype) for name, expected in net.items()}

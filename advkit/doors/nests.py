"""Where in a foreign file the state dict lies: at the top, or in one of the usual nests."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from advkit.errors import InputError, UsageError, brief

USUAL = ("state_dict", "model_state_dict", "model", "net", "ema", "model_ema", "params")
"""Names under which training scripts save a net, beside its optimizer and epoch."""


def choose(loaded: object, key: str | None) -> tuple[str, dict[str, Tensor]]:
    """Return (place, state dict) of what a file holds; the place is empty at the top.

    Args:
        loaded: what was read.
        key: the place, where several fit; words of a nest within a nest apart by dots.

    Raises:
        InputError: there is no state dict.
        UsageError: several are there, or none at `key`; the message lists what is there.
    """
    if not isinstance(loaded, Mapping):
        raise InputError(f"holds a {type(loaded).__name__}, not a state dict")
    if key is not None:
        return key, _at(loaded, key)
    nests = _nests(loaded, USUAL)
    for place, nest in nests.items():
        # `state_dict_ema` beside `state_dict`: another net of the same tensors.
        named = [name for name in loaded if isinstance(name, str)]
        alike = {
            name: own for name, own in _nests(loaded, named).items() if own.keys() == nest.keys()
        }
        several = {**nests, **alike}
        if len(several) > 1:
            raise UsageError(f"holds several state dicts: --key {_listed(several)}")
        return place, {**_normalisation(loaded), **nest}
    top = _tensors(loaded)
    if top:
        return "", top
    others = _nests(loaded, [name for name in loaded if isinstance(name, str)])
    if others:
        raise UsageError(f"its state dict has no usual name: --key {_listed(others)}")
    raise InputError("holds no tensors")


def _normalisation(loaded: Mapping[object, object]) -> dict[str, Tensor]:
    """Return the mean and deviation that lie beside a nest, if both do."""
    known = _tensors(loaded)
    pair = {name: each for name, each in known.items() if name in ("mean", "std")}
    return pair if len(pair) == 2 and all(each.numel() in (1, 3) for each in pair.values()) else {}


def _at(loaded: Mapping[object, object], key: str) -> dict[str, Tensor]:
    node: object = loaded
    # A name may itself have dots in it.
    for word in [key] if key in loaded else key.split("."):
        node = node.get(word) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping):
        inner = _tensors(node) or next(iter(_nests(node, USUAL).values()), {})
        if inner:
            return inner
    flat = _tensors(loaded)
    chosen = {name.removeprefix(f"{key}."): tensor for name, tensor in flat.items()
              if name.startswith(f"{key}.")}  # fmt: skip
    if chosen:
        return chosen
    known = _nests(loaded, [name for name in loaded if isinstance(name, str)])
    raise UsageError(f"no state dict at --key {brief(key)}; there is: {_listed(known) or 'none'}")


def _nests(
    loaded: Mapping[object, object], names: list[str] | tuple[str, ...]
) -> dict[str, dict[str, Tensor]]:
    """Return place → state dict of the named nests, and of usual nests in them."""
    nests = {}
    for name in names:
        node = loaded.get(name)
        if not isinstance(node, Mapping):
            continue
        tensors = _tensors(node)
        if tensors:
            nests[name] = tensors
            continue
        for inner in USUAL:
            nested = node.get(inner)
            if isinstance(nested, Mapping) and _tensors(nested):
                nests[f"{name}.{inner}"] = _tensors(nested)
    return nests


def _tensors(node: Mapping[object, object]) -> dict[str, Tensor]:
    # Whoever numbers tensors is told of those numbers, as of any name that the net lacks.
    return {str(name): tensor for name, tensor in node.items() if isinstance(tensor, Tensor)}


def _listed(nests: Mapping[str, object]) -> str:
    shown = [brief(name, 60) for name in list(nests)[:8]]
    return " or ".join(shown)

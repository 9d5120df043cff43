"""What a stopped run needs to go on as if it had never stopped.

Random streams are functions of (seed, epoch, step), see `seeding`, and schedules of the
iteration, so tensors and two counters are the whole state. AWP-like perturbations are
transient: a state is only ever packed between two steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from advkit.artifacts.descriptions import Metrics
from advkit.training import remembering
from advkit.training.books import BEFORE, SUMS, no_sums
from advkit.training.remembering import Memory


@dataclass
class Progress:
    """Where a run stands.

    `epoch` and `step` count finished ones; a step equal to the steps of an epoch means that
    only that epoch's validation is missing. `best` maps a role to the metrics of its
    checkpoint; `sums` (11,) float64 are those of the current epoch, see `books.SUMS`;
    `alarmed` tells whether the masking alarm has rung. `written` maps a role to the digest of its
    checkpoint, `lines` are those of the log.
    """

    epoch: int = 0
    step: int = 0
    best: dict[str, Metrics] = field(default_factory=dict)
    sums: Tensor = field(default_factory=no_sums)
    alarmed: bool = False
    written: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def next_epoch(self) -> None:
        """Close the current epoch."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, no_sums()


COUNT = "step"
"""AdamW's number of steps taken, a scalar of each parameter."""
KEPT: Mapping[type[torch.optim.Optimizer], Mapping[str, str]] = {
    torch.optim.SGD: {"momentum": "momentum_buffer"},
    torch.optim.AdamW: {"adamw.mean": "exp_avg", "adamw.square": "exp_avg_sq", "adamw.step": COUNT},
}
"""Optimizer → prefix of a tensor's name → what the optimizer calls it, for each parameter."""


def pack(
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    memory: Memory | None = None,
) -> dict[str, Tensor]:
    """Return every tensor of the state under one flat naming."""
    # Flat names and tensors alone, which safetensors holds; no pickled optimizer.
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"ema.{name}": value for name, value in average.state_dict().items()}
    for name, parameter in model.named_parameters():
        kept = optimizer.state.get(parameter, {})
        for prefix, key in _kept(optimizer).items():
            if kept.get(key) is not None:
                tensors[f"{prefix}.{name}"] = kept[key]
    tensors |= remembering.packed(memory or {})
    tensors["sums"] = progress.sums
    # As a tensor: a header is read whole, and a log may be longer than any header.
    text = "".join(f"{line}\n" for line in progress.lines).encode()
    tensors["log"] = torch.from_numpy(np.frombuffer(text, np.uint8).copy())
    return tensors


def log_of(tensors: Mapping[str, Tensor]) -> list[str] | None:
    """Return the lines of the log in a state; None in one of an earlier version, which has none.

    Raises:
        ValueError: it is no text.
    """
    if "log" not in tensors:
        return None
    log = tensors["log"]
    if log.dtype != torch.uint8 or log.dim() != 1:
        raise ValueError("its log is no text")
    return log.numpy().tobytes().decode().splitlines()


def unpack(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    memory: Memory | None = None,
) -> Tensor:
    """Fill model, average, optimizer and memory in place; return the epoch's sums.

    Raises:
        RuntimeError: the tensors are not those of this model.
    """
    model.load_state_dict(_below(tensors, "model."))
    if average is not None:
        average.load_state_dict(_below(tensors, "ema."))
    parameters = dict(model.named_parameters())
    strange = average is None and bool(_below(tensors, "ema."))
    for prefix, key in _kept(optimizer).items():
        for name, kept in _below(tensors, f"{prefix}.").items():
            if name not in parameters or kept.shape != _shape(key, parameters[name]):
                strange = True
                continue
            parameter = parameters[name]
            # In the parameter's memory format, as the optimizer itself would have made it.
            buffer = torch.empty_like(parameter, requires_grad=False)
            buffer = buffer.copy_(kept) if key != COUNT else kept.to(parameter.device).clone()
            optimizer.state[parameter][key] = buffer
    others = {one for kind in KEPT.values() for one in kind} - _kept(optimizer).keys()
    if strange or any(_below(tensors, f"{prefix}.") for prefix in others):
        raise RuntimeError("it holds tensors of another net or optimizer")
    remembering.restore(memory or {}, tensors)
    sums = tensors.get("sums", torch.empty(0))
    if sums.shape == (len(BEFORE),):  # of an earlier version, which counted less
        sums = torch.cat([sums, sums.new_zeros(len(SUMS) - len(BEFORE))])
    if sums.shape != no_sums().shape or not bool(sums.isfinite().all()):
        raise RuntimeError("it holds no sums of an epoch")
    return sums


def _kept(optimizer: torch.optim.Optimizer) -> Mapping[str, str]:
    """Return what this kind of optimizer keeps for each parameter."""
    return next(names for kind, names in KEPT.items() if isinstance(optimizer, kind))


def _shape(key: str, parameter: Tensor) -> torch.Size:
    return torch.Size() if key == COUNT else parameter.shape


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }

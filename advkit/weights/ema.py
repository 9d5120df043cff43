"""Exponential moving average of a model: ADR's teacher and the weights of `--wa`."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from advkit.errors import UsageError


class Ema:
    """θ_t ← γ·θ_t + (1 − γ)·θ_s after every iteration, over parameters and BN statistics.

    `model` is a deep copy in eval mode that shares no tensor with the student. Integer buffers
    (BN's step counter) are copied; in eval mode they have no effect.

    Args:
        student: the net to follow, as initialised.
        decay: γ in [0, 1); no warm-up and no bias correction.

    Raises:
        UsageError: γ outside [0, 1).

    Source: ADR, section 4.2; the authors' code averages every floating entry of the state dict
    (timm's ModelEmaV2), unlike Gowal et al. 2020, who average parameters only.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"--ema-decay {decay} is not in [0, 1)")
        self.decay = decay
        self._average: Callable[[list[Tensor], list[Tensor], int], None] = get_ema_multi_avg_fn(
            decay
        )  # type: ignore[no-untyped-call]
        self.model = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move one step towards the student."""
        mine, theirs = _tensors(self.model), _tensors(student)
        floating = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        # PyTorch's own average moves all tensors in a few kernels, not in one each.
        self._average([mine[name] for name in floating], [theirs[name] for name in floating], 0)
        integers = sorted(mine.keys() - set(floating))
        if integers:
            sources = [theirs[name] for name in integers]
            torch._foreach_copy_([mine[name] for name in integers], sources)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}

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
        decay: γ in [0, 1).
        warmup: iterations in which the average is the student; after n more γ is at most
            (1 + n)/(10 + n). None: γ from the first iteration on, without bias correction.
        own_norms: whether BN statistics are averaged; else they are the student's.

    Raises:
        UsageError: γ outside [0, 1).

    Source: ADR, section 4.2; the authors' code averages every floating entry of the state dict
    (timm's ModelEmaV2). The warm-up, and BN statistics of the student, are those of the code of
    Rade and Moosavi-Dezfooli for the averages of Gowal et al. 2020, who average parameters only.
    """

    def __init__(
        self,
        student: nn.Module,
        decay: float,
        *,
        warmup: int | None = None,
        own_norms: bool = True,
    ) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"--ema-decay {decay} is not in [0, 1)")
        self.decay, self.warmup, self.own_norms = decay, warmup, own_norms
        self.model = copy.deepcopy(student).eval().requires_grad_(False)

    def decay_at(self, count: int) -> float:
        """Return γ of the update after `count` iterations, the one just made among them.

        >>> ema = Ema(nn.Linear(1, 1), 0.5, warmup=10)
        >>> [ema.decay_at(count) for count in (9, 10, 12, 99)]
        [0.0, 0.1, 0.25, 0.5]
        """
        if self.warmup is None:
            return self.decay
        after = count - self.warmup
        return min(self.decay, (1 + after) / (10 + after)) if after >= 0 else 0.0

    @torch.no_grad()
    def update(self, student: nn.Module, count: int) -> None:
        """Move one step towards the student, after `count` iterations of the run."""
        mine, theirs = _tensors(self.model), _tensors(student)
        own = mine if self.own_norms else dict(self.model.named_parameters())
        averaged = [name for name in own if mine[name].is_floating_point()]
        average: Average = get_ema_multi_avg_fn(self.decay_at(count))  # type: ignore[no-untyped-call]
        # PyTorch's own average moves all tensors in a few kernels, not in one each.
        average([mine[name] for name in averaged], [theirs[name] for name in averaged], 0)
        copied = sorted(mine.keys() - set(averaged))
        if copied:
            sources = [theirs[name] for name in copied]
            torch._foreach_copy_([mine[name] for name in copied], sources)


Average = Callable[[list[Tensor], list[Tensor], int], None]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}

"""Uniform average of the weights at the ends of epochs (SWA)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Swa:
    """θ̄ ← θ̄ + (θ − θ̄)/(n + 1) at the end of every epoch from one on; n epochs are in it so far.

    Until that epoch the average is the student. `model` is a deep copy in eval mode that shares no
    tensor with the student; n follows from the epoch, so that the model is the whole state. BN's
    running statistics belong to other weights and are recomputed, see `recompute`.

    Args:
        student: the net to follow.
        start: first epoch, counted from 1, whose weights are averaged.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    UAI 2018; once an epoch as in Chen et al., ICLR 2021.
    """

    def __init__(self, student: nn.Module, start: int) -> None:
        self.start = start
        self.model = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, epoch: int) -> None:
        """Take the weights at the end of an epoch, counted from 1, into the average."""
        share = 1 / (max(epoch - self.start, 0) + 1)
        theirs = dict(student.named_parameters())
        for name, mean in self.model.named_parameters():
            mean.lerp_(theirs[name], share) if share < 1 else mean.copy_(theirs[name])
        buffers = dict(student.named_buffers())
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])


@torch.no_grad()
def recompute(
    model: nn.Module,
    passes: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    agree: Callable[[Iterable[Tensor]], None],
) -> None:
    """Make BN's running statistics the plain mean of those of the batches, at the net's weights.

    Args:
        model: whose BN modules; nothing else of it changes.
        passes: computes the model.
        batches: images (B, C, H, W).
        agree: replaces tensors by their mean over the processes of a run.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    with _cumulating(norms):
        for x in batches:
            passes(x)
    agree(
        statistic
        for norm in norms
        for statistic in (norm.running_mean, norm.running_var)
        if statistic is not None
    )


@contextmanager
def _cumulating(norms: list[_BatchNorm]) -> Iterator[None]:
    """Have BN modules count from nothing in train mode, each batch with the same weight."""
    before = [(norm.momentum, norm.training) for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    kept = [None if count is None else count.clone() for count in counts]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.training = True
    try:
        yield
    finally:
        for norm, (momentum, training), count in zip(norms, before, kept, strict=True):
            norm.momentum, norm.training = momentum, training
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)

"""Module modes as contexts that put back what they found, also after an error.

An attack never switches a mode by itself: its caller chooses, and the run records the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from advkit.errors import unknown

if TYPE_CHECKING:  # the choices below are read by `--help`, which never loads torch
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

ATTACK_BN = ("eval", "train", "frozen")


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Switch parameter gradients off, so that a backward pass reaches the input alone."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode."""
    with _training(model, False):
        yield


@contextmanager
def attack_bn(model: nn.Module, how: str) -> Iterator[None]:
    """Set what batch normalisation does during the inner attack.

    eval: running statistics, nothing moves (TRADES, AWP-TRADES, LTD). train: batch statistics,
    and the running ones move with every forward pass (ADR's code, "Overfitting in
    adversarially robust deep learning"). frozen: batch statistics while the running ones stay
    (Gowal et al. 2020).
    """
    if how not in ATTACK_BN:
        raise unknown("attack-bn mode", how, ATTACK_BN)
    with _training(model, how != "eval"):
        if how != "frozen":
            yield
            return
        # In train mode without tracking BN normalises by the batch and leaves its buffers alone.
        norms = batch_norms(model)
        before = [norm.track_running_stats for norm in norms]
        for norm in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, tracked in zip(norms, before, strict=True):
                norm.track_running_stats = tracked


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-normalisation modules of a net."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def normalises(model: nn.Module, x: Tensor) -> bool:
    """Whether BN in train mode can normalise images (B, C, H, W): it needs two values a channel.

    One image has a single value where a map is one pixel wide. Nothing of the net moves.
    """
    import torch

    values: list[int] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values.append(inputs[0].numel() // inputs[0].shape[1])

    hooks = [norm.register_forward_pre_hook(look) for norm in batch_norms(model)]
    devices = [x.device] if x.device.type == "cuda" else []
    try:  # dropout draws from the global generator
        with attack_bn(model, "frozen"), torch.no_grad(), torch.random.fork_rng(devices):
            model(x)
    except ValueError:
        if min(values, default=2) > 1:
            raise
    finally:
        for hook in hooks:
            hook.remove()
    return min(values, default=2) > 1


@contextmanager
def counting(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Watch one forward pass, and yield what counts its batch statistics once more.

    The function is called after the context. It moves BN's running statistics and counters as a
    second pass over the same images at the same weights would: r ← (1 − m)·r + m·batch, for each
    norm that tracks in train mode. Gradients, and norms that stand still, are left alone.
    """
    norms = [norm for norm in batch_norms(model) if norm.training and norm.track_running_stats]
    before = [[buffer.clone() for buffer in _running(norm)] for norm in norms]
    added: list[list[Tensor]] = []

    def again() -> None:
        for norm, (mean, variance, passes, total) in zip(norms, added, strict=True):
            running = _running(norm)
            kept, weight = _kept(norm.momentum, running[2], passes, total)
            for statistic, sums in zip(running[:2], (mean, variance), strict=True):
                statistic.copy_(kept.to(statistic) * statistic + weight.to(statistic) * sums)
            running[2].add_(passes)

    yield again
    for norm, (mean, variance, count) in zip(norms, before, strict=True):
        after = _running(norm)
        passes = after[2] - count
        kept, _ = _kept(norm.momentum, count, passes, after[2])
        sums = [new - kept.to(new) * old for new, old in zip(after, (mean, variance), strict=False)]
        added.append([*sums, passes, after[2].clone()])


def _running(norm: _BatchNorm) -> list[Tensor]:
    """Return running mean and variance (C,) and the counter of passes, outside autograd.

    `data`, because a buffer of a pass whose gradient is still to come may not seem to have changed;
    in train mode that gradient does not look at it.
    """
    buffers = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return [buffer.data for buffer in buffers if buffer is not None]


def _kept(
    momentum: float | None, count: Tensor, passes: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what `passes` more leave of the running statistics, and the weight of what they add.

    Args:
        momentum: of the norm; None is the plain average over all passes.
        count: passes so far.
        passes: how many more, each over the same statistics.
        total: passes at which what they add was measured.
    """
    import torch

    wide = torch.float32 if count.device.type == "mps" else torch.float64
    count, passes, total = count.to(wide), passes.to(wide), total.to(wide)
    if momentum is None:
        return count / (count + passes), total / (count + passes)
    return (1 - momentum) ** passes, torch.ones_like(passes)


@contextmanager
def _training(model: nn.Module, mode: bool) -> Iterator[None]:
    # One by one, not `model.train(before)`: parts of a net may have been in different modes.
    before = [(module, module.training) for module in model.modules()]
    model.train(mode)
    try:
        yield
    finally:
        for module, training in before:
            module.training = training

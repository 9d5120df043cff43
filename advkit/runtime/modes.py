"""Module modes as contexts that put back what they found, also after an error.

An attack never switches a mode by itself: its caller chooses, and the run records the choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from advkit.errors import unknown

if TYPE_CHECKING:  # the choices below are read by `--help`, which never loads torch
    from torch import nn
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

"""A convolution and the batch normalisation behind it as one convolution, where that is the same.

In eval mode BN is a fixed factor and shift per channel. Where no gradient of a parameter is asked
for either (inner attacks, teachers, evaluation), both go into the convolution's weights, and a
pass over all activations is saved, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

Folded = tuple[Tensor, Tensor]
"""Weight and bias of the one convolution."""


@dataclass
class _Kept:
    """What is folded already, and the tensors, at which versions, that it was made of."""

    folded: Folded
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]
    dtype: torch.dtype

    def fits(self, sources: tuple[Tensor, ...], dtype: torch.dtype) -> bool:
        """Whether nothing has changed since."""
        same = all(a is b for a, b in zip(self.sources, sources, strict=True))
        return same and self.versions == _versions(sources) and self.dtype == dtype


_kept: dict[nn.Module, _Kept] | None = None


@contextmanager
def settled() -> Iterator[None]:
    """Fold each pair once inside, since weights rest; one that changes all the same is seen."""
    global _kept
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def normed(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Return norm(conv(x)); in one convolution where BN is fixed and nothing else learns.

    W′ = W·s and b′ = (b − μ)·s + β per output channel with s = γ/√(σ² + ε): the same values up to
    rounding (1e-5 of the largest logit in float32, 1e-12 in float64).

    Args:
        conv: the convolution.
        norm: what is applied to its output; folded if it is a batch normalisation in eval mode.
        x: (B, C, H, W).

    Source: Jacob et al., "Quantization and Training of Neural Networks", CVPR 2018, section 3.2.
    """
    traced = isinstance(x, fx.Proxy)  # whoever traces the net wants to see both modules
    if (
        traced
        or not (isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm))
        or not _rest(conv, norm)
    ):
        normalised: Tensor = norm(conv(x))
        return normalised
    weight, bias = _folded(conv, norm)
    folded: Tensor = conv._conv_forward(x, weight, bias)
    return folded


def _rest(conv: nn.Conv2d, norm: _BatchNorm) -> bool:
    """Whether both are fixed for this pass and no gradient of theirs is asked for."""
    if norm.training or norm.running_mean is None:
        return False
    learning = (conv.weight, conv.bias, norm.weight, norm.bias)
    learns = any(tensor is not None and tensor.requires_grad for tensor in learning)
    return not (learns and torch.is_grad_enabled())


def _folded(conv: nn.Conv2d, norm: _BatchNorm) -> Folded:
    # Outside of `settled` weights may change at any time; a compiled graph keeps no tensors.
    if _kept is None or torch.compiler.is_compiling():
        return fold(conv, norm)
    named = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    sources = tuple(tensor for tensor in named if tensor is not None)
    known = _kept.get(norm)
    dtype = _computed_in(conv.weight)
    if known is None or not known.fits(sources, dtype):
        with torch.no_grad():
            weight, bias = fold(conv, norm)
        folded = weight.to(dtype), bias.to(dtype)
        known = _kept[norm] = _Kept(folded, sources, _versions(sources), dtype)
    return known.folded


def fold(conv: nn.Conv2d, norm: _BatchNorm) -> Folded:
    """Return weight and bias of the convolution that does what both do; see `normed`.

    Args:
        conv: the convolution.
        norm: the batch normalisation of its output, with running statistics.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    if norm.affine:
        scale = scale * norm.weight
    bias = shift * scale
    if norm.affine:
        bias = bias + norm.bias
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def _computed_in(weight: Tensor) -> torch.dtype:
    kind = weight.device.type
    mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if mixed else weight.dtype


def _versions(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in tensors)

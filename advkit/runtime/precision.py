"""How a net's passes are computed: plainly, in bfloat16 or TF32 (`--amp`, `--tf32`), compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.backends import cuda, cudnn

from advkit.errors import UsageError

AMPERE = (8, 0)
"""CUDA's compute capability from which on bfloat16 and TF32 have units of their own."""
GRAPHS = "reduce-overhead"
"""The mode of torch.compile that records CUDA graphs."""


class Mixed(nn.Module):
    """A net whose convolutions and products are computed in bfloat16.

    Weights, gradients of weights and images stay float32, and so do the logits that come out:
    losses, perturbation and projection never see bfloat16, in which 8/255 has an error.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C) float32 of pixels (B, C, H, W) float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()


def require_bf16(device: torch.device) -> None:
    """Check that bfloat16 saves time there.

    Raises:
        UsageError: it does not; the message says why.
    """
    reason = _without_bf16(device)
    if reason:
        raise UsageError(
            f"--amp: {reason}; leave --amp out, or give --no-amp where a preset sets it"
        )


def _without_bf16(device: torch.device) -> str:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        slow = f"compute capability {major}.{minor}, bfloat16 needs 8.0 (Ampere)"
        return slow if (major, minor) < AMPERE else ""
    # Elsewhere oneDNN emulates it: a step took twelve times as long.
    if device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        slow = "this processor has neither AVX512-BF16 nor AMX, without which bfloat16 is slower"
        return "" if fast else slow
    return f"bfloat16 is not used on {device.type}"


def require_tf32(device: torch.device) -> None:
    """Check that the device has TF32.

    Raises:
        UsageError: it has not; the message says why.
    """
    reason = "" if device.type == "cuda" else f"there is no TF32 on {device.type}"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < AMPERE:
            reason = f"compute capability {major}.{minor}, TF32 needs 8.0 (Ampere)"
    if reason:
        raise UsageError(f"--tf32: {reason}; leave --tf32 out")


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Let CUDA round what is multiplied in float32 to TF32's ten bits, within a block.

    Sums stay float32. The switches are the process's and are put back as they were; off changes
    nothing.
    """
    if not on:
        yield
        return
    before = cudnn.allow_tf32, cuda.matmul.allow_tf32
    cudnn.allow_tf32 = cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        cudnn.allow_tf32, cuda.matmul.allow_tf32 = before


class Graphed(nn.Module):
    """A compiled net whose logits outlive its next pass.

    A CUDA graph writes its result to the same place each time; the attack asks the net again while
    logits of the clean images still wait to be used.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C) of pixels (B, C, H, W), in memory of their own."""
        logits: Tensor = self.model(x)
        return logits.clone()


def compiled(net: nn.Module, device: torch.device, mode: str = "default") -> nn.Module:
    """Return the net with its passes compiled by torch.compile, sharing all tensors.

    Modes of the net and frozen parameters each get code of their own, when first met.

    Args:
        net: logits from pixels.
        device: where it computes.
        mode: torch.compile's; reduce-overhead records the passes as CUDA graphs.

    Raises:
        UsageError: nothing can be compiled here, or CUDA graphs are asked for elsewhere.
    """
    if mode == GRAPHS and device.type != "cuda":
        raise UsageError(
            f"--compile-mode {GRAPHS}: CUDA graphs need a CUDA device, not {device.type}"
        )
    # Tried on a trifle first: a missing compiler shows only at the first call, deep in training.
    try:
        torch.compile(_trial)(torch.ones(4, device=device))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"--compile: torch.compile does not work here ({type(error).__name__}: {first}); "
            "install a compiler (g++ for CPUs), or leave it out"
        ) from None
    compiled_net: nn.Module = torch.compile(net, mode=mode)  # type: ignore[assignment]
    return Graphed(compiled_net) if mode == GRAPHS else compiled_net


def _trial(x: Tensor) -> Tensor:
    return x.sin() + x

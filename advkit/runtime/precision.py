"""How the passes of a net are computed: plainly, in bfloat16 (`--amp`), compiled (`--compile`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advkit.errors import UsageError

AMPERE = (8, 0)
"""CUDA's compute capability from which on bfloat16 has units of its own."""


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


def compiled(net: nn.Module, device: torch.device) -> nn.Module:
    """Return the net with its passes compiled by torch.compile, sharing all tensors.

    Modes and frozen parameters each get code of their own, when first met.

    Raises:
        UsageError: nothing can be compiled here.
    """
    # Tried on a trifle first: a missing compiler shows only at the first call, deep in training.
    try:
        torch.compile(_trial)(torch.ones(4, device=device))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"--compile: torch.compile does not work here ({type(error).__name__}: {first}); "
            "install a compiler (g++ for CPUs), or leave it out"
        ) from None
    compiled_net: nn.Module = torch.compile(net)  # type: ignore[assignment]
    return compiled_net


def _trial(x: Tensor) -> Tensor:
    return x.sin() + x

"""What takes the steps, and which parameters it decays."""

from __future__ import annotations

import torch
from torch import nn

from advkit.config.settings import Settings
from advkit.runtime import modes


def built(
    model: nn.Module, settings: Settings, device: torch.device
) -> torch.optim.SGD | torch.optim.AdamW:
    """Return what takes the steps; AdamW has betas 0.9 and 0.999 and ε 1e-8, PyTorch's own."""
    # One kernel over all parameters instead of one each; PyTorch has it on these devices.
    fused = device.type in ("cpu", "cuda")
    groups = _groups(model, settings)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
        fused=fused,
    )


def _groups(model: nn.Module, settings: Settings) -> list[dict[str, object]]:
    """Return the optimizer's parameter groups; BN has its own where it does not decay."""
    every = list(model.parameters())
    if settings.norm_decay:
        return [{"params": every, "weight_decay": settings.weight_decay}]
    norms = {id(p) for norm in modes.batch_norms(model) for p in norm.parameters()}
    return [
        {
            "params": [p for p in every if id(p) not in norms],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in every if id(p) in norms], "weight_decay": 0.0},
    ]

"""Probes of nets made by hand, for the analyses that ask a model."""

from __future__ import annotations

import torch
from torch import nn

from advkit import models
from advkit.analyses.probing.probe import Probe
from advkit.formulas.threat import Threat
from advkit.images.image_set import Images

GREY = ((0.5,), (0.25,))


def probe(
    model: nn.Module,
    *,
    classes: int = 2,
    shape: tuple[int, int, int] = (1, 4, 4),
    n: int = 6,
    eps: float = 0.05,
    norm: str = "linf",
    seed: int = 0,
    batch_size: int = 250,
) -> Probe:
    """Return a probe of `model` on n images whose pixels keep 0.2 away from the box's edges."""
    rng = torch.Generator().manual_seed(7)
    raw = torch.randint(51, 204, (n, *shape), generator=rng, dtype=torch.uint8)
    labels = torch.randint(0, classes, (n,), generator=rng)
    names = tuple(f"class {k}" for k in range(classes))
    info = {"model": {"input_shape": list(shape)}, "data": {"classes": list(names)}}
    images = Images("by hand", "test", raw, labels, names, 0, False)
    return Probe(
        "run/best.safetensors", info, model.eval().requires_grad_(False), images,
        torch.arange(n), Threat(norm, eps), str(eps), seed, batch_size,
    )  # fmt: skip


def linear(seed: int = 0, pixels: int = 16, classes: int = 2) -> nn.Module:
    """Return logits W·x + c of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))


def small(channels: int = 1, classes: int = 2, seed: int = 0) -> nn.Module:
    """Return a small CNN with batch-normalisation statistics that are not their first values."""
    statistics = tuple(values * channels for values in GREY)
    net = models.build(
        "small-cnn", classes, channels=channels, statistics=statistics, seed=seed, width=4
    )
    rng = torch.Generator().manual_seed(seed)
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            shift = 0.5 if name.endswith("var") else -0.5
            buffer.copy_(torch.rand(buffer.shape, generator=rng) + shift)
    return net


def pixels(asked: Probe) -> torch.Tensor:
    """Return its images (N, C, H, W) in float64."""
    return asked.images.images[asked.positions].double() / 255

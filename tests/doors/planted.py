"""Small nets as checkpoints and as others' files, made without training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from advkit import models
from advkit.artifacts import checkpoint
from tests.conftest import SEED
from tests.described import described

ARCH = ["--arch", "small-cnn", "--width", "4"]
DIGITS = {"arch": "small-cnn", "options": {"width": 4, "activation": "relu"},
          "input_shape": [1, 8, 8], "mean": [0.3], "std": [0.37]}  # fmt: skip


def net(std: float = 0.37) -> nn.Module:
    """A net for digits whose BN statistics are those of some noise, in eval mode."""
    statistics = ([0.3], [std])
    built = models.build("small-cnn", 10, channels=1, statistics=statistics, seed=SEED, width=4)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        built.train()(torch.rand(32, 1, 8, 8, generator=draw))
    return built.eval()


def written(path: Path) -> nn.Module:
    """Write that net as a checkpoint and return it."""
    made = net()
    tensors = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    checkpoint.write(path, tensors, described("checkpoint", classes=10, model=DIGITS))
    return made


def logits(model: nn.Module) -> torch.Tensor:
    """Its answers to noise (8, 10)."""
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(x)


def bare(model: nn.Module) -> dict[str, torch.Tensor]:
    """Its state dict without the normalisation, as codes that normalise outside have it."""
    state = model.state_dict()
    return {name: tensor.contiguous() for name, tensor in state.items()
            if name not in ("mean", "std")}  # fmt: skip

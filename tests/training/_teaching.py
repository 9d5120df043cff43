"""Teachers and memories in the tests of training, in float64 if asked."""

from __future__ import annotations

from pathlib import Path

import torch

from advkit.artifacts import checkpoint
from tests.training.test_learner import trainer


def write_teacher(digits, path: Path, seed: int, **flags) -> str:
    """Write the checkpoint of a small net whose weights are drawn, not learned."""
    made = trainer(digits, method="natural", seed=seed, **flags)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.learner.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    metrics = {"epoch": 1, "n": 20, "clean_accuracy": 0.5}
    checkpoint.put(path, made.files.packed("best", made.learner.model, metrics))
    return str(path)


def widen(made):
    """Bring teachers and memories to float64."""
    for net in made.learner.taught.values():
        net.double()
    for tensors in made.learner.memory.values():
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = tensor.double()
    return made

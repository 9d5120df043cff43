"""What label sources and objectives keep from step to step: made, updated, saved and restored.

Each process holds the whole memory. After a step the processes share what its examples told, and
each updates its own with all of it: the memories stay the same, and rank 0 saves for all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advkit.images.batches import Batch
from advkit.parallel.world import World
from advkit.runtime.memory import moved
from advkit.training.parts import Parts

Memory = Mapping[str, Mapping[str, Tensor]]
"""Shelf of the part → name → tensor, (N, C), (C, C) or of any other shape."""
PREFIX = "memory."


def begun(parts: Parts, labels: Tensor, classes: int, device: torch.device) -> Memory:
    """Return the memories of a run that begins.

    Args:
        parts: whose memories.
        labels: true classes of all examples of the split, (N,) int64.
        classes: C.
        device: where they are kept.
    """
    return {
        shelf: {name: tensor.to(device) for name, tensor in keeping.begin(labels, classes).items()}
        for shelf, keeping in parts.keeps.items()
    }


@torch.no_grad()
def update(
    memory: Memory,
    parts: Parts,
    batch: Batch,
    told: Mapping[str, Tensor],
    epoch: int,
    world: World,
) -> None:
    """Update the memories by what one step told, of all processes' examples.

    Args:
        memory: is changed in place.
        parts: whose memories.
        batch: this process's share.
        told: shelf → (B, C): a label source's rows, what an objective calls `remembered`.
        epoch: from 1 on.
        world: the processes.
    """
    if not parts.keeps:
        return
    index = batch.index
    if not world.alone:  # a GPU's collectives want their tensors there
        index = world.gathered(moved(index, batch.y.device)).cpu()
    y = world.gathered(batch.y)
    for shelf, keeping in parts.keeps.items():
        keeping.update(memory[shelf], index, y, world.gathered(told[shelf]), epoch)


def packed(memory: Memory) -> dict[str, Tensor]:
    """Return the memories under the flat names of a state."""
    return {
        f"{PREFIX}{shelf}.{name}": tensor
        for shelf, tensors in memory.items()
        for name, tensor in tensors.items()
    }


@torch.no_grad()
def restore(memory: Memory, tensors: Mapping[str, Tensor]) -> None:
    """Fill the memories, in place, from a state.

    Raises:
        RuntimeError: the state holds other memories.
    """
    mine = packed(memory)
    theirs = {name: value for name, value in tensors.items() if name.startswith(PREFIX)}
    if mine.keys() != theirs.keys() or any(
        (theirs[name].shape, theirs[name].dtype) != (mine[name].shape, mine[name].dtype)
        for name in mine
    ):
        raise RuntimeError("it holds the memory of another method")
    for name, tensor in mine.items():
        tensor.copy_(theirs[name])

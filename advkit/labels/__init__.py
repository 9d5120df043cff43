"""Label sources: what the student is asked to say of each training image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Generator, Tensor, nn

from advkit.images.batches import Batch

__all__ = ["Context", "adr", "soft"]


@dataclass(frozen=True)
class Context:
    """What a label source may know beside the batch.

    `progress` is t/N in [0, 1); `classes` is C; `teacher` is the EMA of the student, in eval
    mode and without gradient; `soft` gives stored or live logits (B, C) for the examples and
    views of a batch. Both are there for sources that declare `ema` or `soft` in `NEEDS`. `noise`
    makes this step's generator, on the CPU or, with `--noise device`, on the device of the images:
    draw on the generator's own `device`. `memory` is what the source keeps from step to step, see
    its function `memory`; it is only to be read. `epoch` counts from 1.
    """

    progress: float
    classes: int
    teacher: nn.Module | None = None
    soft: Callable[[Batch], Tensor] | None = None
    noise: Callable[[], Generator] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    epoch: int = 1

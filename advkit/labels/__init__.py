"""Label sources: what the student is asked to say of each training image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from advkit.data._batches import Batch


@dataclass(frozen=True)
class Context:
    """What a label source may know beside the batch.

    `progress` is t/N in [0, 1); `classes` is C; `teacher` maps the batch's images to logits
    (B, C) without gradient; `soft` gives stored or live logits (B, C) for the examples and
    views of a batch. Both are there for sources that declare `ema` or `soft` in `NEEDS`.
    """

    progress: float
    classes: int
    teacher: Callable[[Tensor], Tensor] | None = None
    soft: Callable[[Batch], Tensor] | None = None

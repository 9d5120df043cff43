"""Objectives: what the inner attack ascends and what the student descends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from advkit.errors import AdvkitError

__all__ = ["REMEMBERED", "Given"]

REMEMBERED = "remembered"
"""Key of an objective's stats under which it leaves its memory something, (B, C)."""
Net = Callable[[Tensor], Tensor]
"""From images (B, C, H, W) to logits (B, C)."""


@dataclass(frozen=True)
class Given:
    """What stays fixed while the attack moves the images.

    `y` (B,) int64 are the true classes, `targets` (B, C) the rows of the label source. `clean()`
    gives the student's logits (B, C) on the unperturbed images, without gradient and in the
    attack's mode; it is computed when first asked for, and once.

    `teachers` are the fixed nets that the objective declares in `NEEDS`, by role; gradients pass
    through them to the images, and to nothing else. `memory` is what the part keeps from step to
    step, see its function `memory`; it is only to be read. `index` (B,) int64, on the CPU, are the
    examples' places in the split, -1 for extra images, which have no row in a memory. `epoch`
    counts from 1 to `epochs`. `gathered` gives the rows of all processes of the run, without
    gradient; all have to call it, and the attack through `once`, lest it wait at each step.
    """

    y: Tensor
    targets: Tensor
    clean: Callable[[], Tensor]
    teachers: Mapping[str, Net] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    index: Tensor | None = None
    epoch: int = 1
    epochs: int = 1
    gathered: Callable[[Tensor], Tensor] = torch.Tensor.detach
    _made: dict[str, Tensor] = field(default_factory=dict)

    def teacher(self, x: Tensor) -> Tensor:
        """Return the teacher's logits (B, C) of any images (B, C, H, W), in eval mode."""
        return self.taught("teacher", x)

    def natural_teacher(self, x: Tensor) -> Tensor:
        """Return the naturally trained teacher's logits (B, C), see `teacher`."""
        return self.taught("natural-teacher", x)

    def taught(self, role: str, x: Tensor) -> Tensor:
        """Return the logits (B, C) of the teacher of a role.

        Raises:
            AdvkitError: the objective does not declare it.
        """
        if role not in self.teachers:
            raise AdvkitError(f'the objective needs a {role}: declare NEEDS = ("{role}",)')
        return self.teachers[role](x)

    def answered(self, role: str, x: Tensor, name: str) -> Tensor:
        """Return a teacher's logits (B, C) without gradient, once a step under a name.

        AWP asks an objective twice for the same images.

        Args:
            role: of the teacher.
            x: images (B, C, H, W), the same at every call under this name.
            name: of these images.
        """
        with torch.no_grad():
            return self.once(f"{role} at {name}", lambda: self.taught(role, x))

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Return what `make` gives at the first call under a name in this step."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def rows(self, name: str, absent: Tensor) -> Tensor:
        """Return this batch's rows (B, C) of a tensor (N, C) of the memory.

        Args:
            name: of the tensor.
            absent: (B, C), whose rows stand for those of extra images.
        """
        if self.index is None:
            raise AdvkitError("rows of a memory need the examples' places")
        kept = self.memory[name]
        there = (self.index >= 0).to(kept.device)
        # Place -1 reads the last row, which `where` then leaves out: no shape depends on the data.
        return torch.where(there[:, None], kept[self.index], absent.to(kept.dtype))

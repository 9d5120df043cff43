"""What an evaluation knows of each example so far, and how it is stored until it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from advkit.artifacts.hdf5 import ROBUST, WRONG
from advkit.errors import InputError
from advkit.evaluation.partial import Patch
from advkit.evaluation.passes import Pass

NEVER = -1
"""In the place of the pass that an example fell in."""


@dataclass
class Outcomes:
    """One row for each of n examples, in the order of the evaluation.

    `labels` (n,) int64, -1 where the model has no such class; `clean` and `adversarial` (n, C)
    float32 logits; `norm` (n,) of the perturbation; `broken_by` (n,) int8, the place of the
    attack, or ROBUST or WRONG; `fell_in` (n,) int16, the number of the pass; `images` the
    adversarial images (n, C, H, W) where they are kept.
    """

    labels: Tensor
    clean: Tensor
    adversarial: Tensor
    norm: Tensor
    broken_by: Tensor
    fell_in: Tensor
    images: Tensor | None

    @classmethod
    def unknown(cls, labels: Tensor, classes: int, images: Tensor | None) -> Self:
        """Return the rows before the first pass: nothing was attacked."""
        n = len(labels)
        return cls(
            labels=labels,
            clean=torch.zeros(n, classes),
            adversarial=torch.zeros(n, classes),
            norm=torch.zeros(n),
            broken_by=torch.full((n,), ROBUST, dtype=torch.int8),
            fell_in=torch.full((n,), NEVER, dtype=torch.int16),
            images=images,
        )

    @property
    def robust(self) -> Tensor:
        """Whom nothing broke so far, (n,) bool."""
        return self.broken_by == ROBUST

    def close_clean_pass(self) -> None:
        """Mark who is wrong without an attack, and let clean logits stand for adversarial ones."""
        self.adversarial = self.clean.clone()
        wrong = self.clean.argmax(1) != self.labels
        self.broken_by[wrong & (self.labels >= 0)] = WRONG

    def visited(self, number: int, attack: Pass) -> Tensor:
        """Return the rows that a pass visits, as they were when it began."""
        if not attack.everyone:
            # Who fell in this very pass counts: an evaluation that goes on meets the same batches.
            chosen = self.robust | (self.fell_in == number)
        elif attack.judges:
            chosen = torch.ones_like(self.broken_by, dtype=torch.bool)
        else:
            chosen = self.broken_by < 0
        return chosen.nonzero().flatten()

    def judge(
        self, number: int, attack: Pass, rows: Tensor, logits: Tensor, norm: Tensor, x_adv: Tensor
    ) -> Tensor:
        """Take over one attacked batch; return the rows that have new logits.

        Args:
            number: of the pass.
            attack: the pass.
            rows: (B,) which examples.
            logits: (B, C) of the model itself on the adversarial images.
            norm: (B,) of the perturbations.
            x_adv: (B, C, H, W).
        """
        # Only a standing example can fall: the first attack that breaks it is the one that counts.
        broken = (logits.argmax(1) != self.labels[rows]) & self.robust[rows]
        if attack.judges:
            self.broken_by[rows[broken]] = attack.attack
            self.fell_in[rows[broken]] = number
        # Where an attack fails it may return anything: only what broke an example is its row.
        changed = torch.ones_like(broken) if attack.everyone else broken
        self.adversarial[rows[changed]] = logits[changed]
        self.norm[rows[changed]] = norm.float().cpu()[changed]
        if self.images is not None:
            self.images[rows[changed]] = x_adv.to(self.images.device)[changed]
        return rows[changed]

    def stored(self) -> dict[str, Tensor]:
        """Return what a finished batch may have changed, but the images."""
        return {name: getattr(self, name) for name in STORED}

    def patch(self, rows: Tensor) -> Patch | None:
        """Return the images of these rows, where they are kept."""
        return None if self.images is None else (rows, self.images[rows])

    def restore(self, tensors: Mapping[str, Tensor], patches: Sequence[Patch]) -> None:
        """Go back to what `stored` and `patch` gave.

        Raises:
            InputError: they are no tensors of this evaluation; nothing is taken over.
        """
        self._require_fit(tensors, patches)
        for name in STORED:
            setattr(self, name, tensors[name])
        for rows, images in patches:
            if self.images is not None:
                self.images[rows] = images.to(self.images.device)

    def _require_fit(self, tensors: Mapping[str, Tensor], patches: Sequence[Patch]) -> None:
        """Check names, shapes, types and ranges of what was kept."""
        fit = tensors.keys() == set(STORED) and all(
            kept.shape == getattr(self, name).shape and kept.dtype == getattr(self, name).dtype
            for name, kept in tensors.items()
        )
        # Whom the model has wrong without an attack is known by now: nobody else is, and stays.
        fit = fit and torch.equal(tensors["broken_by"] == WRONG, self.broken_by == WRONG)
        fit = fit and all(bool(tensors[name].isfinite().all()) for name in ("adversarial", "norm"))
        if not fit or not all(self._fits(*patch) for patch in patches):
            raise InputError("the batches that were kept do not fit this evaluation")

    def _fits(self, rows: Tensor, images: Tensor) -> bool:
        """Whether a patch is of images of this evaluation."""
        whole = self.images
        return (
            whole is not None
            and (images.dtype, images.shape[1:]) == (whole.dtype, whole.shape[1:])
            and (rows.dtype, rows.shape) == (torch.int64, images.shape[:1])
            and bool(((rows >= 0) & (rows < len(whole))).all())
        )


STORED = tuple(f.name for f in fields(Outcomes) if f.name not in ("labels", "clean", "images"))

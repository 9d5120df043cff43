"""The fixed nets that an objective asks, read and checked before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from advkit import models
from advkit.artifacts import provenance
from advkit.artifacts.descriptions import Checkpoint
from advkit.config.settings import Settings
from advkit.errors import MismatchError
from advkit.images.image_set import ImageSet
from advkit.runtime.reporting import Reporter
from advkit.training.binding import lacking, require_digest


@dataclass(frozen=True)
class Teacher:
    """A net in eval mode whose parameters take no gradient, and what describes it."""

    net: nn.Module
    info: Checkpoint

    @property
    def natural(self) -> bool | None:
        """Whether it was trained without an attack; None of an imported net, where nobody knows."""
        if self.info.get("imported"):
            return None
        steps = self.info["config"].get("attack_steps")
        return self.info["method"].startswith("natural") if steps is None else steps == 0

    def parent(self, role: str) -> dict[str, object]:
        """It as a parent of the run, with its role."""
        return {**provenance.parent(self.info), "use": role}


def load(settings: Settings, images: ImageSet, device: torch.device) -> Mapping[str, Teacher]:
    """Return the teachers that the objective asks, by role.

    Raises:
        UsageError: one is not given.
        InputError: a checkpoint is missing, corrupt or of another kind.
        MismatchError: its classes or images are others than the run's, or it is not the one that
            the configuration names.
        NumericalError: a weight is not finite.
    """
    teachers = {}
    for role, (path, digest) in settings.teachers.items():
        if path is None:
            raise lacking(settings.objective, role)
        net, info = models.load_finite(path, device)
        require_digest(digest, role, info["digest"], path)
        _require_fit(info, images, role, path)
        teachers[role] = Teacher(net.eval().requires_grad_(False), info)
    return teachers


def tell_robust(teachers: Mapping[str, Teacher], reporter: Reporter) -> None:
    """Warn of a natural teacher that was trained with an attack."""
    for role, teacher in teachers.items():
        if role.startswith("natural") and teacher.natural is False:
            reporter.warn(f"--{role}: it was trained with an attack ({teacher.info['method']})")


def _require_fit(info: Checkpoint, images: ImageSet, role: str, path: str) -> None:
    pairs: dict[str, tuple[Sequence[object], Sequence[object]]] = {
        "classes": (list(info["data"]["classes"]), list(images.classes)),
        "images": (list(info["model"]["input_shape"]), list(images.shape)),
    }
    for what, (its, ours) in pairs.items():
        if its != ours:
            raise MismatchError(
                f"{path}: the {role}'s {what} are {_brief(its)}, the data's {_brief(ours)}: give a "
                f"--{role} of this data, or the --data that it was trained on"
            )


def _brief(value: Sequence[object]) -> str:
    few = ", ".join(map(str, value[:4])) + (", …" if len(value) > 4 else "")
    return f"{few} ({len(value)})" if len(value) > 4 else few

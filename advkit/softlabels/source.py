"""Where soft labels come from in training: a labels file, or the teacher itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from advkit import models
from advkit.artifacts import checkpoint, descriptions, soft_labels
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import MismatchError
from advkit.images.batches import Batch
from advkit.images.image_set import ImageSet
from advkit.runtime.memory import moved
from advkit.runtime.reporting import Reporter

Info = descriptions.Labels | descriptions.Checkpoint
"""Description of what soft labels come from: a labels file or a teacher."""


class Stored:
    """Logits from a labels file, by position in the split and by view."""

    def __init__(self, labels: SoftLabels, images: ImageSet, reporter: Reporter) -> None:
        require_fit(labels, images)
        self.labels = labels
        self.views = labels.views
        if labels.views is None:
            reporter.note(
                f"{labels.path} holds the plain image only: its label serves every crop and flip"
            )

    def __call__(self, batch: Batch) -> Tensor:
        """Return logits (B, C) float32 for the examples and views of a batch."""
        return moved(self.labels.at(batch.index, batch.view), batch.x.device)


class Live:
    """Logits from the teacher, run on the batch's own augmented images."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.views: Tensor | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Return logits (B, C), row maximum subtracted, in eval mode."""
        logits: Tensor = self.teacher(batch.x)
        # As a labels file stores them, so that both sources give the same rows.
        return logits - logits.amax(1, keepdim=True)


def info(labels: str | None, teacher: str | None) -> Info:
    """Return the description of the labels file or the teacher, having checked the file."""
    if labels is not None:
        return soft_labels.read(labels, stay=True).info
    return checkpoint.read_info(str(teacher))


def load(
    labels: str | None,
    teacher: str | None,
    images: ImageSet,
    device: torch.device,
    reporter: Reporter,
) -> tuple[Stored | Live, Info]:
    """Return the source and the description of what it reads.

    Raises:
        InputError: the file is missing, corrupt or of another kind.
        MismatchError: it belongs to other data, another order or other classes.
        NumericalError: a weight of the teacher is not finite.
    """
    if labels is not None:
        stored = soft_labels.read(Path(labels))
        return Stored(stored, images, reporter), stored.info
    model, description = models.load_finite(str(teacher), device)
    _require_classes(description["data"]["classes"], images, f"{teacher}: the teacher")
    return Live(model), description


def require_fit(labels: SoftLabels, images: ImageSet) -> None:
    """Check that a labels file was made from exactly these images, in this order.

    Raises:
        MismatchError: it was not; the message says what differs.
    """
    where = labels.path
    _require_classes(labels.info["data"]["classes"], images, f"{where}: the labels file")
    if len(labels.logits) != len(images.labels):
        raise MismatchError(
            f"{where}: labels of {len(labels.logits)} examples, the training split has "
            f"{len(images.labels)}"
        )
    source = labels.info["parents"][-1]
    if source["digest"] != images.fingerprint:
        # Equal labels in the same order: the pixels differ, for example after another resize.
        same = bool((labels.labels == images.labels).all())
        what = "other images" if same else "another order or other labels"
        raise MismatchError(
            f"{where}: made from {source['name']} with fingerprint {source['digest'][:19]}, the "
            f"training split has {images.fingerprint[:19]}: {what}; make the labels anew"
        )
    if labels.views is not None and int(labels.views[:, :, :2].max()) > 2 * images.pad:
        raise MismatchError(f"{where}: views reach beyond a padding of {images.pad}")
    if labels.views is not None and labels.info["pad"] != images.pad:
        raise MismatchError(
            f"{where}: views of padding {labels.info['pad']}, the data set has {images.pad}"
        )


def _require_classes(names: Sequence[str], images: ImageSet, whose: str) -> None:
    if list(names) != list(images.classes):
        raise MismatchError(
            f"{whose} has {len(names)} classes ({_few(names)}), the data "
            f"{len(images.classes)} ({_few(images.classes)}): give one of this data, or the --data "
            "that it is of"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")

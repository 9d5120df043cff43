"""An imported net asked for the first time: finite logits, and how many test images it knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from advkit.errors import MismatchError, NumericalError, brief
from advkit.images.image_set import ImageSet, fitted, pixels
from advkit.images.split import first
from advkit.runtime import seeding
from advkit.runtime.reporting import Reporter

BATCH = 250
"""Test images in a forward pass."""
SPREAD = 4
"""Standard deviations of a guess above chance up to which an accuracy counts as chance."""


@dataclass(frozen=True)
class Setting:
    """What the net takes and gives: `data` is NAME[:PATH], empty where nobody said."""

    data: str
    classes: Sequence[str]
    input_shape: Sequence[int]
    images: ImageSet | None


class Trial:
    """The net asked for the first time.

    Args:
        model: in eval mode, on its device.
        setting: what it takes and gives.
        path: the foreign file, for messages.
    """

    def __init__(self, model: nn.Module, setting: Setting, path: Path) -> None:
        self.model, self.setting, self.path = model, setting, path
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def forward(self) -> None:
        """Check that noise gives logits, a finite one for each class.

        Raises:
            MismatchError: the net cannot take images of that shape.
            NumericalError: a logit is not finite.
        """
        draw = seeding.generator(0, "import")
        x = torch.rand(2, *self.setting.input_shape, generator=draw).to(self.device)
        try:
            logits = self.model(x)
        except RuntimeError as error:
            wanted = "x".join(map(str, self.setting.input_shape))
            raise MismatchError(
                f"{self.path}: the net takes no images of {wanted}: {brief(error)}"
            ) from None
        if not bool(torch.isfinite(logits).all()):
            raise NumericalError(f"{self.path}: logits of random images hold NaN or infinity")

    def figures(self, limit: int, reporter: Reporter, assumed: bool) -> dict[str, float | int]:
        """Measure the clean accuracy on test images and tell what speaks against it.

        Args:
            limit: how many images, class balanced.
            reporter: is told.
            assumed: the normalisation is a guess, so that none at all is tried too.
        """
        images = self.setting.images
        if images is None:
            return {}
        positions = first(images.labels, limit)
        accuracy, n = self._accuracy(images, positions), len(positions)
        chance = 1 / len(images.classes)
        reporter.note(f"{self.path}: clean accuracy {accuracy:.4f} on {n} test images")
        if assumed:
            plain = self._plain_accuracy(images, positions)
            if plain > accuracy + 2 * math.sqrt(max(accuracy * (1 - accuracy), 1 / n) / n):
                reporter.warn(
                    f"{self.path}: without normalisation its clean accuracy is {plain:.4f}: "
                    "import it again with --no-normalise --overwrite?"
                )
        if accuracy <= chance + SPREAD * math.sqrt(chance * (1 - chance) / n):
            reporter.warn(
                f"{self.path}: clean accuracy {accuracy:.4f} is near chance ({chance:.4f}): most "
                "often the normalisation is wrong (--mean and --std, or --no-normalise) or the "
                "order of the classes; also the activation or another data set"
            )
        return {"clean_accuracy": accuracy, "n": n}

    @torch.no_grad()
    def _accuracy(self, images: ImageSet, positions: Tensor) -> float:
        channels, height, width = self.setting.input_shape
        hits = 0
        for rows in torch.split(positions, BATCH):
            x = fitted(pixels(images.batch(rows), self.device), (channels, height, width))
            logits = self.model(x)
            if not bool(torch.isfinite(logits).all()):
                raise NumericalError(f"{self.path}: logits of test images hold NaN or infinity")
            hits += int((logits.argmax(1).cpu() == images.labels[rows]).sum())
        return hits / len(positions)

    def _plain_accuracy(self, images: ImageSet, positions: Tensor) -> float:
        buffers = dict(self.model.named_buffers())
        kept = {name: buffers[name].clone() for name in ("mean", "std")}
        try:
            buffers["mean"].zero_()
            buffers["std"].fill_(1)
            return self._accuracy(images, positions)
        finally:
            for name, value in kept.items():
                buffers[name].copy_(value)

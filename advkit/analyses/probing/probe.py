"""What an analysis gets that asks a model: the model, test images, and a threat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from advkit import models
from advkit.artifacts import descriptions, provenance
from advkit.errors import MismatchError, few
from advkit.evaluation import classes
from advkit.evaluation.settings import BATCH_SIZE
from advkit.formulas.threat import Threat, parse_eps
from advkit.images.image_set import ImageSet, fitted, pixels
from advkit.images.split import first
from advkit.models import require_finite
from advkit.runtime import seeding
from advkit.runtime.reporting import Reporter


@dataclass(frozen=True)
class Probe:
    """A checkpoint's model and the test examples to ask it about.

    The model is in eval mode and asks for no gradient of its parameters. `positions` (N,) are the
    examples' places in `images`, `eps` is ε as it was written. `numbers` are the model's of the
    images' classes, None where they are the same.
    """

    path: str
    info: descriptions.Checkpoint
    model: nn.Module
    images: ImageSet
    positions: Tensor
    threat: Threat
    eps: str
    seed: int = 0
    batch_size: int = BATCH_SIZE
    reporter: Reporter = field(default_factory=Reporter)
    numbers: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def labels(self) -> Tensor:
        """(N,) int64, the model's classes, on the CPU, in the order of `positions`."""
        own = self.images.labels[self.positions]
        return own if self.numbers is None else self.numbers[own]

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (x (B, C, H, W) in [0, 1], y (B,), rows (B,)), piece by piece in order.

        `x` and `y` are on the model's device; `rows` are places in `positions`, on the CPU.
        """
        channels, height, width = self.info["model"]["input_shape"]
        for rows in torch.split(torch.arange(len(self.positions)), self.batch_size):
            raw = self.images.batch(self.positions[rows])
            x = fitted(pixels(raw, self.device), (channels, height, width))
            yield x, self.labels[rows].to(self.device), rows

    def generator(self, *names: str | int) -> Generator:
        """Return a fresh random stream for one purpose, on the CPU."""
        return seeding.generator(self.seed, *names)

    @property
    def described(self) -> Mapping[str, str | int]:
        """What of this goes into the analysis' description."""
        return {
            "norm": self.threat.norm,
            "eps": self.eps,
            "examples": len(self.positions),
            "seed": self.seed,
            "batch_size": self.batch_size,
        }

    @property
    def parents(self) -> list[Mapping[str, object]]:
        """The checkpoint and the data."""
        images = self.images
        return [
            provenance.parent(self.info),
            provenance.data_parent(images.name, images.split, images.fingerprint, images.how),
        ]


def probe(
    path: str,
    images: ImageSet,
    *,
    eps: str,
    norm: str,
    limit: int | None,
    device: torch.device,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    reporter: Reporter | None = None,
) -> Probe:
    """Load a checkpoint's model and choose the examples.

    Args:
        path: of the checkpoint.
        images: a test split with the model's classes.
        eps: ε in pixel space.
        norm: linf, l2 or l1.
        limit: first so many examples, class balanced; all if None.
        device: where the model goes.
        seed: of every draw.
        batch_size: examples in a batch.
        reporter: hears of progress.

    Raises:
        InputError: missing or corrupt checkpoint.
        MismatchError: the data have other classes.
        NumericalError: a weight is not finite.
        UsageError: an impossible ε.
    """
    model, info = models.load(path, device)
    require_finite(model.state_dict(), path)
    numbers = classes.numbers(images.classes, info["data"]["classes"])
    missing = [name for name, at in zip(images.classes, numbers.tolist(), strict=True) if at < 0]
    if missing:
        raise MismatchError(
            f"{images.name} has other classes than the model of {path} ({few(missing)}): this "
            "analysis needs labels"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    threat = Threat(norm, parse_eps(eps, norm))
    positions, reporter = first(images.labels, limit), reporter or Reporter()
    return Probe(
        path, info, model, images, positions, threat, eps, seed, batch_size, reporter, numbers
    )

"""Attacking any net on images in memory: no checkpoint, no data set, no file."""

from __future__ import annotations

from typing import cast

import torch
from torch import Generator, Tensor, nn

from advkit.artifacts.descriptions import Checkpoint
from advkit.artifacts.hdf5 import Logits
from advkit.config.machine import computing
from advkit.errors import InputError, UsageError
from advkit.evaluation.passes import Surrogate
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings
from advkit.images.image_set import ImageSet
from advkit.runtime import modes
from advkit.runtime.reporting import Reporter

HERE = "in memory"
"""In the place of a digest of what lies in no file."""


class Arrays(ImageSet):
    """Images x (N, C, H, W) float32 in [0, 1] with labels (N,) int64; no augmentation."""

    def __init__(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Check the labels.

        Raises:
            InputError: one is no class.
        """
        self.name, self.split, self.x = "arrays", "test", x
        self.labels, self.classes = labels, tuple(map(str, range(classes)))
        self.pad, self.flip, self.statistics = 0, False, None
        self._require_labels(len(x))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    @property
    def augmentation(self) -> str:
        """None."""
        return "none"

    def batch(self, indices: Tensor) -> Tensor:
        """Return the images (B, C, H, W) float32 in the order of `indices`."""
        return self.x[indices]

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Return views without a number in them, (n, 0): there is but one."""
        return torch.zeros(n, 0, dtype=torch.uint8)

    def seen(self, indices: Tensor, views: Tensor) -> Tensor:
        """Return the plain images."""
        return self.batch(indices)

    def content(self) -> memoryview:
        """Return all pixels."""
        return self.x.contiguous().numpy().data


class Placed(nn.Module):
    """A net that has no parameters, with one that says on which device it computes."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.place = nn.Parameter(torch.zeros((), device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Return the net's logits."""
        logits: Tensor = self.model(x)
        return logits


def attack(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    settings: AttackSettings,
    *,
    surrogate: nn.Module | None = None,
    reporter: Reporter | None = None,
) -> Logits:
    """Attack a net on images in memory and return logits, verdicts and adversarial images.

    Modes, gradients and buffers of the net are as they were afterwards.

    Args:
        model: pixels (B, C, H, W) float32 in [0, 1] to logits (B, K), on any device.
        x: images (N, C, H, W) float32 in [0, 1], on the CPU.
        labels: (N,) int64, on the CPU.
        settings: the attack and its threat.
        surrogate: the net whose gradients `transfer` follows.
        reporter: hears of progress.

    Raises:
        InputError: images or labels that fit no attack, or a net that gives no logits for them.
        NumericalError: logits are not finite.
    """
    if settings.attack == "none":
        raise UsageError("attack none changes nothing: ask the model itself")
    for net in (model, *([] if surrogate is None else [surrogate])):
        if not isinstance(net, nn.Module):
            raise UsageError(
                f"a {type(net).__name__} is no torch.nn.Module: give one that calls it"
            )
    _require_images(x)
    device = next((tensor.device for tensor in model.parameters()), x.device)
    net = model if next(model.parameters(), None) is not None else Placed(model, device)
    with computing(device, torch.get_num_threads()):
        # Two images: with one, a net that loses the batch's dimension would pass.
        classes = _classes(net, x[:2].to(device))
        images = Arrays(x, labels, classes)
        info = _described(images)
        stand_in = None if surrogate is None else Surrogate(surrogate, info)
        evaluation = Evaluation(
            net,
            info,
            images,
            settings,
            environment={"device": device.type, "threads": torch.get_num_threads()},
            reporter=reporter,
            surrogate=stand_in,
        )
        return evaluation.run()


def _require_images(x: Tensor) -> None:
    """Check images before any net sees them.

    Raises:
        InputError: a wrong shape, or a pixel outside [0, 1].
    """
    if x.dim() != 4 or 0 in x.shape:
        raise InputError(f"images are {tuple(x.shape)}, not (N, C, H, W)")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise InputError("images have pixels that are not in [0, 1], where attacks and ε live")


def _classes(model: nn.Module, x: Tensor) -> int:
    """Return how many classes a net knows."""
    with modes.evaluating(model), torch.no_grad():
        logits: object = model(x)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the model gives {shape} for {len(x)} images, not logits (N, classes)")
    if logits.shape[1] < 2:
        raise InputError("the model gives one number an image: an attack needs two classes")
    return int(logits.shape[1])


def _described(images: Arrays) -> Checkpoint:
    """Return the description of a net that comes from no file."""
    description = {
        "kind": "checkpoint",
        "digest": HERE,
        "method": "unknown",
        "arch": "module",
        "role": "given",
        "seed": 0,
        "parents": [],
        "config": {},
        "model": {"input_shape": list(images.shape)},
        "data": {"name": images.name, "classes": list(images.classes)},
    }
    return cast(Checkpoint, description)  # a net in memory has no settings of a run

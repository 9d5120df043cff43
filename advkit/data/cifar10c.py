"""`cifar10c:DIR`: CIFAR-10-C, `<corruption>.npy` and `labels.npy`; test images alone."""

from __future__ import annotations

from pathlib import Path

from advkit.data import _corrupted
from advkit.data.cifar10 import _STATISTICS
from advkit.images.image_set import Images

LIMITS = {"severity": "[1, 5]"}
_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def load(
    root: Path, split: str, *, corruption: str | None = None, severity: int | None = None
) -> Images:
    """Load the test images under one corruption and severity, with CIFAR-10's classes.

    Args:
        root: the folder of the files.
        split: test; there are no training images.
        corruption: of cifar10c and cifar100c: name of a file, such as gaussian_noise.
        severity: of cifar10c and cifar100c: 1 to 5.

    Raises:
        UsageError: no such corruption or severity.
        InputError: the files are missing or not in the format.

    Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations", ICLR 2019.
    """
    return _corrupted.read("cifar10c", root, split, corruption, severity, _CLASSES, _STATISTICS)

"""CIFAR-10-C and CIFAR-100-C: a file of test images for each corruption, in five severities."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from advkit.errors import InputError, UsageError, brief, unknown
from advkit.images.image_set import Images, Statistics

SEVERITIES = 5
LABELS = "labels.npy"


def read(
    name: str,
    root: Path,
    split: str,
    corruption: str | None,
    severity: int | None,
    classes: tuple[str, ...],
    statistics: Statistics,
) -> Images:
    """Read the images of one corruption and severity; the set is called NAME-CORRUPTION-SEVERITY.

    Severity s is the s-th fifth of `<corruption>.npy`, (5N, H, W, 3) uint8, and of `labels.npy`.

    Raises:
        UsageError: no corruption or severity, or no such one.
        InputError: a file is missing, corrupt, or not such an array; training images are asked for.
    """
    if split == "train":
        raise InputError(f"{root}: {name} holds test images alone: no training split is there")
    known = sorted(
        path.stem for path in root.glob("*.npy") if path.name != LABELS and path.is_file()
    )
    if not known or not (root / LABELS).is_file():
        raise InputError(f"{root}: no {LABELS} and <corruption>.npy there: {name}:DIR needs them")
    if corruption is None or severity is None:
        raise UsageError(f"{name} needs --corruption ({brief(', '.join(known))}) and --severity")
    if corruption not in known:
        raise unknown("--corruption", corruption, known)
    if not 1 <= severity <= SEVERITIES:
        raise UsageError(f"--severity {severity} is not in 1..{SEVERITIES}")
    path = root / f"{corruption}.npy"
    images, labels = _array(path), _array(root / LABELS)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"{path}: {images.dtype} {images.shape}, not uint8 (5N, H, W, 3)")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"{root / LABELS}: {labels.dtype} {labels.shape}, not whole numbers for the "
            f"{len(images)} images of {path.name}"
        )
    n, rest = divmod(len(images), SEVERITIES)
    if rest or min(images.shape) == 0:
        raise InputError(
            f"{path}: {images.shape}: images of five severities would be (5N, H, W, 3)"
        )
    rows = slice((severity - 1) * n, severity * n)
    pixels = torch.from_numpy(np.array(images[rows])).permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(np.array(labels[rows]).astype(np.int64))
    called = f"{name}-{corruption}-{severity}"
    try:
        return Images(called, split, pixels, targets, classes, 4, True, statistics)
    except InputError as error:  # it says what of the labels is wrong, not where they lie
        raise InputError(f"{root / LABELS}: {error}") from None


def _array(path: Path) -> NDArray[np.generic]:
    """Open a file without reading its data.

    Raises:
        InputError: it is missing, no such file, or holds Python objects.
    """
    try:
        # Not `np.load`, which also opens archives and pickles.
        return np.lib.format.open_memmap(path, mode="r")
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        OverflowError,
        SyntaxError,  # a header is Python, and parsed as such
        tokenize.TokenError,
        RecursionError,
        MemoryError,
    ) as error:
        raise InputError(f"{path}: not a readable npy file: {brief(error)}") from None

"""Where the splits of an image folder lie: `train/`, `val/`, `test/`, or class folders alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from advkit.errors import InputError, UsageError, brief
from advkit.images.listing import PassedOver, class_folders, files, is_leftover, spelt

VALIDATION = "val"
WANTED = "folder:DIR needs DIR/train and DIR/test"
Pair = tuple[Path, int]
"""An image and the number of its class."""


@dataclass(frozen=True)
class Listed:
    """The images of a split in their order; the last `held_out` are its validation split."""

    top: Path
    names: tuple[str, ...]
    pairs: tuple[Pair, ...]
    held_out: int
    remarks: tuple[str, ...]


def is_flat(root: Path) -> bool:
    """Whether the class folders lie in the folder itself, without `train/` and `test/`."""
    if not root.is_dir() or any((root / split).is_dir() for split in ("train", "test")):
        return False
    inside = (path for path in root.iterdir() if path.name != VALIDATION)
    return any(path.is_dir() and not is_leftover(path.name) for path in inside)


def listed(root: Path, split: str, test_fraction: float | None) -> Listed:
    """List a split without opening an image that its name tells.

    Raises:
        InputError: a folder is missing, a class is empty, or too small to be divided.
        UsageError: a share is wanted of what is divided already, or the other way round.
    """
    flat = is_flat(root)
    if not flat:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder")
        if test_fraction is not None:
            raise UsageError(
                f"--test-fraction: {root} has train/ or test/; it is for class folders alone"
            )
        if split == "train" and not (root / split).is_dir() and (root / "test").is_dir():
            raise InputError(
                f"{root}: a test split alone: it serves attack and analyze; training needs "
                f"{root / 'train'}"
            )
    elif test_fraction is None:
        raise UsageError(
            f"{root}: has neither train/ nor test/: give --test-fraction, the share of each class "
            "that is the test split"
        )
    top = root if flat else root / split
    passed = PassedOver(top)
    wanted = WANTED
    if split == "test" and (root / VALIDATION).is_dir():
        wanted += f"; {VALIDATION}/ is the validation split"
    folders = class_folders(top, wanted, passed, without=(VALIDATION,) if flat else ())
    names = tuple(folders)
    pairs: list[Pair] = []
    for label, (name, folder) in enumerate(folders.items()):
        paths = files(folder, passed)
        if test_fraction is not None:
            paths = _share(name, folder, paths, split, test_fraction)
        pairs += [(path, label) for path in paths]
    remarks = [passed.remark]
    held_out: list[Pair] = []
    if split == "train" and (root / VALIDATION).is_dir():
        held_out, more = _validation(root / VALIDATION, names)
        remarks += more
    return Listed(top, names, (*pairs, *held_out), len(held_out), tuple(filter(None, remarks)))


def _share(name: str, folder: Path, paths: list[Path], split: str, fraction: float) -> list[Path]:
    """Return a class's part of a split: those with the smallest digests of their names are test.

    So it depends on no seed, and images that come or go move few others.
    """
    if len(paths) < 2:
        raise InputError(f"{folder}: one image alone cannot be divided into training and test")
    count = min(max(1, math.floor(len(paths) * fraction + 0.5)), len(paths) - 1)
    digests = {
        path: hashlib.sha256(
            f"{name}/{spelt(path.name)}".encode("utf-8", "surrogateescape")
        ).digest()
        for path in paths
    }
    test = set(sorted(paths, key=digests.__getitem__)[:count])
    return [path for path in paths if (path in test) == (split == "test")]


def _validation(top: Path, names: tuple[str, ...]) -> tuple[list[Pair], list[str]]:
    """List the validation split by the training split's classes."""
    passed = PassedOver(top)
    folders = class_folders(top, "", passed, least=1)
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise InputError(f"{top}: class {brief(unknown[0])!r} is none of the training split's")
    pairs = [
        (path, label)
        for label, name in enumerate(names)
        if name in folders
        for path in files(folders[name], passed)
    ]
    return pairs, [passed.remark]

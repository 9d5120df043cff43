"""`npz:DIR`: `train.npz` and `test.npz` (or `val.npz`) with arrays `image` and `label`.

The format in which generated images are published; `read` takes one such file alone.
"""

from __future__ import annotations

from pathlib import Path

from advkit.errors import InputError
from advkit.images.image_set import Images
from advkit.images.npz import described, read

_FILES = {"train": ("train.npz",), "test": ("test.npz", "val.npz")}


def load(root: Path, split: str) -> Images:
    """Load images with classes 0 to the training labels' maximum, each named by its number.

    Padding is 4 with flips, as for CIFAR. A test set alone has the classes up to its own maximum.

    Args:
        root: the folder with `train.npz` and `test.npz` or `val.npz` (`test.npz` goes first).
        split: train or test.

    Raises:
        InputError: a file is missing or not in the format, or the test split does not go with
            the training split (another image shape, more classes).
    """
    train = root / "train.npz"
    path = _found(root, *_FILES[split])
    images, labels = read(path)
    alone = split == "test" and not train.exists()
    highest, shape = int(labels.max()), tuple(images.shape[1:])
    if not alone:
        highest, expected = described(train)
        if shape != expected:
            raise InputError(f"{path}: images are {shape}, those of {train.name} {expected}")
        if int(labels.max()) > highest:
            raise InputError(
                f"{path}: label {int(labels.max())}, but the highest in {train.name} is {highest}"
            )
    names = tuple(str(label) for label in range(highest + 1))
    return Images("npz", split, images, labels, names, pad=4, flip=True, alone=alone)


def _found(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    if any((root / name).is_file() for name in _FILES["test"]):
        raise InputError(f"{root}: holds a test set alone: no {names[0]} to train on")
    wanted = "npz:DIR needs DIR/train.npz and DIR/test.npz (or val.npz)"
    raise InputError(f"{root}: no {' or '.join(names)} there; {wanted}")


def classes(root: Path, split: str) -> tuple[str, ...]:
    """Return the classes 0 to the largest label of a split, none where its file is missing.

    Raises:
        InputError: the file is not in the format.
    """
    names = ("train.npz",) if split == "train" else ("test.npz", "val.npz")
    path = next((root / name for name in names if (root / name).is_file()), None)
    return () if path is None else tuple(str(label) for label in range(described(path)[0] + 1))

"""Data sets: uint8 images with labels in a fixed order.

A data set is named `NAME` or `NAME:PATH`; the path wins over `--data-root`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from advkit import registry
from advkit.artifacts.descriptions import Checkpoint
from advkit.errors import InputError, UsageError
from advkit.images.image_set import Images, ImageSet

__all__ = ["folder", "load", "load_for", "with_classes"]


def load(text: str, split: str, *, root: str | Path | None = None, **options: object) -> ImageSet:
    """Load one split (`train` or `test`) of a data set.

    Args:
        text: `NAME[:PATH]`.
        split: train or test.
        root: where data sets lie, for those that need files.
        options: the set's own options; None means not given.

    Raises:
        UsageError: no such data set, no place to look, or an option that the set does not have.
        InputError: the files are missing, corrupt or empty.
    """
    name, path = registry.split_path(text)
    part = registry.part("data", name)
    needs_files = part.constants.get("FILES", True)
    if needs_files and path is None and root is None:
        raise UsageError(f"where is {name}? write --data {name}:DIR or give --data-root")
    known = {option.name for option in part.options}
    named = {key: value for key, value in options.items() if value is not None}
    for key in named.keys() - known:
        raise UsageError(f"--{key.replace('_', '-')} has no meaning for the data set {name}")
    where = Path(path) if path is not None else Path(root or ".")
    try:
        images: ImageSet = registry.load("data", name).load(where, split, **named)
    except InputError as error:
        if needs_files and str(error).startswith(f"{name}: "):  # what images say of themselves
            raise InputError(f"{where}: {error}") from None
        raise
    if len(images.labels) == 0:
        raise InputError(f"{text}: the {split} split is empty")
    if len(images.classes) < 2 and not images.alone:
        raise InputError(f"{text}: all examples are of one class: there is nothing to tell apart")
    return images


def load_for(
    info: Checkpoint,
    text: str,
    split: str,
    *,
    root: str | Path | None,
    image_size: int | None = None,
    image_list: str | None = None,
    corruption: str | None = None,
    severity: int | None = None,
) -> ImageSet:
    """Load a split of the data that a checkpoint is used on, at the size it was trained at.

    Args:
        info: the checkpoint's description.
        text: `NAME[:PATH]`.
        split: train or test.
        root: where data sets lie.
        image_size: side of the images; the checkpoint's if None.
        image_list: file that names the test images; of no meaning for training ones.
        corruption: of a set of corrupted images, which one.
        severity: of a set of corrupted images, how strong.

    Raises:
        UsageError, InputError: as `load`.
    """
    name = registry.split_path(text)[0]
    known = {option.name for option in registry.part("data", name).options}
    if image_size is None and name == info["data"]["name"]:
        image_size = info["config"].get("image_size")
    elif image_size is None and "image_size" in known:
        image_size = info["model"]["input_shape"][1]
    listed = image_list if split == "test" else None
    chosen = {"corruption": corruption, "severity": severity}
    images = load(text, split, root=root, image_size=image_size, image_list=listed, **chosen)
    return with_classes(images, info["data"]["classes"])


def with_classes(images: ImageSet, names: Sequence[str]) -> ImageSet:
    """Return a test set alone with its model's classes, where its own are the first of them."""
    own = images.classes
    if not isinstance(images, Images) or not images.alone or tuple(names[: len(own)]) != own:
        return images
    return dataclasses.replace(images, classes=tuple(names))

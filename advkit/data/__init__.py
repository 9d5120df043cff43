"""Data sets: uint8 images with labels in a fixed order.

A data set is named `NAME` or `NAME:PATH`; the path wins over `--data-root`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from advkit import registry
from advkit.artifacts.descriptions import Checkpoint
from advkit.errors import InputError, UsageError, brief, few
from advkit.images.image_set import Images, ImageSet
from advkit.registry import sources
from advkit.runtime.reporting import Reporter

__all__ = ["folder", "load", "load_for", "require_same_classes", "with_classes"]


def load(
    text: str,
    split: str,
    *,
    root: str | Path | None = None,
    reporter: Reporter | None = None,
    **options: object,
) -> ImageSet:
    """Load one split (`train` or `test`) of a data set.

    Args:
        text: `NAME[:PATH]`.
        split: train or test.
        root: where data sets lie, for those that need files.
        reporter: hears what was passed over or left out, and of classes that no image has.
        options: the set's own options; None means not given.

    Raises:
        UsageError: no such data set, no place to look, or an option that the set does not have.
        InputError: the files are missing, corrupt or empty.
    """
    name, where, needs_files = _place(text, root)
    known = {option.name for option in registry.part("data", name).options}
    named = {key: value for key, value in options.items() if value is not None}
    for key in named.keys() - known:
        raise UsageError(f"--{key.replace('_', '-')} has no meaning for the data set {name}")
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
    if reporter is not None:
        for line in images.remarks:
            reporter.note(line)
        _tell_unseen(text, images, reporter)
    return images


def _place(text: str, root: str | Path | None) -> tuple[str, Path, bool]:
    """Return a data set's name, where it lies, and whether it lies in files at all.

    Raises:
        UsageError: no such data set, or no place to look.
    """
    name, path = registry.split_path(text)
    needs_files = registry.part("data", name).constants.get("FILES", True)
    if needs_files and path is None and root is None:
        raise UsageError(f"where is {name}? write --data {name}:DIR or give --data-root")
    return name, Path(path) if path is not None else Path(root or "."), needs_files


def _tell_unseen(text: str, images: ImageSet, reporter: Reporter) -> None:
    """Warn of classes that no image is of: labels from 1, for example, leave class 0 empty."""
    unseen = images.missing
    if unseen:
        what = f"class {brief(unseen[0])} has" if len(unseen) == 1 else f"{_of(unseen)} have"
        hint = ": do its labels begin at 1?" if unseen == images.classes[:1] else ""
        reporter.warn(f"{text}: {what} no image in the {images.split} split{hint}")


def _of(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({few(names)})"


def require_same_classes(
    text: str,
    images: ImageSet,
    *,
    root: str | Path | None,
    reporter: Reporter,
    test_fraction: float | None = None,
) -> None:
    """Hold the classes of a test split to those that will be trained, before anything is.

    Sets that cannot differ, and those without a test split at hand, are passed.

    Args:
        text: `NAME[:PATH]`.
        images: the training split.
        root: where data sets lie.
        reporter: hears of classes that the test split lacks.
        test_fraction: share of a folder that is its test split.

    Raises:
        InputError: the test split has a class that the training split lacks, or is damaged.
    """
    name, where, _ = _place(text, root)
    module = registry.load("data", name)
    if not hasattr(module, "classes"):
        return
    share = {} if test_fraction is None else {"test_fraction": test_fraction}
    tested: Sequence[str] = module.classes(where, "test", **share)
    if not tested:
        return
    more = [name for name in tested if name not in images.classes]
    if more:
        what = f"class {brief(more[0])!r}" if len(more) == 1 else _of(more)
        raise InputError(
            f"{text}: the test split has {what}, which the training split lacks: no model of "
            "these classes could be tested on it"
        )
    there = {*tested, *images.missing}  # what no image has in either is told already
    fewer = [name for name in images.classes if name not in there]
    if fewer:
        what = f"class {brief(fewer[0])!r}" if len(fewer) == 1 else _of(fewer)
        reporter.warn(f"{text}: the test split lacks {what}: nothing will be known of it")


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
    test_fraction: float | None = None,
    skip_broken: bool = False,
    reporter: Reporter | None = None,
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
        test_fraction: share of each class of a folder that is the test split; the checkpoint's
            if None, where the folder is not divided.
        skip_broken: leave out a folder's broken images; also where the checkpoint did.
        reporter: see `load`.

    Raises:
        UsageError, InputError: as `load`.
        MismatchError: the set is somebody else's part, and its source is another one now.
    """
    try:
        name, where, _ = _place(text, root)
    except UsageError as error:
        if text != info["data"]["name"]:
            raise
        # Equal work gives equal bytes wherever it is done; an imported net has no run beside it.
        raise UsageError(
            f"{error}: a checkpoint keeps the name of its data, not their place"
        ) from None
    if name == info["data"]["name"]:
        sources.require(info.get("parts", {}), "data", f"{name}, the data of the checkpoint")
    known = {option.name for option in registry.part("data", name).options}
    same = name == info["data"]["name"]
    if same and "test_fraction" in known:
        skip_broken = skip_broken or info["config"].get("skip_broken", False)
        if test_fraction is None and registry.load("data", name).is_flat(where):
            test_fraction = info["config"].get("test_fraction")
    if image_size is None and same:
        image_size = info["config"].get("image_size")
    elif image_size is None and "image_size" in known:
        image_size = info["model"]["input_shape"][1]
    listed = image_list if split == "test" else None
    images = load(
        text,
        split,
        root=root,
        reporter=reporter,
        image_size=image_size,
        image_list=listed,
        corruption=corruption,
        severity=severity,
        test_fraction=test_fraction,
        skip_broken=skip_broken or None,
    )
    _tell_unlike(text, images, info, reporter if same else None)
    trained = info["config"].get("test_fraction")
    if same and reporter is not None and test_fraction and trained and test_fraction > trained:
        reporter.warn(
            f"{text}: --test-fraction {test_fraction:g} takes more images than the {trained:g} "
            "that were left out of training: of the folder that the model was trained on it "
            "judges training images"
        )
    return with_classes(images, info["data"]["classes"])


def _tell_unlike(text: str, images: ImageSet, info: Checkpoint, reporter: Reporter | None) -> None:
    """Warn where images of the model's own kind have to be resized or converted for it."""
    wanted = tuple(info["model"]["input_shape"])
    if reporter is not None and images.shape != wanted:
        sides = ["×".join(map(str, shape)) for shape in (images.shape, wanted)]
        reporter.warn(f"{text}: its images are {sides[0]}, and are made {sides[1]} for the model")


def with_classes(images: ImageSet, names: Sequence[str]) -> ImageSet:
    """Return a test set alone with its model's classes, where its own are the first of them."""
    own = images.classes
    if not isinstance(images, Images) or not images.alone or tuple(names[: len(own)]) != own:
        return images
    return dataclasses.replace(images, classes=tuple(names))

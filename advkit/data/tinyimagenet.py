"""TinyImageNet: `tiny-imagenet-200` as published, or with its validation images sorted.

The test split is the published validation images: the published test images have no labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.errors import InputError, brief
from advkit.images.decode import SUFFIXES, decode
from advkit.images.image_set import Images
from advkit.images.listing import PassedOver, class_folders, files
from advkit.runtime import reading

_STATISTICS = ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))
_FOLDER = "tiny-imagenet-200"
Listed = list[tuple[Path, int]]

PUBLISHED = {"train": 100000, "test": 10000, "classes": 200, "channels": 3, "size": 64}


def load(root: Path, split: str) -> Images:
    """Load 100,000 training or 10,000 test images of 3×64×64, by class, then by file name.

    A class's number is the place of its WordNet id among the sorted ids, as in torchvision's
    ImageFolder (`wnids.txt` has another order).

    Args:
        root: `tiny-imagenet-200`, or the folder that holds it.
        split: train or test.

    Raises:
        InputError: files are missing, do not go together, are no images, or differ in size.

    Source: Y. Le and X. Yang, "Tiny ImageNet Visual Recognition Challenge", 2015.
    """
    top = root / _FOLDER if (root / _FOLDER).is_dir() else root
    passed = PassedOver(top)
    ids = _ids(top, passed if split == "train" else PassedOver(top))
    listed = _train(top, ids, passed) if split == "train" else _validation(top / "val", ids, passed)
    labels = torch.tensor([label for _, label in listed])
    pixels = _decoded([path for path, _ in listed])
    return Images(
        "tinyimagenet",
        split,
        pixels,
        labels,
        _names(top, ids),
        pad=4,
        flip=True,
        statistics=_STATISTICS,
        remarks=(passed.remark,) if passed.remark else (),
    )


def classes(root: Path, split: str) -> tuple[str, ...]:
    """Return the classes of a split, none where it is not there, without decoding an image.

    Raises:
        InputError: as `load`.
    """
    top = root / _FOLDER if (root / _FOLDER).is_dir() else root
    if not (top / ("train" if split == "train" else "val")).is_dir():
        return ()
    passed = PassedOver(top)
    ids = _ids(top, passed)
    if split == "test":
        _validation(top / "val", ids, passed)  # which holds its classes to those
    return _names(top, ids)


def _ids(top: Path, passed: PassedOver) -> tuple[str, ...]:
    """Return the WordNet ids of the training folders, sorted."""
    wanted = f"tinyimagenet needs {_FOLDER}, or the folder that holds it"
    ids = tuple(class_folders(top / "train", wanted, passed))
    if "images" in ids:
        raise InputError(f"{top / 'train'}: 'images' is no class: one folder each is needed")
    known = top / "wnids.txt"
    if known.exists():
        _same(known, _lines(known), ids)
    return ids


def _same(where: Path, names: Iterable[str], ids: tuple[str, ...]) -> None:
    """Check that the classes named somewhere are those of the training folders.

    Raises:
        InputError: one is missing, or one too many.
    """
    named = set(names)
    for name in sorted(named.symmetric_difference(ids)):
        how = "is no training class" if name in named else "is missing"
        counts = f"{len(named)} classes, {len(ids)} in train"
        raise InputError(f"{where}: class {brief(name)!r} {how} ({counts})")


def _images_of(folder: Path, passed: PassedOver) -> list[Path]:
    inner = folder / "images"
    return files(inner if inner.is_dir() else folder, passed)


def _train(top: Path, ids: tuple[str, ...], passed: PassedOver) -> Listed:
    folders = [top / "train" / name for name in ids]
    return [
        (path, label) for label, folder in enumerate(folders) for path in _images_of(folder, passed)
    ]


def _validation(top: Path, ids: tuple[str, ...], passed: PassedOver) -> Listed:
    if not top.is_dir():
        raise InputError(f"{top}: no such folder: it is the test split of tinyimagenet")
    images = top / "images"
    if images.is_dir() and any(path.suffix.lower() in SUFFIXES for path in images.iterdir()):
        return _annotated(top, ids, passed)
    # sorting the images may have left an empty `images` behind
    kept = [path for path in passed.kept(top) if path.is_dir() and path != images]
    folders = {path.name: path for path in kept}
    _same(top, folders, ids)
    return [
        (path, label)
        for label, name in enumerate(ids)
        for path in _images_of(folders[name], passed)
    ]


def _annotated(top: Path, ids: tuple[str, ...], passed: PassedOver) -> Listed:
    """Return the images of the published layout in the order that sorting them would give."""
    table = top / "val_annotations.txt"
    if not table.exists():
        raise InputError(f"{table}: no such file: without it {top / 'images'} has no labels")
    labels = _annotations(table, {name: label for label, name in enumerate(ids)})
    paths = {path.name: path for path in files(top / "images", passed)}
    for name in sorted(labels.keys() ^ paths.keys()):
        where = "is not in it" if name in paths else "is not in images"
        raise InputError(
            f"{table}: {brief(name)} {where} ({len(labels)} lines, {len(paths)} images)"
        )
    _same(table, {ids[label] for label in labels.values()}, ids)
    return sorted(((paths[name], label) for name, label in labels.items()), key=lambda it: it[::-1])


def _annotations(table: Path, numbers: dict[str, int]) -> dict[str, int]:
    """Return label by file name from lines `file TAB class TAB x TAB y TAB x TAB y`."""
    labels: dict[str, int] = {}
    for place, line in enumerate(_lines(table), start=1):
        name, *rest = line.split("\t")
        if not rest:
            raise InputError(f"{table}: line {place} is not file, class, box, separated by tabs")
        if rest[0] not in numbers:
            raise InputError(
                f"{table}: line {place}: class {brief(rest[0])!r} is no training class"
            )
        if name in labels:
            raise InputError(f"{table}: line {place} names {brief(name)} again")
        labels[name] = numbers[rest[0]]
    return labels


def _names(top: Path, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words for each id, where `words.txt` lies there and has them."""
    words = top / "words.txt"
    pairs = (line.partition("\t") for line in _lines(words)) if words.exists() else ()
    known = {name: text.strip() for name, _, text in pairs}
    return tuple(known.get(name) or name for name in ids)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    try:
        text = reading.text(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {brief(error)}") from None
    return [line.strip() for line in text.split("\n") if line.strip()]


def _decoded(paths: list[Path]) -> Tensor:
    """Decode into one tensor (N, 3, H, W) of the first image's size, never held twice."""
    wide, high = decode(paths[0]).size
    try:
        pixels = np.empty((len(paths), 3, high, wide), np.uint8)
    except MemoryError:
        raise InputError(
            f"{paths[0]}: is {wide}x{high}: {len(paths)} images of this size do not fit in memory"
        ) from None

    def fill(place: int) -> None:
        image = decode(paths[place])
        if image.size != (wide, high):
            size = "{}x{}".format(*image.size)
            raise InputError(f"{paths[place]}: is {size}, but {paths[0].name} is {wide}x{high}")
        pixels[place] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(len(paths))):
            pass
    return torch.from_numpy(pixels)

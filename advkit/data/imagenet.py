"""ImageNet (ILSVRC 2012) as class folders, decoded in workers at 224×224."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from advkit.errors import InputError, brief, few
from advkit.images.files import Files, is_file, require_files
from advkit.images.image_set import require_text
from advkit.images.listing import spelt
from advkit.runtime import reading

LIMITS = {"image_size": "[1, 4096]"}
_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FOLDER = {"train": "train", "test": "val"}
_SUFFIX = ".jpeg"

PUBLISHED = {"train": 1281167, "test": 50000, "classes": 1000, "channels": 3, "size": 224}


def load(root: Path, split: str, *, image_size: int = 224, image_list: str | None = None) -> Files:
    """List `train/WNID/*.JPEG` or `val/WNID/*.JPEG` in the order of class, then file name.

    The class of an image is the place of its WNID among the sorted folders of `train/` (of `val/`
    where there is no `train/`). With a list, `val/` may also be flat, as the archive unpacks.

    Args:
        image_size: side of the crop.
        image_list: file with a line WNID/NAME.JPEG for each test image to use, RobustBench's
            `imagenet_test_image_ids.txt`; all of `val/` if not given.

    Raises:
        InputError: a folder, class or listed file is missing, or the list names one twice.
    """
    names = _classes(root)
    if split == "test" and image_list is not None:
        paths = _listed(root, Path(image_list))
    else:
        paths = _found(root, _FOLDER[split], names)
    place = {name: number for number, name in enumerate(names)}
    unknown = next((wnid for _, wnid in paths if wnid not in place), None)
    if unknown is not None:
        raise InputError(f"{image_list}: class {brief(unknown)} has no folder in {root / 'train'}")
    labels = torch.tensor([place[wnid] for _, wnid in paths], dtype=torch.int64)
    files = tuple(path for path, _ in paths)
    remarks = () if image_list is not None else _passed_over(root / _FOLDER[split], names)
    return Files(
        "imagenet", split, root, files, labels, names, image_size, _STATISTICS, remarks=remarks
    )


def _classes(root: Path) -> tuple[str, ...]:
    for folder in ("train", "val"):
        if (root / folder).is_dir():
            names = sorted(
                (path.name for path in (root / folder).iterdir() if path.is_dir()), key=spelt
            )
            if len(names) >= 2:
                require_text(root / folder, names)
                return tuple(names)
    raise InputError(f"{root}: no class folders there: imagenet:DIR needs DIR/train/WNID/*.JPEG")


def _found(root: Path, folder: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    top = root / folder
    if not top.is_dir():
        raise InputError(f"{top}: no such folder")
    if folder == "val" and not any((top / name).is_dir() for name in names):
        raise InputError(
            f"{top}: holds no class folders, so its images have no labels: sort them into "
            "val/WNID/, or name RobustBench's list with --image-list"
        )
    pairs = []
    for name in names:
        inside = top / name
        files = sorted(os.listdir(inside), key=spelt) if inside.is_dir() else []
        files = [file for file in files if file.lower().endswith(_SUFFIX)]
        if not files:
            raise InputError(f"{inside}: holds no .JPEG image")
        pairs += [(f"{folder}/{name}/{file}", name) for file in files]
    return pairs


def _passed_over(top: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a remark on class folders of a split that are none of the training split's."""
    others = sorted(path.name for path in top.iterdir() if path.is_dir() and path.name not in names)
    if not others:
        return ()
    return (f"{top}: class folders without one in train/ are left out: {few(others)}",)


def _listed(root: Path, path: Path) -> list[tuple[str, str]]:
    try:
        lines = reading.text(path).split()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from None
    files: list[tuple[str, str]] = []
    seen: set[str] = set()
    for line in lines:
        wnid, slash, name = line.partition("/")
        if not slash or not name or "/" in name or ".." in line:
            raise InputError(f"{path}: {brief(line)!r} is not WNID/NAME.JPEG")
        sorted_place, flat = f"val/{wnid}/{name}", f"val/{name}"
        place = sorted_place if is_file(root / sorted_place) else flat
        if place in seen:  # in a flat folder also under another class
            raise InputError(f"{path}: names {brief(place)} twice, which would count it twice")
        seen.add(place)
        files.append((place, wnid))
    if not files:
        raise InputError(f"{path}: lists no image")
    require_files(root, tuple(place for place, _ in files))
    return files

"""`folder:DIR`: images by class, in `train/` and `test/`, or class folders alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.data import _layout
from advkit.data._layout import Listed
from advkit.errors import InputError, UsageError, few
from advkit.images.decode import decode, require_resizable, resized
from advkit.images.image_set import Images
from advkit.images.listing import spelt

LIMITS = {"image_size": "[1, 4096]", "test_fraction": "(0, 1)"}
_PAD = 4
_LISTED = 10
"""Broken images that an error names before it counts the rest."""


def load(
    root: Path,
    split: str,
    *,
    image_size: int | None = None,
    test_fraction: float | None = None,
    skip_broken: bool = False,
) -> Images:
    """Load the images of a split in the order of class name, then file name.

    Images are read as programs show them: upright, on white where they are transparent. Grey
    images are one channel if all are grey; otherwise everything becomes RGB. Padding is an eighth
    of the shorter side, at most 4, with flips: CIFAR's 4 of 32, 2 of 16. The images of `val/` come
    last in the training split, as its validation split.

    Args:
        root: the folder with `train/` and `test/`, or with the class folders themselves.
        split: train or test.
        image_size: side to which every image is resized (shorter side, then the centre is
            cropped); needed where their sizes differ.
        test_fraction: share of each class of a folder without train/ and test/ that is the test
            split.
        skip_broken: leave out images that cannot be read, and record it.

    Raises:
        InputError: a folder is missing, a class is empty, or files are not images.
        UsageError: the sizes differ and none was given, or the test split is not told.
    """
    if image_size is not None and image_size < 1:
        raise UsageError("--image-size must be at least 1")
    listed = _layout.listed(root, split, test_fraction)
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda pair: _pixels(pair[0], image_size), listed.pairs))
    broken = [place for place, image in enumerate(decoded) if isinstance(image, InputError)]
    if broken and not skip_broken:
        raise _refusal(listed.top, [str(decoded[place]) for place in broken])
    whole = [image for image in decoded if not isinstance(image, InputError)]
    labels = _labels(listed, broken)
    _require_one_size(listed.top, whole)
    images = _stack(whole)
    how: dict[str, object] = {} if test_fraction is None else {"test_fraction": test_fraction}
    remarks = listed.remarks
    if broken:
        names = [_below(root, listed.pairs[place][0]) for place in broken]
        how["broken"] = {"n": len(broken), "digest": _digest(names)}
        remarks += (f"{root}: left out as broken: {len(broken)} ({few(names)})",)
    first_held = len(listed.pairs) - listed.held_out
    return Images(
        "folder",
        split,
        images,
        labels,
        listed.names,
        pad=min(_PAD, min(images.shape[2:]) // 8),
        flip=True,
        held_out=listed.held_out - sum(place >= first_held for place in broken),
        how=how,
        remarks=remarks,
    )


def classes(root: Path, split: str, *, test_fraction: float | None = None) -> tuple[str, ...]:
    """Return the classes of a split, none where it is not there, without decoding an image.

    Raises:
        InputError, UsageError: as `load`.
    """
    if not (root / split).is_dir() and not _layout.is_flat(root):
        return ()
    return _layout.listed(root, split, test_fraction).names


def is_flat(root: Path) -> bool:
    """Whether the class folders lie in the folder itself, so that `load` needs `test_fraction`."""
    return _layout.is_flat(root)


def paths(
    root: Path, split: str, *, test_fraction: float | None = None, skip_broken: bool = False
) -> list[str]:
    """Return the paths of a split's images below `root`, in the order of `load`.

    Raises:
        InputError: a folder is missing or a class is empty.
    """
    listed = _layout.listed(root, split, test_fraction).pairs
    broken = {path for path, _ in listed if isinstance(_pixels(path, None), InputError)} \
        if skip_broken else set()  # fmt: skip
    return [_below(root, path) for path, _ in listed if path not in broken]


def _below(root: Path, path: Path) -> str:
    return spelt(path.relative_to(root).as_posix())


def _digest(names: Sequence[str]) -> str:
    text = "\n".join(names).encode("utf-8", "surrogateescape")
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def _pixels(path: Path, size: int | None) -> np.ndarray | InputError:
    """Return one image as uint8 (H, W) or (H, W, 3), or why it is broken.

    Raises:
        InputError: it is whole, but too elongated for a square.
    """
    try:
        image = decode(path, as_shown=True)
    except InputError as error:
        return error
    if size is None:
        return np.asarray(image)
    require_resizable(path, image)
    return np.asarray(resized(image, size))


def _refusal(top: Path, reasons: Sequence[str]) -> InputError:
    """Return the error that names the broken images, all of them at once."""
    if len(reasons) == 1:
        return InputError(f"{reasons[0]}; --skip-broken leaves it out")
    rest = len(reasons) - _LISTED
    named = "; ".join(reason.removeprefix(f"{top}/") for reason in reasons[:_LISTED])
    more = f"; and {rest} more" if rest > 0 else ""
    return InputError(
        f"{top}: {len(reasons)} broken images: {named}{more}: --skip-broken leaves them out"
    )


def _labels(listed: Listed, broken: Sequence[int]) -> Tensor:
    """Return the labels of the images that are whole.

    Raises:
        InputError: of a class no image is.
    """
    out = set(broken)
    labels = [label for place, (_, label) in enumerate(listed.pairs) if place not in out]
    first_held = len(listed.pairs) - listed.held_out
    taught = {listed.pairs[place][1] for place in range(first_held) if place not in out}
    if listed.held_out and all(place in out for place in range(first_held, len(listed.pairs))):
        raise InputError(f"{listed.pairs[-1][0].parents[1]}: none of its images can be read")
    for label, name in enumerate(listed.names):
        if label not in taught:
            raise InputError(f"{listed.top}: class {name!r}: none of its images can be read")
    return torch.tensor(labels, dtype=torch.int64)


def _require_one_size(top: Path, decoded: Sequence[np.ndarray]) -> None:
    """Check that the images can be put into one array.

    Raises:
        UsageError: their sizes differ.
    """
    sizes = {image.shape[:2] for image in decoded}
    if len(sizes) > 1:
        small, large = min(sizes), max(sizes)
        raise UsageError(
            f"{top}: images have {len(sizes)} sizes, from {small[1]}x{small[0]} to "
            f"{large[1]}x{large[0]}: give --image-size"
        )


def _stack(decoded: Sequence[np.ndarray]) -> Tensor:
    grey = all(image.ndim == 2 for image in decoded)
    if grey:
        return torch.from_numpy(np.stack(decoded))[:, None]
    colour = [image if image.ndim == 3 else np.repeat(image[..., None], 3, 2) for image in decoded]
    return torch.from_numpy(np.stack(colour)).permute(0, 3, 1, 2).contiguous()

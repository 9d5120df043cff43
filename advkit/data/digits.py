"""1,797 handwritten digits of 8×8 grey pixels, embedded in scikit-learn: nothing to download.

The test split is every fifth example of each class in the file's order (355 images), the
training split the rest (1,442); both are fixed and stratified.
"""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from advkit.errors import InputError
from advkit.images.image_set import Images
from advkit.runtime import reading

FILES = False

_FILE = ("datasets", "data", "digits.csv.gz")
_ROWS, _PIXELS = 1797, 64
PUBLISHED = {"train": 1442, "test": 355, "classes": 10, "channels": 1, "size": 8}


def load(root: Path, split: str) -> Images:
    """Load the digits; `root` is not used.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    pixels, labels = _published()
    # Published as 0..16.
    images = (pixels.double() * 255 / 16).round().to(torch.uint8)[:, None]
    tested = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = (labels == label).nonzero().flatten()
        tested[members[4::5]] = True
    chosen = tested if split == "test" else ~tested
    names = tuple(str(label) for label in range(10))
    return Images("digits", split, images[chosen], labels[chosen], names, pad=1, flip=False)


def _published() -> tuple[Tensor, Tensor]:
    """Return the pixels (N, 8, 8) uint8 in 0..16 and the labels (N,) int64 of scikit-learn's file.

    The file is read, and scikit-learn not imported: that takes longer than a small attack, and
    imports scipy.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        InputError: its file is not there, or another one.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    path = Path(spec.submodule_search_locations[0], *_FILE)
    try:
        rows = gzip.decompress(reading.content(path, reading.SETTINGS)).splitlines()
        numbers = bytes(int(word) for row in rows for word in row.split(b","))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{path}: {error}; install scikit-learn anew") from None
    if len(numbers) != _ROWS * (_PIXELS + 1):
        raise InputError(f"{path}: {len(numbers)} numbers are not the digits")
    table = torch.frombuffer(bytearray(numbers), dtype=torch.uint8).view(_ROWS, _PIXELS + 1)
    return table[:, :_PIXELS].reshape(-1, 8, 8), table[:, _PIXELS].long()

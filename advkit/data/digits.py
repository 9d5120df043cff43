"""1,797 handwritten digits of 8×8 grey pixels, embedded in scikit-learn: nothing to download.

The test split is every fifth example of each class in the file's order (355 images), the
training split the rest (1,442); both are fixed and stratified.
"""

from __future__ import annotations

from pathlib import Path

import torch

from advkit.images.image_set import Images

FILES = False

PUBLISHED = {"train": 1442, "test": 355, "classes": 10, "channels": 1, "size": 8}


def load(root: Path, split: str) -> Images:
    """Load the digits; `root` is not used.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits  # seconds to import

    bunch = load_digits()
    labels = torch.from_numpy(bunch.target).long()
    # Published as 0..16.
    images = (torch.from_numpy(bunch.images) * 255 / 16).round().to(torch.uint8)[:, None]
    tested = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = (labels == label).nonzero().flatten()
        tested[members[4::5]] = True
    chosen = tested if split == "test" else ~tested
    names = tuple(str(label) for label in range(10))
    return Images("digits", split, images[chosen], labels[chosen], names, pad=1, flip=False)

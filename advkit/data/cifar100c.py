"""`cifar100c:DIR`: CIFAR-100-C, `<corruption>.npy` and `labels.npy`; test images alone."""

from __future__ import annotations

from pathlib import Path

from advkit.data import _corrupted
from advkit.data.cifar100 import _STATISTICS
from advkit.images.image_set import Images

LIMITS = {"severity": "[1, 5]"}
# Fine classes in the order of their numbers, which is that of the alphabet.
_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_CLASSES = tuple(_NAMES.split())


def load(
    root: Path, split: str, *, corruption: str | None = None, severity: int | None = None
) -> Images:
    """Load the test images under one corruption and severity, with CIFAR-100's fine classes.

    Args:
        root: the folder of the files.
        split: test; there are no training images.
        corruption: of cifar10c and cifar100c: name of a file, such as gaussian_noise.
        severity: of cifar10c and cifar100c: 1 to 5.

    Raises:
        UsageError: no such corruption or severity.
        InputError: the files are missing or not in the format.

    Source: Hendrycks and Dietterich, ICLR 2019.
    """
    return _corrupted.read("cifar100c", root, split, corruption, severity, _CLASSES, _STATISTICS)

"""Which of a model's classes the labels of an image set are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from advkit.artifacts.descriptions import Checkpoint
from advkit.config.location import UNKNOWN
from advkit.errors import MismatchError, brief, few
from advkit.images.image_set import ImageSet
from advkit.runtime.reporting import Reporter


def numbers(own: Sequence[str], trained: Sequence[str]) -> Tensor:
    """Return for each class of a set the model's number of it, -1 where it has none.

    >>> numbers(["cat", "emu"], ["ant", "cat"]).tolist()
    [1, -1]
    """
    if list(own) == list(trained):  # also where two classes have one name
        return torch.arange(len(own))
    places = {name: place for place, name in enumerate(trained)}
    return torch.tensor([places.get(name, -1) for name in own], dtype=torch.int64)


def mere_numbers(names: Sequence[str]) -> bool:
    """Return whether classes are called by numbers, as those of many sets are.

    >>> mere_numbers(["0", "1"]), mere_numbers(["0", "cat"])
    (True, False)
    """
    return all(name.isdecimal() for name in names)


def known(
    info: Checkpoint, images: ImageSet, *, attacked: bool, other: bool, reporter: Reporter
) -> Tensor:
    """Return for each class of the images the model's number of it, -1 where it has none.

    Another data set is out of distribution, but for classes that are called as the model's are:
    the user is told what that rests on. Classes that are mere numbers say too little of another
    set: 0 to 9 are the classes of many. A split of the same set may lack classes. Of a net that
    was imported without its data any set may be the model's.

    Args:
        info: the checkpoint's description.
        images: the set.
        attacked: whether every example needs a label.
        other: whether the images are of another set than the model was trained on.
        reporter: hears what is not as it seems.

    Raises:
        MismatchError: an attack is wanted, and a class is none of the model's.
    """
    trained, own = info["data"]["classes"], images.classes
    unknown = info["data"]["name"] == UNKNOWN
    other = other and not unknown
    mapped = numbers(own, trained)
    same = list(own) == list(trained)
    if other and mere_numbers(own) and not (same and attacked):
        mapped = torch.full_like(mapped, -1)
    missing = [name for name, number in zip(own, mapped.tolist(), strict=True) if number < 0]
    if missing and attacked:
        raise MismatchError(
            f"{images.name} has other classes than the model ({few(missing)}): attacks need its "
            "labels; --attack none gives the logits of out-of-distribution data"
        )
    if len(missing) == len(own):
        what = f"none of the model's classes ({few(own)})"
        if set(own) & set(trained):
            what = "classes that are mere numbers, which are not taken for the model's"
        reporter.note(f"{images.name} has {what}: its examples get no label")
        return mapped
    if missing:
        reporter.warn(
            f"{images.name}: {_classes(missing)} of which the model has none: these examples get "
            "no label, and there is no accuracy of the whole"
        )
    elif images.name != info["data"]["name"]:
        what = "not known as the model's data" if unknown else f"not {info['data']['name']}"
        reporter.warn(
            f"{images.name} is {what}; its classes are taken for the model's because they have "
            "the same names"
        )
    absent = [name for name in trained if name not in set(own)]
    if absent:
        reporter.warn(f"{images.name} lacks {_classes(absent)} of the model's")
    return mapped


def _classes(names: Sequence[str]) -> str:
    one = f"class {brief(names[0])!r}"
    return one if len(names) == 1 else f"{len(names)} classes ({few(names)})"

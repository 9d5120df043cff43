"""Labels of a test set matched with the model's classes by name."""

from __future__ import annotations

import pytest
import torch

from advkit.errors import MismatchError
from advkit.evaluation import classes
from advkit.images.image_set import Images
from advkit.runtime.reporting import Reporter


class Heard(Reporter):
    """Keeps what a person would have been told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note


def known(trained, own, *, attacked=False, name="folder", data="folder"):
    info = {"data": {"name": data, "classes": list(trained)}}
    labels = torch.arange(len(own))
    pixels = torch.zeros(len(own), 1, 2, 2, dtype=torch.uint8)
    images = Images(name, "test", pixels, labels, tuple(own), 0, False)
    heard = Heard()
    other = name != "folder"
    found = classes.known(info, images, attacked=attacked, other=other, reporter=heard)
    return found.tolist(), heard.said


@pytest.mark.parametrize("attacked", [False, True])
def test_the_same_classes_need_no_word(attacked):
    assert known("abc", "abc", attacked=attacked) == ([0, 1, 2], [])


def test_two_classes_of_one_name_stay_two():
    assert known(("crane", "crane", "emu"), ("crane", "crane", "emu"))[0] == [0, 1, 2]


@pytest.mark.parametrize("attacked", [False, True])
def test_a_split_that_lacks_classes_keeps_the_models_numbers(attacked):
    numbers, said = known("abcd", "bd", attacked=attacked)
    assert numbers == [1, 3]
    assert said == ["folder lacks 2 classes (a, c) of the model's"]


def test_other_classes_get_no_label_and_are_named():
    numbers, said = known("abc", "abxy")
    assert numbers == [0, 1, -1, -1]
    assert said[0].startswith("folder: 2 classes (x, y) of which the model has none")
    assert said[1] == "folder lacks class 'c' of the model's"


def test_an_attack_names_the_classes_that_stand_in_its_way():
    with pytest.raises(MismatchError, match=r"other classes than the model \(x\)"):
        known("abc", "abx", attacked=True)


def test_a_set_of_other_classes_is_out_of_distribution():
    numbers, said = known("abc", "xy", name="photos")
    assert numbers == [-1, -1]
    assert said == ["photos has none of the model's classes (x, y): its examples get no label"]


def test_classes_that_are_numbers_say_little_of_another_set():
    assert known("0123", "0123", name="idx")[0] == [-1] * 4
    assert known("0123", "0123", name="idx", attacked=True)[0] == [0, 1, 2, 3]
    assert known("0123", "012", name="folder")[0] == [0, 1, 2]
    with pytest.raises(MismatchError):
        known("0123", "012", name="idx", attacked=True)


def test_another_set_with_the_models_names_is_taken_and_said_so():
    numbers, said = known("abc", "abc", name="photos", attacked=True)
    assert numbers == [0, 1, 2]
    assert "photos is not folder; its classes are taken for the model's" in said[0]


def test_any_set_may_be_that_of_a_net_imported_without_its_data():
    numbers, said = known("0123", "0123", name="npz", data="unknown")
    assert numbers == [0, 1, 2, 3]
    assert said[0].startswith("npz is not known as the model's data; its classes are taken")
    assert known("0123", "abcd", name="npz", data="unknown")[0] == [-1] * 4

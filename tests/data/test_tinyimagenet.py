"""TinyImageNet in small, as published and as people rearrange it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advkit import data
from advkit.data import tinyimagenet
from advkit.errors import InputError
from advkit.runtime import reporting

RNG = np.random.default_rng(0)
IDS = ("n01443537", "n01629819", "n09246464")
VALIDATION = {"val_10.JPEG": 2, "val_9.JPEG": 0, "val_0.JPEG": 2, "val_1.JPEG": 1}
"""File name → place of its class; the order of the lines in the annotations."""


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Path:
    """Write a JPEG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(mode) if mode != "L" else 1
    noise = RNG.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(noise[..., 0] if mode == "L" else noise, mode).save(path, "JPEG")
    return path


def pixels(path: Path) -> np.ndarray:
    """Decode with Pillow, (3, H, W)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def annotations(top: Path) -> Path:
    return top / "val" / "val_annotations.txt"


@pytest.fixture
def top(tmp_path) -> Path:
    """Return the published layout: three classes, two training images each, four for validation."""
    top = tmp_path / "tiny-imagenet-200"
    for name in IDS:
        for place in (10, 2):
            save(top / "train" / name / "images" / f"{name}_{place}.JPEG")
        (top / "train" / name / f"{name}_boxes.txt").write_text("x\t0\t0\t7\t7\n")
    for name in VALIDATION:
        save(top / "val" / "images" / name)
    lines = [f"{name}\t{IDS[label]}\t0\t32\t44\t62\n" for name, label in VALIDATION.items()]
    annotations(top).write_text("".join(lines))
    (top / "wnids.txt").write_text("\n".join([IDS[2], IDS[0], IDS[1]]))
    (top / "test" / "images").mkdir(parents=True)
    return top


def resort(top: Path, inner: str = "", *, leave: bool = False) -> None:
    """Sort the validation images into a folder for each class."""
    for name, label in VALIDATION.items():
        folder = top / "val" / IDS[label] / inner
        folder.mkdir(parents=True, exist_ok=True)
        (top / "val" / "images" / name).rename(folder / name)
    if not leave:
        (top / "val" / "images").rmdir()
        annotations(top).unlink()


# --- what is read ---


@pytest.mark.parametrize("split", ["train", "test"])
def test_leftovers_of_operating_systems_are_passed_over(top, split):
    resort(top)
    before = data.load(f"tinyimagenet:{top}", split)
    part = top / ("train" if split == "train" else "val")
    save(part / ".ipynb_checkpoints" / "x.JPEG")
    inside = part / IDS[0] / "images" if split == "train" else part / IDS[0]
    (inside / "._x.JPEG").write_bytes(b"no picture")
    images = data.load(f"tinyimagenet:{top}", split)
    assert images.fingerprint == before.fingerprint
    assert "passed over: 2 leftovers of the system" in images.remarks[0]


def test_classes_are_compared_before_training(top):
    images = data.load(f"tinyimagenet:{top}", "train")
    resort(top)
    (top / "val" / IDS[1]).rename(top / "val" / "n02")
    with pytest.raises(InputError, match=r"is no training class|is missing"):
        data.require_same_classes(
            f"tinyimagenet:{top}", images, root=None, reporter=reporting.Reporter()
        )


def test_training_images_come_by_sorted_class_and_name(top):
    found = data.load(f"tinyimagenet:{top}", "train")
    order = [f"{name}/images/{name}_{place}.JPEG" for name in IDS for place in (10, 2)]
    expected = np.stack([pixels(top / "train" / each) for each in order])
    np.testing.assert_array_equal(found.images.numpy(), expected)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]  # not the order of wnids.txt
    assert found.labels.dtype == torch.int64
    assert found.classes == IDS
    assert (found.name, found.split, found.pad, found.flip) == ("tinyimagenet", "train", 4, True)
    assert found.normalisation == ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))


def test_validation_images_have_the_classes_of_their_annotations(top):
    found = data.load(f"tinyimagenet:{top}", "test")
    order = ["val_9.JPEG", "val_1.JPEG", "val_0.JPEG", "val_10.JPEG"]
    expected = np.stack([pixels(top / "val" / "images" / each) for each in order])
    np.testing.assert_array_equal(found.images.numpy(), expected)
    assert found.labels.tolist() == [0, 1, 2, 2]
    assert found.classes == IDS


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize("leave", [False, True])
def test_sorted_validation_images_are_the_same_data_set(top, inner, leave):
    before = data.load(f"tinyimagenet:{top}", "test")
    resort(top, inner, leave=leave)
    after = data.load(f"tinyimagenet:{top}", "test")
    assert after.fingerprint == before.fingerprint
    assert after.labels.tolist() == [0, 1, 2, 2]


def test_training_images_may_lie_in_the_class_itself(top):
    before = data.load(f"tinyimagenet:{top}", "train").fingerprint
    for name in IDS:
        for path in (top / "train" / name / "images").iterdir():
            path.rename(top / "train" / name / path.name)
        (top / "train" / name / "images").rmdir()
    assert data.load(f"tinyimagenet:{top}", "train").fingerprint == before


def test_the_root_may_hold_the_folder(top):
    for split in ("train", "test"):
        inside, outside = (data.load("tinyimagenet", split, root=at) for at in (top, top.parent))
        assert inside.fingerprint == outside.fingerprint


def test_classes_are_named_by_words_where_there_are_some(top):
    words = f"{IDS[2]}\tcliff, drop, drop-off\nn00001740\tentity\n{IDS[0]}\tgoldfish\n"
    (top / "words.txt").write_text(words)
    for split in ("train", "test"):
        named = data.load(f"tinyimagenet:{top}", split).classes
        assert named == ("goldfish", IDS[1], "cliff, drop, drop-off")


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("place", [2, 10])
def test_grey_and_cmyk_images_become_rgb(top, mode, place):
    path = save(top / "train" / IDS[0] / "images" / f"{IDS[0]}_{place}.JPEG", mode)
    with Image.open(path) as image:
        assert image.mode == mode
    found = data.load(f"tinyimagenet:{top}", "train").images[[10, 2].index(place)].numpy()
    np.testing.assert_array_equal(found, pixels(path))
    assert mode != "L" or (found[0] == found[1]).all()


def test_images_are_decoded_into_one_tensor(top, monkeypatch):
    """The pixels of all images are never held twice: no array but the result is that large."""
    import tracemalloc

    for place in range(100, 180):
        save(top / "train" / IDS[1] / "images" / f"{IDS[1]}_{place}.JPEG", size=(64, 64))
    for name in (IDS[0], IDS[2]):
        for place in (10, 2):
            save(top / "train" / name / "images" / f"{name}_{place}.JPEG", size=(64, 64))
    for place in (10, 2):
        save(top / "train" / IDS[1] / "images" / f"{IDS[1]}_{place}.JPEG", size=(64, 64))
    data.load(f"tinyimagenet:{top}", "train")  # what Pillow keeps
    tracemalloc.start()
    try:
        found = data.load(f"tinyimagenet:{top}", "train").images
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = found.numel()
    assert size <= peak < 1.6 * size


# --- what is refused ---


def refused(top: Path, split: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        data.load(f"tinyimagenet:{top}", split)
    assert "\n" not in str(caught.value)


def test_a_place_without_it_says_what_is_needed(tmp_path):
    for split in ("train", "test"):
        refused(tmp_path, split, "train: no such folder; tinyimagenet needs tiny-imagenet-200, or")


def test_without_annotations_the_raw_validation_folder_is_not_one_class(top):
    annotations(top).unlink()
    refused(top, "test", r"val_annotations\.txt: no such file: without it .*images has no labels")


def test_no_validation_folder(top):
    shutil.rmtree(top / "val")
    refused(top, "test", "val: no such folder: it is the test split of tinyimagenet")
    assert len(data.load(f"tinyimagenet:{top}", "train").labels) == 6


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: text.replace(IDS[1], "n00000001"),
         r"line 4: class 'n00000001' is no training class"),
        (lambda text: text + f"val_7.JPEG\t{IDS[0]}\t0\t0\t1\t1\n",
         r"val_7\.JPEG is not in images \(5 lines, 4 images\)"),
        (lambda text: text.partition("\n")[2],
         r"val_10\.JPEG is not in it \(3 lines, 4 images\)"),
        (lambda text: text + text.partition("\n")[0], r"line 5 names val_10\.JPEG again"),
        (lambda text: text.replace("\t", " "), "line 1 is not file, class, box, separated by tabs"),
        (lambda text: text.replace(IDS[1], IDS[0]),
         rf"class '{IDS[1]}' is missing \(2 classes, 3 in train\)"),
        (lambda text: "", r"val_0\.JPEG is not in it \(0 lines, 4 images\)"),
        (lambda text: text + f"../x.JPEG\t{IDS[0]}", r"\.\./x\.JPEG is not in images"),
    ],
)  # fmt: skip
def test_annotations_that_do_not_fit_are_refused(top, change, what):
    annotations(top).write_text(change(annotations(top).read_text()))
    refused(top, "test", what)


def test_annotations_that_are_no_text_are_refused(top):
    annotations(top).write_bytes(b"\xff\xfe\x00")
    refused(top, "test", r"val_annotations\.txt: cannot be read")


def test_a_half_sorted_validation_folder_is_refused(top):
    (top / "val" / IDS[0]).mkdir()
    (top / "val" / "images" / "val_9.JPEG").rename(top / "val" / IDS[0] / "val_9.JPEG")
    refused(top, "test", r"val_9\.JPEG is not in images \(4 lines, 3 images\)")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda val: shutil.rmtree(val / IDS[1]), rf"'{IDS[1]}' is missing \(2 classes, 3 in tra"),
        (lambda val: (val / IDS[1]).rename(val / "n00000001"), "'n00000001' is no training class"),
        (lambda val: save(val / "zoo" / "1.JPEG"), r"'zoo' is no training class \(4 classes, 3 in"),
        (lambda val: (val / IDS[1] / "val_1.JPEG").unlink(), f"{IDS[1]}: holds no image"),
    ],
)
def test_sorted_validation_classes_must_be_those_of_training(top, change, what):
    resort(top)
    change(top / "val")
    refused(top, "test", what)


def test_an_empty_validation_folder_is_refused(top):
    shutil.rmtree(top / "val")
    (top / "val" / "images").mkdir(parents=True)
    refused(top, "test", rf"val: class '{IDS[0]}' is missing \(0 classes, 3 in train\)")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("ids", "what"),
    [
        (IDS[:2], rf"wnids\.txt: class '{IDS[2]}' is missing \(2 classes, 3 in train\)"),
        ((*IDS, "n1"), r"wnids\.txt: class 'n1' is no training class \(4 classes, 3 in train\)"),
    ],
)
def test_wnids_must_name_the_training_folders(top, split, ids, what):
    (top / "wnids.txt").write_text("\n".join(ids))
    refused(top, split, what)


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_texts_may_begin_with_a_byte_order_mark(top, name):
    if name == "words.txt":
        (top / name).write_text(f"{IDS[0]}\tfirst\n{IDS[1]}\tsecond\n{IDS[2]}\tthird\n")
    before = data.load(f"tinyimagenet:{top}", "test")
    (top / name).write_bytes(b"\xef\xbb\xbf" + (top / name).read_bytes())
    images = data.load(f"tinyimagenet:{top}", "test")
    assert (images.classes, images.fingerprint) == (before.classes, before.fingerprint)


def test_wnids_need_not_be_there(top):
    before = data.load(f"tinyimagenet:{top}", "train").fingerprint
    (top / "wnids.txt").unlink()
    assert data.load(f"tinyimagenet:{top}", "train").fingerprint == before


def test_training_images_without_classes_are_refused(top):
    save(top / "train" / "images" / "1.JPEG")
    (top / "wnids.txt").unlink()
    refused(top, "train", "'images' is no class")
    for name in IDS:
        shutil.rmtree(top / "train" / name)
    refused(top, "train", "two classes or more; found only 'images'")


def test_an_empty_training_class_is_refused(top):
    shutil.rmtree(top / "train" / IDS[1] / "images")
    refused(top, "train", f"{IDS[1]}: holds no image")


@pytest.mark.parametrize("size", [(9, 8), (8, 9), (4, 4)])
def test_an_image_of_another_size_is_named(top, size):
    save(top / "train" / IDS[1] / "images" / f"{IDS[1]}_2.JPEG", size=size)
    what = rf"{IDS[1]}_2\.JPEG: is {size[0]}x{size[1]}, but {IDS[0]}_10\.JPEG is 8x8"
    refused(top, "train", what)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-300], lambda raw: raw[:4], lambda _: b"text"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_corrupt_image_is_named(top, damage, place):
    path = top / "train" / IDS[place] / "images" / f"{IDS[place]}_10.JPEG"
    path.write_bytes(damage(path.read_bytes()))
    refused(top, "train", rf"{IDS[place]}_10\.JPEG: not a readable image")


def test_it_cannot_be_fetched(cli, tmp_path):
    assert not hasattr(tinyimagenet, "fetch")
    outcome = cli("data", "fetch", "tinyimagenet", "--data-root", tmp_path)
    assert outcome.code == 2
    assert "tinyimagenet cannot be fetched: bring its files yourself" in outcome.err


def test_info_says_what_both_splits_hold(cli, top):
    outcome = cli("data", "info", f"tinyimagenet:{top}")
    assert outcome.code == 0
    keys = ("split", "n", "shape", "classes")
    assert [tuple(record[key] for key in keys) for record in outcome.records] == [
        ("train", 6, [3, 8, 8], 3),
        ("test", 4, [3, 8, 8], 3),
    ]
    annotations(top).unlink()
    outcome = cli("data", "info", f"tinyimagenet:{top}")
    assert (outcome.code, len(outcome.err.splitlines())) == (3, 1)

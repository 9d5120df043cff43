"""npz archives by numpy.savez, by hand, and forged."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit import data
from advkit.errors import InputError
from advkit.images import npz

RNG = np.random.default_rng(0)
SAVERS = pytest.mark.parametrize("save", [np.savez, np.savez_compressed])


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def written(path: Path, save=np.savez_compressed, **changes: object) -> Path:
    """Write six images of three classes, sorted by class, or what is put in their place."""
    content = {"image": noise(6, 4, 5, 3), "label": np.repeat(np.arange(3), 2), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, **{name: value for name, value in content.items() if value is not None})
    return path


# --- a folder ---


@SAVERS
@pytest.mark.parametrize(("split", "file"), [("train", "train"), ("test", "test"), ("test", "val")])
def test_images_and_labels_are_read_exactly(tmp_path, save, split, file):
    image, label = noise(6, 4, 5, 3), np.array([0, 0, 1, 1, 2, 2])
    written(tmp_path / "train.npz", save)
    written(tmp_path / f"{file}.npz", save, image=image, label=label)
    found = data.load(f"npz:{tmp_path}", split)
    np.testing.assert_array_equal(found.images.permute(0, 2, 3, 1).numpy(), image)
    assert found.images.is_contiguous()
    assert found.labels.tolist() == label.tolist()
    assert found.labels.dtype == torch.int64
    assert found.classes == ("0", "1", "2")
    assert (found.name, found.split, found.pad, found.flip) == ("npz", split, 4, True)


def test_the_training_labels_say_how_many_classes_there_are(tmp_path):
    written(tmp_path / "train.npz", label=np.array([0, 0, 0, 1, 1, 6]))
    written(tmp_path / "test.npz", label=np.zeros(6, np.uint8))
    for split in ("train", "test"):
        assert data.load(f"npz:{tmp_path}", split).classes == tuple("0123456")
    written(tmp_path / "test.npz", label=np.array([0, 0, 0, 1, 7, 6]))
    with pytest.raises(InputError, match=r"test\.npz: label 7, but the highest in train\.npz is 6"):
        data.load(f"npz:{tmp_path}", "test")


def test_test_goes_before_val(tmp_path):
    for name, label in (("train", 1), ("test", 0), ("val", 1)):
        written(tmp_path / f"{name}.npz", label=np.full(6, label))
    assert data.load(f"npz:{tmp_path}", "test").labels.tolist() == [0] * 6


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no train\.npz there; npz:DIR needs DIR/train\.npz and"):
        data.load(f"npz:{tmp_path}", "train")
    written(tmp_path / "train.npz")
    with pytest.raises(InputError, match=r"no test\.npz or val\.npz there"):
        data.load(f"npz:{tmp_path}", "test")
    written(tmp_path / "test.npz")
    (tmp_path / "train.npz").unlink()
    with pytest.raises(InputError, match=r"holds a test set alone: no train\.npz to train on"):
        data.load(f"npz:{tmp_path}", "train")


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_test_set_alone_has_the_classes_that_its_labels_name(tmp_path, name):
    image = noise(3, 4, 5, 3)
    written(tmp_path / f"{name}.npz", image=image, label=np.array([0, 2, 0]))
    images = data.load(f"npz:{tmp_path}", "test")
    assert (images.classes, images.missing, images.alone) == (("0", "1", "2"), ("1",), True)
    np.testing.assert_array_equal(images.images.permute(0, 2, 3, 1).numpy(), image)


def test_a_model_says_which_classes_a_test_set_alone_has(tmp_path):
    written(tmp_path / "test.npz", label=np.zeros(6, np.int64))
    images = data.load(f"npz:{tmp_path}", "test")
    assert data.with_classes(images, ["0", "1", "2"]).classes == ("0", "1", "2")
    assert data.with_classes(images, ["cat", "dog"]).classes == ("0",)
    written(tmp_path / "train.npz")
    beside = data.load(f"npz:{tmp_path}", "test")
    assert beside.classes == ("0", "1", "2")
    assert not beside.alone
    assert data.with_classes(beside, [*"0123"]).classes == ("0", "1", "2")


def test_splits_of_different_shapes_are_refused(tmp_path):
    written(tmp_path / "train.npz")
    written(tmp_path / "test.npz", image=noise(6, 8, 5, 3))
    with pytest.raises(InputError, match=r"test\.npz: images are \(3, 8, 5\), those of train\.npz"):
        data.load(f"npz:{tmp_path}", "test")


# --- one file ---


@SAVERS
@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint8, np.uint64, ">i4"])
def test_labels_of_every_whole_type_are_read(tmp_path, save, kind):
    label = np.array([0, 5, 5, 9, 100, 3]).astype(kind)
    images, labels = npz.read(written(tmp_path / "x.npz", save, label=label))
    assert labels.tolist() == [0, 5, 5, 9, 100, 3]
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 4, 5, 3), (6, 3, 4, 5)), ((6, 4, 5, 1), (6, 1, 4, 5)),
        ((6, 3, 4, 5), (6, 3, 4, 5)), ((6, 1, 4, 5), (6, 1, 4, 5)),
        ((6, 3, 4, 3), (6, 3, 3, 4)), ((6, 1, 4, 3), (6, 3, 1, 4)),
    ],
)  # fmt: skip
def test_channels_come_first_only_where_they_cannot_be_last(tmp_path, shape, expected):
    image = noise(*shape)
    images, _ = npz.read(written(tmp_path / "x.npz", image=image))
    assert tuple(images.shape) == expected
    plain = image if shape == expected else image.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images.numpy(), plain)


@SAVERS
def test_more_images_than_a_block_and_arrays_stored_by_columns(tmp_path, save):
    image, label = noise(9000, 2, 3, 1), RNG.integers(0, 7, 9000)
    for each in (image, np.asfortranarray(image)):
        images, labels = npz.read(written(tmp_path / "x.npz", save, image=each, label=label))
        np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), image)
        np.testing.assert_array_equal(labels.numpy(), label)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"image": None}, r"holds no array 'image', only \['label'\]"),
        ({"label": None, "labels": np.arange(6)}, r"no array 'label', only \['image', 'labels'\]"),
        ({"image": noise(6, 4, 5, 3) / 255}, "image is float64 .*, not uint8"),
        ({"image": noise(6, 4, 5, 3).astype(np.int64)}, "image is int64"),
        ({"image": noise(6, 4, 5, 4)}, r"image is uint8 \(6, 4, 5, 4\), not .* 1 or 3 channels"),
        ({"image": noise(6, 4, 5)}, r"image is uint8 \(6, 4, 5\)"),
        ({"image": np.array(7, np.uint8)}, r"image is uint8 \(\)"),
        ({"image": np.array([None] * 6)}, "image holds Python objects, which are never unpickled"),
        ({"label": np.array([{}] * 6)}, "label holds Python objects, which are never unpickled"),
        ({"label": np.zeros(6)}, r"label is float64 \(6,\), not whole numbers"),
        ({"label": np.zeros(6, bool)}, r"label is bool \(6,\)"),
        ({"label": np.array(["a"] * 6)}, r"label is <U1 \(6,\)"),
        ({"label": np.zeros((6, 1), int)}, r"label is int64 \(6, 1\)"),
        ({"label": np.zeros(5, int)}, "6 images but 5 labels"),
        ({"label": np.array([0, 1, -1, 0, 1, -2])}, r"label -1 of example 2 is not in 0\.\."),
        ({"label": np.array([0, 2**64 - 1] * 3, np.uint64)}, "label 18446744073709551615 of exam"),
        ({"label": np.array([0, 10**15] * 3)}, "label 1000000000000000 of example 1 is not in"),
        ({"image": noise(0, 4, 5, 3), "label": np.zeros(0, int)}, "holds no image"),
        ({"image": noise(6, 0, 5, 3)}, "holds no image"),
    ],
)
def test_other_arrays_are_input_errors(tmp_path, changes, what):
    with pytest.raises(InputError, match=what):
        npz.read(written(tmp_path / "x.npz", **changes))


@SAVERS
def test_every_truncation_is_an_input_error(tmp_path, save):
    path = written(tmp_path / "x.npz", save)
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"x\.npz: (not a readable npz file|holds no array)"):
            npz.read(path)


@SAVERS
def test_no_wrong_byte_changes_an_image_or_ends_in_another_error(tmp_path, save):
    path = written(tmp_path / "x.npz", save)
    raw, (images, labels) = path.read_bytes(), npz.read(path)
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 0x04
        path.write_bytes(changed)
        try:
            found = npz.read(path)
        except InputError:
            continue
        assert torch.equal(found[0], images)  # a time stamp or the like
        assert torch.equal(found[1], labels)


def test_no_file_and_other_files_are_input_errors(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match=r"x\.npz: no such file"):
        npz.read(path)
    np.save(tmp_path / "x.npy", noise(6, 4, 5, 3))
    for raw in (b"", b"<html>not found</html>", (tmp_path / "x.npy").read_bytes()):
        path.write_bytes(raw)
        with pytest.raises(InputError, match="not a readable npz file: File is not a zip file"):
            npz.read(path)


def test_an_unknown_version_of_the_format_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", b"\x93NUMPY\x09\x00" + bytes(100))
        archive.writestr("label.npy", bytes(100))
    with pytest.raises(InputError, match="not a readable npz file: npy version"):
        npz.read(path)


# --- forged files ---


def array(shape: tuple[int, ...], content: bytes, descr: str = "|u1") -> bytes:
    """Return the bytes of an npy file whose header promises `shape`."""
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def packed(path: Path, image: bytes, label: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", image)
        archive.writestr("label.npy", label)
    return path


def test_a_header_that_declares_more_than_the_archive_holds_is_refused(tmp_path):
    image = array((10**9, 32, 32, 3), bytes(1000))
    label = array((10**9,), bytes(1000), "<i8")
    with pytest.raises(InputError, match=r"image declares uint8 \(10.*\) but has 1000 bytes"):
        npz.read(packed(tmp_path / "x.npz", image, label))


@pytest.mark.parametrize("shape", [(-6, -4, 5, 3), (6, 4, 5, -3), (0, 4, 5, 3)])
def test_impossible_shapes_are_refused(tmp_path, shape):
    label = array((6,), bytes(48), "<i8")
    with pytest.raises(InputError, match="image declares uint8"):
        npz.read(packed(tmp_path / "x.npz", array(shape, bytes(360)), label))


def test_an_archive_that_would_unpack_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "x.npz", image=np.zeros((6, 99, 99, 3), np.uint8))
    assert len(npz.read(path)[1]) == 6  # little enough to be harmless
    monkeypatch.setattr(npz, "FREE", 1000)
    with pytest.raises(InputError, match=r"bytes that would unpack to 176418: refused"):
        npz.read(path)
    assert len(npz.read(written(path, image=noise(6, 99, 99, 3)))[1]) == 6


def test_a_directory_that_declares_more_than_is_packed_is_refused(tmp_path):
    count, content = 10**5, bytes(50)
    path = tmp_path / "x.npz"
    packed(path, array((count, 5, 5, 1), content), array((count,), bytes(count)))
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("image.npy").file_size
    old, new = (each.to_bytes(4, "little") for each in (size, size - 50 + 25 * count))
    raw = path.read_bytes()
    assert raw.count(old) == 2  # before the data and in the directory
    path.write_bytes(raw.replace(old, new))
    with pytest.raises(InputError, match=r"not a readable npz file: image\.npy ends early"):
        npz.read(path)

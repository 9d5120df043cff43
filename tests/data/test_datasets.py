"""Readers on small files in the true formats, and on real files where they are there."""

from __future__ import annotations

import gzip
import struct
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advkit import data
from advkit.errors import InputError, UsageError
from advkit.images.image_set import Images, pixels
from advkit.registry import sources

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


# --- any data set ---


def test_an_unknown_data_set_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown data set 'digit'.*'digits'"):
        data.load("digit", "train")


def test_a_data_set_of_files_needs_a_place():
    with pytest.raises(UsageError, match=r"where is idx\? write --data idx:DIR or give"):
        data.load("idx", "train")


def test_options_of_other_data_sets_are_refused():
    with pytest.raises(UsageError, match="--image-size has no meaning for the data set digits"):
        data.load("digits", "train", image_size=8)
    assert len(data.load("digits", "test", image_size=None).labels) == 355


def test_the_path_wins_over_the_root(tmp_path):
    write_idx(tmp_path / "a", "t10k", noise(2, 3, 3), np.zeros(2, np.uint8))
    write_idx(tmp_path / "b", "t10k", noise(3, 3, 3), np.zeros(3, np.uint8))
    assert len(data.load(f"idx:{tmp_path / 'a'}", "test", root=tmp_path / "b").labels) == 2
    assert len(data.load("idx", "test", root=tmp_path / "b").labels) == 3


def images(**changes) -> Images:
    parts = {"images": torch.from_numpy(noise(4, 3, 2, 2)), "labels": torch.tensor([0, 1, 1, 0])}
    return Images("x", "train", **(parts | changes), classes=("a", "b"), pad=0, flip=False)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"images": torch.rand(4, 3, 2, 2)},
            r"images are torch\.float32 \(4, 3, 2, 2\)",
        ),
        ({"images": torch.zeros(4, 2, 2, dtype=torch.uint8)}, r"not uint8 \(N, C, H, W\)"),
        ({"images": torch.zeros(4, 8, 8, 3, dtype=torch.uint8)}, r"8 channels, not 1 or 3"),
        ({"labels": torch.tensor([0, 1])}, "4 images but 2 labels"),
        ({"labels": torch.tensor([0, 1, 2, 2])}, r"label 2 of example 2 is not in 0\.\.1"),
        ({"labels": torch.tensor([0, -1, 0, 0])}, "label -1 of example 1"),
    ],
)
def test_impossible_images_are_input_errors(changes, what):
    with pytest.raises(InputError, match=what):
        images(**changes)


def test_batches_come_in_the_order_of_the_indices():
    x = images()
    assert torch.equal(x.batch(torch.tensor([2, 0, 2])), x.images[[2, 0, 2]])
    assert x.shape == (3, 2, 2)


def test_pixels_are_in_the_unit_interval():
    found = pixels(torch.tensor([0, 51, 255], dtype=torch.uint8), "cpu")
    assert found.tolist() == pytest.approx([0, 0.2, 1], abs=1e-7)


def test_any_change_of_content_or_order_changes_the_fingerprint():
    base = images()
    changed = base.images.clone()
    changed[3, 2, 1, 1] ^= 1
    order = torch.tensor([1, 0, 2, 3])
    others = [
        images(images=changed),
        images(images=base.images, labels=torch.tensor([0, 1, 1, 1])),
        images(images=base.images[order], labels=base.labels[order]),
    ]
    same = images(images=base.images.clone())
    assert same.fingerprint == base.fingerprint
    assert len({each.fingerprint for each in (base, *others)}) == 4


def test_normalisation_is_numpys_mean_and_deviation():
    x = images()
    mean, deviation = x.normalisation
    plain = x.images.numpy() / 255
    assert mean == pytest.approx(plain.mean((0, 2, 3)), abs=1e-4)
    assert deviation == pytest.approx(plain.std((0, 2, 3)), abs=1e-4)


def test_constant_images_have_a_deviation_to_divide_by():
    x = images(images=torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    assert x.normalisation[1] == pytest.approx([1 / 255], abs=1e-4)


# --- photos ---


def test_photos_patches_lie_where_the_docstring_says():
    from sklearn.datasets import load_sample_image

    train, test = data.load("photos", "train"), data.load("photos", "test")
    photo = load_sample_image("flower.jpg")
    rows, columns = 27, 40  # of every other patch of 427 x 640 pixels
    assert len(train.labels) == 2 * rows * columns
    place = rows * columns + 2 * columns + 3  # of the second photo: third row, fourth column
    expected = photo[32:40, 48:56].transpose(2, 0, 1)
    assert np.array_equal(train.images[place].numpy(), expected)
    expected = photo[8:16, 24:32].transpose(2, 0, 1)  # of the test grid: first row, second column
    place = int((test.labels == 0).sum()) + 1
    assert np.array_equal(test.images[place].numpy(), expected)


# --- digits ---


def test_digits_are_scikit_learns_split_once():
    from sklearn.datasets import load_digits

    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train.labels), len(test.labels)) == (1442, 355)
    both = torch.cat([train.images, test.images]).flatten(1).numpy()
    source = np.round(load_digits().data * 255 / 16)
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(source, axis=0))
    assert train.shape == (1, 8, 8)
    assert (train.pad, train.flip) == (1, False)


def test_digits_are_those_of_scikit_learns_loader_byte_for_byte():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = torch.from_numpy(bunch.target).long()
    images = (torch.from_numpy(bunch.images) * 255 / 16).round().to(torch.uint8)[:, None]
    for split in ("test", "train"):
        loaded = data.load("digits", split)
        members = [(labels == label).nonzero().flatten() for label in range(10)]
        tested = torch.cat([rows[4::5] for rows in members])
        chosen = torch.ones(len(labels), dtype=torch.bool)
        chosen[tested] = False
        chosen = ~chosen if split == "test" else chosen
        assert torch.equal(loaded.images, images[chosen])
        assert torch.equal(loaded.labels, labels[chosen])
        assert loaded.labels.dtype == torch.int64
    # The same bytes as before, so that the part is the same too: runs begun before go on.
    before = "sha256:57cd7387d5e17868b10de9734281be3ab6fb143616c741e5059a2758a56eb781"
    assert sources.digest("data", "digits") == before


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "not the digits"), (b"1,2\n", "not the digits"), (b"1,x\n", "install scikit-learn"),
        (b"1,256\n", "install scikit-learn"), (None, "install scikit-learn"),
    ],
)  # fmt: skip
def test_another_file_than_scikit_learns_is_refused(tmp_path, monkeypatch, content, wrong):
    place = tmp_path / "sklearn"
    (place / "datasets" / "data").mkdir(parents=True)
    if content is not None:
        (place / "datasets" / "data" / "digits.csv.gz").write_bytes(gzip.compress(content))
    spec = types.SimpleNamespace(submodule_search_locations=[str(place)])
    monkeypatch.setattr("advkit.data.digits.find_spec", lambda name: spec)
    with pytest.raises(InputError, match=wrong):
        data.load("digits", "train")


def test_digits_that_are_cut_short_are_refused(tmp_path, monkeypatch):
    import sklearn

    place = Path(tmp_path, "datasets", "data")
    place.mkdir(parents=True)
    whole = Path(sklearn.__file__).parent.joinpath("datasets", "data", "digits.csv.gz").read_bytes()
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("advkit.data.digits.find_spec", lambda name: spec)
    for cut in (whole[:-100], whole[:20], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        (place / "digits.csv.gz").write_bytes(cut)
        with pytest.raises(InputError, match="install scikit-learn"):
            data.load("digits", "train")


def test_digits_test_split_is_stratified():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    whole = torch.bincount(train.labels) + torch.bincount(test.labels)
    assert torch.equal(torch.bincount(test.labels), whole // 5)


# --- idx ---


def write_idx(
    folder: Path, prefix: str, x: np.ndarray, y: np.ndarray, *, packed: bool = False
) -> None:
    """Write MNIST's format: zero, zero, type 8, dimensions, big-endian sizes, bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{prefix}-images-idx3-ubyte", x), (f"{prefix}-labels-idx1-ubyte", y)):
        raw = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        raw += array.astype(np.uint8).tobytes()
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(raw) if packed else raw)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_idx_is_read_exactly(tmp_path, split, prefix, packed):
    x, y = noise(5, 4, 6), np.array([3, 9, 0, 1, 1], np.uint8)
    write_idx(tmp_path, prefix, x, y, packed=packed)
    found = data.load(f"idx:{tmp_path}", split)
    np.testing.assert_array_equal(found.images[:, 0].numpy(), x)
    assert found.labels.tolist() == y.tolist()
    assert found.labels.dtype == torch.int64
    assert found.classes == tuple("0123456789")
    assert (found.pad, found.flip, found.split) == (2, False, split)


def test_idx_plain_and_packed_are_one_data_set(tmp_path):
    x, y = noise(3, 4, 4), np.arange(3)
    for name in ("plain", "packed"):
        write_idx(tmp_path / name, "train", x, y, packed=name == "packed")
    first, second = (data.load(f"idx:{tmp_path / name}", "train") for name in ("plain", "packed"))
    assert first.fingerprint == second.fingerprint


@pytest.fixture
def idx(tmp_path) -> Path:
    """A folder with an idx training split."""
    write_idx(tmp_path, "train", noise(3, 4, 4), np.arange(3))
    return tmp_path


PIXELS, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def test_idx_without_files_says_which_are_wanted(idx):
    with pytest.raises(InputError, match=r"no t10k-images-idx3-ubyte \(plain or \.gz\) there"):
        data.load(f"idx:{idx}", "test")
    (idx / LABELS).unlink()
    with pytest.raises(InputError, match="no train-labels-idx1-ubyte"):
        data.load(f"idx:{idx}", "train")


def test_every_truncation_of_idx_is_an_input_error(idx):
    for name in (PIXELS, LABELS):
        raw = (idx / name).read_bytes()
        for length in range(len(raw)):
            (idx / name).write_bytes(raw[:length])
            with pytest.raises(InputError, match=r"truncated|not an IDX file"):
                data.load(f"idx:{idx}", "train")
        (idx / name).write_bytes(raw)
    assert len(data.load(f"idx:{idx}", "train").labels) == 3


@pytest.mark.parametrize("cut", [10, -5])
def test_a_truncated_gzip_is_an_input_error(idx, cut):
    packed = gzip.compress((idx / PIXELS).read_bytes())
    (idx / PIXELS).unlink()
    (idx / f"{PIXELS}.gz").write_bytes(packed[:cut])
    with pytest.raises(InputError, match="cannot be read"):
        data.load(f"idx:{idx}", "train")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\x0d\x03" + bytes(12), "not an IDX file of bytes in 3"),  # floats
        (b"\0\0\x08\x01" + bytes(12), "not an IDX file of bytes in 3"),  # labels
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated"),
        (b"<html>not found</html>", "not an IDX file"),
    ],
)
def test_other_files_are_not_idx(idx, content, what):
    (idx / PIXELS).write_bytes(content)
    with pytest.raises(InputError, match=what):
        data.load(f"idx:{idx}", "train")


def test_idx_with_unequal_counts_or_nothing_is_an_input_error(tmp_path):
    write_idx(tmp_path, "train", noise(3, 4, 4), np.arange(2))
    with pytest.raises(InputError, match="3 images but 2 labels"):
        data.load(f"idx:{tmp_path}", "train")
    write_idx(tmp_path, "train", noise(0, 4, 4), np.arange(0))
    with pytest.raises(InputError, match="the train split is empty"):
        data.load(f"idx:{tmp_path}", "train")


@pytest.mark.skipif(not (REAL / "mnist-t10k").is_dir(), reason="no shared/data/mnist-t10k here")
def test_the_real_mnist_test_set():
    found = data.load(f"idx:{REAL / 'mnist-t10k'}", "test")
    assert found.images.shape == (10_000, 1, 28, 28)
    # the class counts and mean 0.1325 that are published of this set
    published = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(found.labels).tolist() == published
    assert found.normalisation[0][0] == pytest.approx(0.1325, abs=1e-4)
    assert found.labels[:5].tolist() == [7, 2, 1, 0, 4]


# --- folder ---


def save(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


@pytest.fixture
def photos(tmp_path) -> tuple[Path, list[np.ndarray]]:
    """Three colour images of two classes and their pixels in the promised order."""
    shape = (6, 5, 3)
    order = ["ant/10.png", "ant/9.png", "bee/1.png"]
    return tmp_path, [save(tmp_path / "train" / name, noise(*shape)) for name in order]


def test_folder_reads_in_the_order_of_class_and_name(photos):
    root, arrays = photos
    found = data.load(f"folder:{root}", "train")
    np.testing.assert_array_equal(found.images.numpy(), np.stack(arrays).transpose(0, 3, 1, 2))
    assert found.labels.tolist() == [0, 0, 1]
    assert found.classes == ("ant", "bee")
    assert (found.pad, found.flip) == (0, True)


@pytest.mark.parametrize(("side", "pad"), [(7, 0), (8, 1), (16, 2), (32, 4), (64, 4)])
def test_a_folder_is_padded_in_proportion_to_its_images(tmp_path, side, pad):
    for name in ("ant", "bee"):
        save(tmp_path / "train" / name / "1.png", noise(side + 3, side, 3))
    assert data.load(f"folder:{tmp_path}", "train").pad == pad


def test_other_files_in_a_class_are_ignored(photos):
    before = data.load(f"folder:{photos[0]}", "train").fingerprint
    (photos[0] / "train" / "ant" / "notes.txt").write_text("x")
    (photos[0] / "train" / "readme").write_text("x")
    assert data.load(f"folder:{photos[0]}", "train").fingerprint == before


def test_grey_images_stay_grey_unless_one_has_colour(tmp_path):
    grey = save(tmp_path / "train" / "a" / "1.png", noise(4, 4))
    save(tmp_path / "train" / "b" / "1.png", noise(4, 4))
    found = data.load(f"folder:{tmp_path}", "train")
    assert found.shape == (1, 4, 4)
    np.testing.assert_array_equal(found.images[0, 0].numpy(), grey)
    save(tmp_path / "train" / "b" / "2.png", noise(4, 4, 3))
    found = data.load(f"folder:{tmp_path}", "train")
    assert found.shape == (3, 4, 4)
    np.testing.assert_array_equal(found.images[0].numpy(), np.stack([grey] * 3))


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path):
    for name in ("a/1.jpg", "b/1.JPEG"):
        save(tmp_path / "test" / name, noise(8, 8, 3))
    found = data.load(f"folder:{tmp_path}", "test")
    with Image.open(tmp_path / "test" / "a" / "1.jpg") as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(found.images[0].numpy(), expected)


def test_deep_grey_images_keep_their_values(tmp_path):
    deep = np.array([[0, 1 << 8, 128 << 8, 255 << 8]], np.uint16)
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "1.png", deep)
    try:
        found = data.load(f"folder:{tmp_path}", "train").images[0, 0].tolist()
    except InputError:
        return  # to refuse them is honest too
    assert found == [[0, 1, 128, 255]]


def test_mixed_sizes_ask_for_image_size(photos):
    save(photos[0] / "train" / "bee" / "2.png", noise(9, 7, 3))
    with pytest.raises(UsageError, match="2 sizes, from 5x6 to 7x9: give --image-size"):
        data.load(f"folder:{photos[0]}", "train")
    found = data.load(f"folder:{photos[0]}", "train", image_size=4)
    assert found.images.shape == (4, 3, 4, 4)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_image_size_keeps_the_centre_of_a_wide_image(tmp_path, size):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200  # the middle third is all that a centre crop sees
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "1.png", wide)
    found = data.load(f"folder:{tmp_path}", "train", image_size=size)
    middle = found.images[0, 0, :, size // 4 : size - size // 4]
    assert found.shape == (1, size, size)
    assert bool((middle == 200).all())


def test_shrinking_averages_pixels(tmp_path):
    blocks = noise(4, 4)
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "1.png", blocks)
    found = data.load(f"folder:{tmp_path}", "train", image_size=2).images[0, 0].numpy()
    means = blocks.reshape(2, 2, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(found, means, atol=1)  # Pillow rounds rows, then columns


@pytest.mark.parametrize("size", [0, -1])
def test_an_impossible_image_size_is_a_usage_error(photos, size):
    with pytest.raises(UsageError, match="image-size"):
        data.load(f"folder:{photos[0]}", "train", image_size=size)


def test_a_missing_split_says_what_a_folder_needs(photos):
    with pytest.raises(InputError, match="no such folder; folder:DIR needs DIR/train and DIR/test"):
        data.load(f"folder:{photos[0]}", "test")


def test_one_class_only_is_an_input_error(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="two classes or more; found none"):
        data.load(f"folder:{tmp_path}", "train")
    save(tmp_path / "train" / "a" / "1.png", noise(4, 4))
    with pytest.raises(InputError, match="two classes or more; found only 'a'"):
        data.load(f"folder:{tmp_path}", "train")


def test_an_empty_class_is_an_input_error(photos):
    (photos[0] / "train" / "cat").mkdir()
    with pytest.raises(InputError, match="cat: holds no image"):
        data.load(f"folder:{photos[0]}", "train")


@pytest.mark.parametrize("damage", [lambda raw: raw[:-40], lambda raw: raw[:4], lambda _: b"text"])
@pytest.mark.parametrize("name", ["2.png", "2.jpg"])
def test_a_corrupt_image_is_named(photos, name, damage):
    path = photos[0] / "train" / "bee" / name
    save(path, noise(6, 5, 3))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{name}: not a readable image"):
        data.load(f"folder:{photos[0]}", "train")


def test_an_image_that_claims_to_be_huge_is_refused(photos):
    path = photos[0] / "train" / "bee" / "2.bmp"
    save(path, noise(6, 5, 3))
    raw = bytearray(path.read_bytes())
    raw[18:26] = struct.pack("<ii", 100_000, 100_000)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"2\.bmp: not a readable image"):
        data.load(f"folder:{photos[0]}", "train")


@pytest.mark.skipif(not (REAL / "cifar10-jpeg.tar.xz").is_file(), reason="no shared/data archive")
def test_real_cifar_jpegs_are_read(tmp_path):
    import tarfile

    with tarfile.open(REAL / "cifar10-jpeg.tar.xz") as archive:
        wanted = {}
        for member in archive:  # xz is slow: a few images of the first two classes will do
            kept = wanted.setdefault(member.name.split("/")[-2], []) if member.isfile() else None
            if kept is not None and len(kept) < 20:
                kept.append(member)
                archive.extract(member, tmp_path, filter="data")
            if len(wanted) == 2 and all(len(each) == 20 for each in wanted.values()):
                break
    (split,) = [path for path in tmp_path.rglob("t*") if path.name in ("train", "test")]
    found = data.load(f"folder:{split.parent}", split.name)
    assert found.shape == (3, 32, 32)
    assert len(found.labels) == sum(map(len, wanted.values()))
    assert found.classes == tuple(sorted(wanted))
    assert 0.3 < found.normalisation[0][0] < 0.7

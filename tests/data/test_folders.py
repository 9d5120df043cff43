"""Image folders as people have them: leftovers, odd names, broken files, odd modes, splits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from advkit import data
from advkit.artifacts import provenance
from advkit.config.settings import Settings
from advkit.data import folder
from advkit.errors import InputError, UsageError
from advkit.images.decode import decode
from advkit.images.listing import spelt
from advkit.runtime.reporting import Reporter
from advkit.training.sources import split_of
from tests.described import described

RNG = np.random.default_rng(0)


class Heard(Reporter):
    """Keeps what a person would have been told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, image: np.ndarray | Image.Image, **options: object) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, **options)
    return np.asarray(image)


def plain(root: Path, splits=("train", "test"), names=("cat", "dog"), n=3) -> Path:
    for split in splits:
        for name in names:
            for number in range(n):
                save(root / split / name / f"{number}.png", noise(8, 8, 3))
    return root


# --- what is taken, and what is passed over ---


def test_leftovers_are_no_classes_and_no_images(tmp_path):
    root = plain(tmp_path)
    before = data.load(f"folder:{root}", "train")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        save(root / "train" / name / "0.png", noise(8, 8, 3))
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "train" / "cat" / name).write_bytes(b"no picture")
    heard = Heard()
    images = data.load(f"folder:{root}", "train", reporter=heard)
    assert images.classes == ("cat", "dog")
    assert images.fingerprint == before.fingerprint
    (line,) = heard.notes
    assert (
        "passed over: 6 leftovers of the system (.ipynb_checkpoints, __MACOSX, cat/.DS_Store"
        in line
    )


def test_other_files_and_folders_are_named_once(tmp_path):
    root = plain(tmp_path)
    (root / "train" / "readme").write_text("x")
    (root / "train" / "cat" / "notes.txt").write_text("x")
    (root / "train" / "cat" / "album.png").mkdir()
    save(root / "train" / "dog" / "batch2" / "9.png", noise(8, 8, 3))
    os.symlink(root / "train", root / "train" / "dog" / "loop.png")
    heard = Heard()
    images = data.load(f"folder:{root}", "train", reporter=heard)
    assert len(images.labels) == 6
    (line,) = heard.notes
    assert line.endswith(
        "passed over: 2 other files (readme, cat/notes.txt), "
        "3 folders (cat/album.png, dog/batch2, dog/loop.png)"
    )


def test_an_ordinary_folder_says_nothing(tmp_path):
    heard = Heard()
    data.load(f"folder:{plain(tmp_path)}", "train", reporter=heard)
    assert (heard.notes, heard.warnings) == ([], [])


def test_images_are_known_by_their_content(tmp_path):
    root = plain(tmp_path)
    save(root / "train" / "cat" / "a.jfif", noise(8, 8, 3), format="JPEG")
    save(root / "train" / "cat" / "b", noise(8, 8, 3), format="PNG")
    save(root / "train" / "cat" / "c.of 2019", noise(8, 8, 3), format="BMP")
    (root / "train" / "cat" / "d").write_bytes(b"")
    assert folder.paths(root, "train")[:6] == [
        f"train/cat/{name}" for name in ("0.png", "1.png", "2.png", "a.jfif", "b", "c.of 2019")
    ]
    assert len(data.load(f"folder:{root}", "train").labels) == 9


def test_a_class_one_folder_deeper_says_where_its_images_are(tmp_path):
    root = plain(tmp_path)
    save(root / "train" / "emu" / "batch2" / "1.png", noise(8, 8, 3))
    with pytest.raises(InputError, match=r"emu: holds no image; passed over: 1 folder \(batch2\)"):
        data.load(f"folder:{root}", "train")


def test_a_plain_folder_is_torchvisions(tmp_path):
    root = plain(tmp_path)
    theirs = ImageFolder(str(root / "train"))
    images = data.load(f"folder:{root}", "train")
    assert list(images.classes) == theirs.classes
    assert images.labels.tolist() == theirs.targets
    for place, (image, _) in enumerate(theirs):
        expected = np.asarray(image).transpose(2, 0, 1)
        np.testing.assert_array_equal(images.images[place].numpy(), expected)


def test_the_fingerprint_of_an_ordinary_folder_is_that_of_earlier_versions(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) + 100 * label
            save(tmp_path / split / name / "0.png", pixels)
    sha = hashlib.sha256(repr(((2, 3, 2, 2), ("cat", "dog"))).encode())
    pixels = [np.arange(12, dtype=np.uint8).reshape(2, 2, 3) + 100 * label for label in (0, 1)]
    sha.update(np.stack(pixels).transpose(0, 3, 1, 2).tobytes())
    sha.update(np.array([0, 1], np.int64).tobytes())
    images = data.load(f"folder:{tmp_path}", "train")
    assert images.fingerprint == f"sha256:{sha.hexdigest()}"


READ = """
import sys
from advkit import data
images = data.load(f"folder:{sys.argv[1]}", "train")
sys.stdout.buffer.write(f"{images.fingerprint} {images.classes}".encode("utf-8"))
"""


def test_names_are_utf_8_whatever_the_locale_takes_them_for(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("latin-1", "surrogateescape"))
    assert spelt("\xc3\xa9t\xc3\xa9") == "été"


@pytest.mark.slow
def test_the_fingerprint_does_not_depend_on_the_locale(tmp_path):
    for name in ("кошка", "chien été", "zebra"):
        for file in ("é.png", "z.png", "\udce9\udcff.png", "\U0001f431.png"):
            save(tmp_path / "train" / name / "x.png", noise(8, 8, 3))
            (tmp_path / "train" / name / "x.png").rename(tmp_path / "train" / name / file)
    answers = set()
    for mode in ("0", "1"):
        changed = {"LC_ALL": "C", "PYTHONUTF8": mode, "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", READ, str(tmp_path)],
            env={**os.environ, **changed}, capture_output=True, check=True,
        )  # fmt: skip
        answers.add(done.stdout.decode())
    (answer,) = answers
    assert "'chien été', 'zebra', 'кошка'" in answer


# --- pixels ---

STORED = np.arange(6, dtype=np.uint8).reshape(2, 3)
UPRIGHT = {
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],  # mirrored
    3: [[5, 4, 3], [2, 1, 0]],  # by half a turn
    4: [[3, 4, 5], [0, 1, 2]],  # upside down
    5: [[0, 3], [1, 4], [2, 5]],  # rows are columns
    6: [[3, 0], [4, 1], [5, 2]],  # to be turned to the right
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],  # to be turned to the left
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_obeyed(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.stack([40 * STORED] * 3, 2)
    options = {"lossless": True} if suffix == "webp" else {}
    save(tmp_path / f"x.{suffix}", stored, exif=exif, **options)
    shown = np.asarray(decode(tmp_path / f"x.{suffix}", as_shown=True))
    np.testing.assert_array_equal(shown[..., 0], 40 * np.array(UPRIGHT[orientation]))


def test_damaged_exif_says_nothing(tmp_path):
    stored = save(tmp_path / "x.png", noise(4, 5, 3), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "x.png", as_shown=True)), stored)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(np.float64) / 255
    return np.rint(colour * share + 255 * (1 - share)).astype(np.uint8)


def test_what_is_transparent_shows_white(tmp_path):
    colour, alpha = noise(6, 7, 3), noise(6, 7)
    alpha[0], alpha[1] = 0, 255
    save(tmp_path / "rgba.png", np.dstack([colour, alpha]))
    shown = np.asarray(decode(tmp_path / "rgba.png", as_shown=True))
    np.testing.assert_array_equal(shown, on_white(colour, alpha[..., None]))
    assert (shown[0] == 255).all()
    np.testing.assert_array_equal(shown[1], colour[1])
    save(tmp_path / "la.png", np.dstack([colour[..., 0], alpha]))
    shown = np.asarray(decode(tmp_path / "la.png", as_shown=True))
    np.testing.assert_array_equal(shown, on_white(colour[..., 0], alpha))


def test_a_transparent_colour_of_a_palette_shows_white(tmp_path):
    places = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(places, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    save(tmp_path / "x.png", image, transparency=1)
    shown = np.asarray(decode(tmp_path / "x.png", as_shown=True))
    assert shown.tolist() == [[[10, 20, 30], [255] * 3], [[70, 80, 90], [255] * 3]]


def test_modes_of_8_bits_keep_their_values(tmp_path):
    bits = np.array([[0, 1], [1, 0]], bool)
    save(tmp_path / "bits.png", Image.fromarray(bits))
    assert np.asarray(decode(tmp_path / "bits.png", as_shown=True)).tolist() == [[0, 255], [255, 0]]
    ink = np.zeros((1, 3, 4), np.uint8)
    ink[0, 1], ink[0, 2] = [255, 0, 0, 0], [0, 0, 0, 255]  # paper, cyan, black
    save(tmp_path / "ink.tif", Image.fromarray(ink, "CMYK"))
    shown = np.asarray(decode(tmp_path / "ink.tif", as_shown=True))
    assert shown.tolist() == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("dtype", "suffix", "mode"),
    [
        (np.float32, "tif", "F"),
        (np.int32, "tif", "I"),
        (np.uint16, "tif", "I;16"),
        (np.uint16, "png", "I(;16)?"),  # older Pillows widen it
    ],
)
def test_values_without_an_8_bit_scale_are_refused(tmp_path, dtype, suffix, mode):
    root = plain(tmp_path)
    save(root / "train" / "cat" / f"9.{suffix}", np.full((8, 8), 1, dtype))
    with pytest.raises(InputError, match=rf"9\.{suffix}: mode {mode}: more than 8 bits"):
        data.load(f"folder:{root}", "train")


# --- broken images ---


def broken(root: Path, n: int) -> list[str]:
    names = [f"train/cat/b{number:02}.png" for number in range(n)]
    for name in names:
        (root / name).write_bytes(b"\x89PNG\r\n\x1a\n torn")
    return names


def test_broken_images_are_listed_at_once(tmp_path):
    root = plain(tmp_path)
    broken(root, 12)
    with pytest.raises(InputError) as refused:
        data.load(f"folder:{root}", "train")
    text = str(refused.value)
    assert text.startswith(f"{root}/train: 12 broken images: cat/b00.png: not a readable image")
    assert "cat/b09.png: " in text
    assert "b10" not in text
    assert "and 2 more" in text
    assert len(text.splitlines()) == 1


def test_broken_images_are_left_out_on_demand(tmp_path):
    root = plain(tmp_path)
    whole = data.load(f"folder:{root}", "train")
    names = broken(root, 2)
    os.symlink("/nowhere/x.png", root / "train" / "dog" / "zz.png")
    names.append("train/dog/zz.png")
    heard = Heard()
    images = data.load(f"folder:{root}", "train", skip_broken=True, reporter=heard)
    assert torch.equal(images.images, whole.images)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert images.how == {"broken": {"n": 3, "digest": f"sha256:{digest}"}}
    assert images.fingerprint != whole.fingerprint
    assert "left out as broken: 3 (train/cat/b00.png" in heard.notes[0]
    assert (
        folder.paths(root, "train", skip_broken=True)
        == folder.paths(root, "train")[:3] + (folder.paths(root, "train")[5:8])
    )
    parent = provenance.data_parent("folder", "train", images.fingerprint, images.how)
    assert parent["broken"] == images.how["broken"]


def test_nothing_to_leave_out_changes_nothing(tmp_path):
    root = plain(tmp_path)
    skipped = data.load(f"folder:{root}", "train", skip_broken=True)
    assert skipped.fingerprint == data.load(f"folder:{root}", "train").fingerprint


def test_a_class_of_broken_images_alone_is_an_error(tmp_path):
    root = plain(tmp_path)
    (root / "train" / "emu").mkdir()
    (root / "train" / "emu" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match="class 'emu': none of its images can be read"):
        data.load(f"folder:{root}", "train", skip_broken=True)


def test_a_validation_split_of_broken_images_alone_is_an_error(tmp_path):
    root = plain(tmp_path)
    (root / "val" / "cat").mkdir(parents=True)
    (root / "val" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match="val: none of its images can be read"):
        data.load(f"folder:{root}", "train", skip_broken=True)


def test_an_elongated_image_is_not_broken(tmp_path):
    root = plain(tmp_path)
    save(root / "train" / "cat" / "9.png", noise(2, 300, 3))
    with pytest.raises(InputError, match="too elongated"):
        data.load(f"folder:{root}", "train", image_size=8, skip_broken=True)


# --- splits ---


def flat(root: Path, counts: dict[str, int]) -> Path:
    for name, n in counts.items():
        for number in range(n):
            save(root / name / f"{number}.png", noise(8, 8, 3))
    return root


def test_class_folders_alone_are_divided_by_class(tmp_path):
    root = flat(tmp_path, {"cat": 10, "dog": 5, "emu": 2})
    train = data.load(f"folder:{root}", "train", test_fraction=0.3)
    test = data.load(f"folder:{root}", "test", test_fraction=0.3)
    assert torch.bincount(test.labels).tolist() == [3, 2, 1]  # 3, 1.5, 0.6
    assert torch.bincount(train.labels).tolist() == [7, 3, 1]
    own, others = (folder.paths(root, split, test_fraction=0.3) for split in ("test", "train"))
    smallest = sorted(range(10), key=lambda n: hashlib.sha256(f"cat/{n}.png".encode()).digest())
    assert own[:3] == [f"cat/{number}.png" for number in sorted(smallest[:3])]
    every = {f"{name}/{n}.png" for name, k in (("cat", 10), ("dog", 5), ("emu", 2))
             for n in range(k)}  # fmt: skip
    assert sorted([*own, *others]) == sorted(every)
    assert train.how == {"test_fraction": 0.3}


def test_class_folders_alone_ask_for_the_share(tmp_path):
    root = flat(tmp_path, {"cat": 2, "dog": 2})
    with pytest.raises(UsageError, match="neither train/ nor test/: give --test-fraction"):
        data.load(f"folder:{root}", "train")


def test_a_divided_folder_takes_no_share(tmp_path):
    with pytest.raises(UsageError, match=r"--test-fraction: .* has train/ or test/"):
        data.load(f"folder:{plain(tmp_path)}", "train", test_fraction=0.5)


def test_one_image_cannot_be_divided(tmp_path):
    root = flat(tmp_path, {"cat": 2, "dog": 1})
    with pytest.raises(InputError, match="dog: one image alone cannot be divided"):
        data.load(f"folder:{root}", "test", test_fraction=0.5)


def test_a_validation_folder_is_the_validation_split(tmp_path):
    root = plain(tmp_path, ("train", "val", "test"), n=4)
    own = [save(root / "val" / "dog" / f"{n}.png", noise(8, 8, 3)) for n in range(4)]
    images = data.load(f"folder:{root}", "train")
    settings = Settings(data=f"folder:{root}", limit=6)
    training, held_out = split_of(settings, images)
    assert images.held_out == 8
    assert training.tolist() == [0, 1, 2, 4, 5, 6]  # three of each class of train/
    assert held_out.tolist() == list(range(8, 16))
    assert images.labels[held_out].tolist() == [0] * 4 + [1] * 4
    expected = np.stack(own).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images.batch(held_out[4:]).numpy(), expected)
    taught = Settings(data=f"folder:{root}", limit=6, val_size=3)  # as a teacher elsewhere was
    assert split_of(taught, images)[1].tolist() == held_out.tolist()


def test_a_size_beside_a_validation_folder_is_refused_where_it_is_typed(cli, tmp_path):
    root = plain(tmp_path, ("train", "val", "test"), n=4)
    words = ["train", "--data", f"folder:{root}", "--method", "natural", "--epochs", "1"]
    done = cli(*words, "--val-size", "3", "--batch-size", "4", "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert "--val-size has no effect" in done.err
    assert not (tmp_path / "run").exists()


def test_a_validation_folder_has_the_classes_of_training(tmp_path):
    root = plain(tmp_path)
    save(root / "val" / "dgo" / "0.png", noise(8, 8, 3))
    with pytest.raises(InputError, match="val: class 'dgo' is none of the training split's"):
        data.load(f"folder:{root}", "train")


def test_a_test_split_alone_is_read_and_not_trained_on(tmp_path):
    root = plain(tmp_path, ("test",))
    assert len(data.load(f"folder:{root}", "test").labels) == 6
    with pytest.raises(InputError, match="a test split alone: it serves attack and analyze"):
        data.load(f"folder:{root}", "train")


# --- classes ---


def compared(text: str) -> Heard:
    heard = Heard()
    images = data.load(text, "train")
    data.require_same_classes(text, images, root=None, reporter=heard)
    return heard


def test_a_class_of_the_test_split_alone_is_named_before_training(tmp_path):
    root = plain(tmp_path)
    (root / "test" / "dog").rename(root / "test" / "dgo")
    with pytest.raises(InputError, match="the test split has class 'dgo', which the training"):
        compared(f"folder:{root}")


def test_a_class_that_the_test_split_lacks_is_named_before_training(tmp_path):
    root = plain(tmp_path, names=("a", "b", "c"))
    for path in (root / "test" / "b").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="b: holds no image"):
        compared(f"folder:{root}")
    (root / "test" / "b").rmdir()
    assert "the test split lacks class 'b'" in compared(f"folder:{root}").warnings[0]


def test_nothing_is_begun_where_the_classes_differ(tmp_path, cli):
    root = plain(tmp_path / "photos")
    (root / "test" / "dog").rename(root / "test" / "dgo")
    out = tmp_path / "run"
    words = ("--method", "natural", "--arch", "small-cnn", "--epochs", 1, "--batch-size", 2)
    outcome = cli("train", "--data", f"folder:{root}", *words, "-o", out)
    assert outcome.code == 3
    assert "'dgo'" in outcome.err
    assert not (out / "config.toml").exists()


def test_training_needs_no_test_split(tmp_path):
    assert not compared(f"folder:{plain(tmp_path, ('train',))}").warnings


def test_other_sets_are_compared_too(tmp_path):
    x = noise(4, 5, 5, 3)
    np.savez(tmp_path / "train.npz", image=x, label=np.array([0, 1, 2, 3]))
    np.savez(tmp_path / "test.npz", image=x, label=np.array([0, 1, 2, 5]))
    with pytest.raises(InputError, match=r"test split has 2 classes \(4, 5\)"):
        compared(f"npz:{tmp_path}")


def test_classes_that_no_image_has_are_told(tmp_path):
    from tests.data.test_datasets import write_idx

    labels = np.arange(1, 12)  # as in EMNIST's letters
    for prefix in ("train", "t10k"):
        write_idx(tmp_path, prefix, noise(11, 4, 4), labels)
    heard = Heard()
    data.load(f"idx:{tmp_path}", "train", reporter=heard)
    assert heard.warnings == [
        f"idx:{tmp_path}: class 0 has no image in the train split: do its labels begin at 1?"
    ]
    assert not compared(f"idx:{tmp_path}").warnings


# --- everything at once ---


def test_a_folder_with_everything_at_once(tmp_path, cli):
    root = plain(tmp_path, ("train", "val", "test"), n=2)
    top = root / "train"
    before = data.load(f"folder:{root}", "train").images
    for name in (".DS_Store", "cat/._0.png", "cat/Thumbs.db", "dog/desktop.ini"):
        (top / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        save(top / name / "0.png", noise(8, 8, 3))
    (top / "labels.csv").write_text("x")
    save(top / "dog" / "deeper" / "0.png", noise(8, 8, 3))
    save(top / "cat" / "a.jfif", noise(8, 8, 3), format="JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(top / "cat" / "b", noise(8, 8, 3), format="PNG", exif=exif)
    clear = save(top / "dog" / "c.png", noise(8, 8, 4))
    save(top / "dog" / "d.tif", np.ones((8, 8), np.float32))
    (top / "dog" / "e.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 broken images: dog/d\.tif: mode F.*; dog/e\.png: "):
        data.load(f"folder:{root}", "train")
    heard = Heard()
    images = data.load(f"folder:{root}", "train", skip_broken=True, reporter=heard)
    assert torch.bincount(images.labels[: -images.held_out]).tolist() == [4, 3]
    assert images.held_out == 4
    with Image.open(top / "cat" / "a.jfif") as opened:
        jpeg = np.asarray(opened.convert("RGB"))
    white = on_white(clear[..., :3], clear[..., 3:])
    added = np.stack([jpeg, np.rot90(turned, -1), white]).transpose(0, 3, 1, 2)
    old = before.numpy()
    expected = np.concatenate([old[:2], added[:2], old[2:4], added[2:], old[4:]])
    np.testing.assert_array_equal(images.images.numpy(), expected)
    assert heard.warnings == []
    assert heard.notes == [
        f"{top}: passed over: 6 leftovers of the system (.DS_Store, .ipynb_checkpoints, __MACOSX "
        "and 3 more), 1 other file (labels.csv), 1 folder (dog/deeper)",
        f"{root}: left out as broken: 2 (train/dog/d.tif, train/dog/e.png)",
    ]
    outcome = cli("data", "info", f"folder:{root}", "--skip-broken")
    assert outcome.code == 0
    first = outcome.records[0]
    assert (first["split"], first["n"], first["shape"]) == ("train", 11, [3, 8, 8])
    assert first["classes"] == 2
    assert outcome.err.splitlines() == [f"advkit data info: {line}" for line in heard.notes]


@pytest.mark.parametrize("imported", [True, False])
def test_a_checkpoint_whose_folder_nobody_can_find_says_what_to_give(imported):
    """It keeps the name of its data alone, and an imported net has no configuration beside it."""
    info = described("checkpoint", data={"name": "folder", "classes": ["a", "b"]})
    info |= {"imported": True} if imported else {}
    with pytest.raises(UsageError, match=r"--data folder:DIR .*: a checkpoint keeps the name"):
        data.load_for(info, "folder", "test", root=None)
    with pytest.raises(UsageError, match=r"where is cifar10\?[^:]*:DIR or give --data-root$"):
        data.load_for(info, "cifar10", "test", root=None)

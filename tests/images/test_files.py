"""Files decoded when asked for: ImageNet's folders, its lists, crops and workers."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from advkit import data
from advkit.config.resolve import resolve
from advkit.errors import InputError
from advkit.images.batches import Batches
from advkit.images.files import Files
from advkit.runtime import seeding
from advkit.training.parts import augmentation_of

WNIDS = ("n01440764", "n01443537", "n02084071")
CPU = torch.device("cpu")


def picture(path, size, seed, mode="RGB"):
    """Write a JPEG of smooth noise, so that decoding loses little."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, "JPEG", quality=95)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes, four training images each, two validation images each, in class folders."""
    top = tmp_path_factory.mktemp("imagenet")
    for place, wnid in enumerate(WNIDS):
        for number in range(4):
            picture(
                top / "train" / wnid / f"{wnid}_{number}.JPEG",
                (50 + number, 40),
                place * 9 + number,
            )
        for number in range(2):
            name = f"ILSVRC2012_val_{place * 2 + number + 1:08d}.JPEG"
            picture(top / "val" / wnid / name, (40, 60), 100 + place * 2 + number)
    return top


def load(root, split="train", **options):
    return data.load(f"imagenet:{root}", split, **{"image_size": 32, **options})


def test_classes_and_order(root):
    images = load(root)
    assert images.classes == WNIDS
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.paths[5] == "train/n01443537/n01443537_1.JPEG"
    assert images.shape == (3, 32, 32)
    assert load(root, "test").labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_classes_that_training_lacks_are_left_out_with_a_word(root, tmp_path):
    """As where a training split of few classes lies beside the whole validation split."""
    shutil.copytree(root, tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / "train" / WNIDS[-1])
    images = data.load(f"imagenet:{tmp_path / 'in'}", "test")
    assert len(images.labels) == 2 * (len(WNIDS) - 1)
    (remark,) = images.remarks
    assert f"class folders without one in train/ are left out: {WNIDS[-1]}" in remark
    assert data.load(f"imagenet:{root}", "test").remarks == ()


def test_default_size_is_224(root):
    assert data.load(f"imagenet:{root}", "train").shape == (3, 224, 224)


def test_plain_images_are_resized_and_centre_cropped(root):
    images = load(root, "test")
    with Image.open(root / images.paths[3]) as opened:
        steps = transforms.Compose(
            [transforms.Resize(37), transforms.CenterCrop(32), transforms.PILToTensor()]
        )  # 32 · 256/224 = 36.57
        expected = steps(opened.convert("RGB"))
    found = images.batch(torch.tensor([3, 0]))
    assert found.dtype == torch.uint8
    assert torch.equal(found[0], expected)


def test_grey_and_cmyk_become_rgb(tmp_path):
    for wnid, mode in zip(WNIDS, ("L", "CMYK", "RGB"), strict=True):
        picture(tmp_path / "train" / wnid / "a.JPEG", (40, 40), 1, mode)
    found = load(tmp_path).batch(torch.arange(3))
    assert found.shape == (3, 3, 32, 32)
    assert torch.equal(found[0, 0], found[0, 1])
    assert (found[1].float() - found[2].float()).abs().mean() < 12  # the same picture


def test_a_view_is_a_random_part_and_a_function_of_its_seed(root):
    images = load(root)
    views = images.draw(200, torch.Generator().manual_seed(0))
    rows = torch.zeros(200, dtype=torch.int64)
    first, again = images.seen(rows, views), images.seen(rows, views)
    assert torch.equal(first, again)
    assert len({each.numpy().tobytes() for each in first}) > 190
    before = torch.get_rng_state()
    images.seen(rows[:2], views[:2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_view_seeds_no_other_device(root, monkeypatch):
    """What a GPU's generator gives next is not for a crop to decide."""
    images = load(root)
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    images.seen(torch.tensor([2]), torch.tensor([[12345]]))
    assert seeded == []


def test_the_part_is_torchvisions(root):
    images = load(root)
    seed = 12345
    with Image.open(root / images.paths[2]) as opened:
        image = opened.convert("RGB")
    torch.manual_seed(seed)
    top, left, height, width = transforms.RandomResizedCrop.get_params(
        image, (0.08, 1.0), (3 / 4, 4 / 3)
    )
    flipped = torch.rand(()) < 0.5
    part = image.crop((left, top, left + width, top + height))
    part = part.resize((32, 32), Image.Resampling.BILINEAR)
    if flipped:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = torch.from_numpy(np.asarray(part).copy()).permute(2, 0, 1)
    found = images.seen(torch.tensor([2]), torch.tensor([[seed]]))[0]
    assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(root, workers):
    images = load(root)
    whole = Batches(images, torch.arange(12), 4, 3, CPU, workers=workers)
    plain = Batches(images, torch.arange(12), 4, 3, CPU)
    order = plain.order(1)
    found = list(whole.epoch(1, start=1))
    assert len(found) == 2
    for step, batch in enumerate(found, 1):
        expected = plain.at(order, 1, step)
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.index, expected.index)
        assert torch.equal(batch.y, expected.y)


@pytest.mark.parametrize(
    ("name", "begins"), [("crop-flip", "crops"), ("none", "plain"), ("cutout", "crops"),
                         ("cropshift", "plain"), ("cutmix", "crops")],
)  # fmt: skip
def test_augmentations_begin_with_the_files_crops_or_with_their_centres(root, name, begins):
    images = load(root)
    layer = {"data": "imagenet", "augment": name}
    part = augmentation_of(resolve((layer, "flag")).settings)
    whole = Batches(images, torch.arange(12), 4, 3, CPU, augmentation=part)
    plain = Batches(images, torch.arange(12), 4, 3, CPU)
    order = plain.order(0)
    index, views, _ = plain.chosen(order, 0, 1)
    raw = images.seen(index, views) if begins == "crops" else images.batch(index)
    if not part.views:
        generator = seeding.generator(3, "augmentation", 0, 1)
        raw = part.apply(raw, part.draw(4, (3, 32, 32), generator, 0, True), 0)
    (batch,) = itertools.islice(whole.epoch(0), 1, 2)
    assert torch.equal(batch.x, raw.float() / 255)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_one_line_from_a_worker_too(tmp_path, workers):
    for wnid in WNIDS:
        picture(tmp_path / "train" / wnid / "a.JPEG", (40, 40), 1)
    (tmp_path / "train" / WNIDS[1] / "a.JPEG").write_bytes(b"not a picture")
    whole = Batches(load(tmp_path), torch.arange(3), 3, 0, CPU, workers=workers)
    with pytest.raises(InputError, match=r"a\.JPEG: not a readable image") as refused:
        list(whole.epoch(0))
    assert len(str(refused.value).splitlines()) == 1


def test_a_list_names_the_test_images(root, tmp_path):
    file = tmp_path / "ids.txt"
    lines = [f"{WNIDS[2]}/ILSVRC2012_val_00000006.JPEG", f"{WNIDS[0]}/ILSVRC2012_val_00000001.JPEG"]
    file.write_text("\n".join(lines))  # RobustBench's has no last newline either
    images = load(root, "test", image_list=str(file))
    assert images.labels.tolist() == [2, 0]
    assert images.paths == ("val/n02084071/ILSVRC2012_val_00000006.JPEG",
                            "val/n01440764/ILSVRC2012_val_00000001.JPEG")  # fmt: skip


def test_a_flat_validation_folder_needs_the_list(root, tmp_path):
    (tmp_path / "train").symlink_to(root / "train")
    for file in (root / "val").rglob("*.JPEG"):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="no class folders, so its images have no labels"):
        load(tmp_path, "test")
    file = tmp_path / "ids.txt"
    file.write_text(f"{WNIDS[1]}/ILSVRC2012_val_00000003.JPEG\n")
    images = load(tmp_path, "test", image_list=str(file))
    assert (images.paths, images.labels.tolist()) == (("val/ILSVRC2012_val_00000003.JPEG",), [1])
    same = load(root, "test").batch(torch.tensor([2]))
    assert torch.equal(images.batch(torch.tensor([0])), same)


def test_a_list_may_begin_with_a_byte_order_mark(root, tmp_path):
    file = tmp_path / "ids.txt"
    file.write_bytes(b"\xef\xbb\xbf" + f"{WNIDS[2]}/ILSVRC2012_val_00000006.JPEG\r\n".encode())
    assert load(root, "test", image_list=str(file)).labels.tolist() == [2]


@pytest.mark.parametrize("flat", [False, True])
def test_a_list_that_names_an_image_twice_is_refused(root, tmp_path, flat):
    file = tmp_path / "ids.txt"
    lines = [f"{WNIDS[0]}/ILSVRC2012_val_00000001.JPEG", f"{WNIDS[0]}/ILSVRC2012_val_00000002.JPEG"]
    again = f"{WNIDS[2]}/ILSVRC2012_val_00000001.JPEG" if flat else lines[0]
    file.write_text("\n".join([*lines, again]))
    if flat:  # one file, which cannot be of two classes
        (tmp_path / "train").symlink_to(root / "train")
        (tmp_path / "val").mkdir()
        for picture_file in (root / "val").rglob("*.JPEG"):
            (tmp_path / "val" / picture_file.name).write_bytes(picture_file.read_bytes())
    with pytest.raises(InputError, match=r"ids\.txt: names val/.*_00000001\.JPEG twice"):
        load(tmp_path if flat else root, "test", image_list=str(file))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "lists no image"),
        ("n01440764.JPEG", "is not WNID/NAME.JPEG"),
        ("../train/a.JPEG", "is not WNID/NAME.JPEG"),
        ("n01440764/gone.JPEG", "no such file"),
    ],
)
def test_a_wrong_list_is_refused(root, tmp_path, text, what):
    file = tmp_path / "ids.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=what):
        load(root, "test", image_list=str(file))


def test_a_list_of_an_unknown_class_is_refused(root, tmp_path):
    (tmp_path / "train").symlink_to(root / "train")
    picture(tmp_path / "val" / "n99" / "a.JPEG", (40, 40), 0)
    file = tmp_path / "ids.txt"
    file.write_text("n99/a.JPEG")
    with pytest.raises(InputError, match="class n99 has no folder"):
        load(tmp_path, "test", image_list=str(file))


@pytest.mark.parametrize("missing", ["train", "val", "class", "list"])
def test_what_is_missing_is_named(root, tmp_path, missing):
    if missing == "train":
        with pytest.raises(InputError, match="no class folders there"):
            load(tmp_path)
    elif missing == "val":
        (tmp_path / "train").symlink_to(root / "train")
        with pytest.raises(InputError, match="val: no such folder"):
            load(tmp_path, "test")
    elif missing == "class":
        (tmp_path / "train").symlink_to(root / "train")
        picture(tmp_path / "val" / WNIDS[0] / "a.JPEG", (40, 40), 0)
        with pytest.raises(InputError, match=f"{WNIDS[1]}: holds no .JPEG image"):
            load(tmp_path, "test")
    else:
        with pytest.raises(InputError, match=r"gone\.txt: cannot be read"):
            load(root, "test", image_list=str(tmp_path / "gone.txt"))


def test_the_fingerprint_is_of_names_sizes_and_labels(root, tmp_path):
    base = load(root)
    assert base.fingerprint == load(root).fingerprint
    shorter = Files(
        base.name, base.split, base.root, base.paths[:-1], base.labels[:-1], base.classes, 32
    )
    other = load(root, image_size=16)
    assert len({base.fingerprint, shorter.fingerprint, other.fingerprint}) == 3

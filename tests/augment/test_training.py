"""Augmentations in training: the same crops as ever, shares of a batch, mixed labels, resuming."""

from __future__ import annotations

import hashlib
import json
import signal

import pytest
import torch

from advkit import data
from advkit.config.resolve import resolve
from advkit.errors import MismatchError, Stopped, UsageError
from advkit.images.augment import every_view
from advkit.images.batches import Batches
from advkit.images.extra import Extra
from advkit.images.image_set import Images
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from advkit.training.parts import augmentation_of
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.trainer import Trainer
from tests.augment.test_shelf import NAMES, every, named

CPU = torch.device("cpu")
SMALL = {
    "data": "digits", "limit": 100, "epochs": 2, "batch_size": 32, "width": 4, "attack_steps": 1,
    "method": "adr", "normalise": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Images:
    return data.load("digits", "train")


def batches(images: Images, name: str = "crop-flip", size: int = 8, **more: object) -> Batches:
    given = {} if name == "crop-flip" else {"augmentation": named(name)}
    return Batches(images, torch.arange(32), size, 3, CPU, **given, **more)


def trainer(images: Images, **more: object) -> Trainer:
    settings = resolve(({**SMALL, **more}, "flag")).settings
    return Trainer(settings, images, device=CPU, threads=1, reporter=Reporter())


@pytest.mark.parametrize("through", ["the data set", "the shelf"])
def test_crops_are_those_of_before_there_was_a_shelf(digits, through):
    """Digest of two epochs of batches, taken from the code before."""
    part = named("crop-flip")
    more = {} if through == "the data set" else {"augmentation": part}
    whole = Batches(digits, torch.arange(300), 64, 3, CPU, **more)
    sha = hashlib.sha256()
    for batch in (batch for epoch in range(2) for batch in whole.epoch(epoch)):
        pixels = (batch.x * 255).round().to(torch.uint8).contiguous()
        for tensor in (pixels, batch.y, batch.views):
            sha.update(tensor.numpy().tobytes())
    assert sha.hexdigest() == "3c504981ed6c3bf6783a19e2554214078b0247e5852b43cd097d6c56a75d2704"


@every
def test_a_batch_is_a_function_of_seed_epoch_and_step(digits, name):
    first, second = batches(digits, name), batches(digits, name)
    order = first.order(1)
    for step in range(3):
        first.at(order, 0, step)
    torch.manual_seed(4)
    one, other = first.at(order, 1, 2), second.at(order, 1, 2)
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.x, first.at(order, 1, 3).x) is False


@every
@pytest.mark.parametrize("more", [False, True], ids=["own", "and extra"])
def test_processes_share_the_batch_of_one(digits, name, more):
    def extra() -> dict[str, Extra]:
        return {"extra": Extra(digits, 4, 0)} if more else {}

    alone = batches(digits, name, **extra())
    ranks = [batches(digits, name, rank=rank, world=2, **extra()) for rank in range(2)]
    order = alone.order(0)
    whole, shares = alone.at(order, 0, 1), [rank.at(order, 0, 1) for rank in ranks]
    places = torch.cat([share.rows for share in shares])
    assert sorted(places.tolist()) == list(range(8))
    assert {share.total for share in shares} == {8}
    for field in ("x", "y", "index"):
        joined = torch.cat([getattr(share, field) for share in shares])
        assert torch.equal(joined, getattr(whole, field)[places])
    if whole.mix is not None:
        mixes = [share.mix for share in shares]
        assert torch.equal(torch.cat([mix.weight for mix in mixes]), whole.mix.weight[places])
        for side in ("first", "second"):
            joined = torch.cat([getattr(mix, side).x for mix in mixes])
            assert torch.equal(joined, getattr(whole.mix, side).x[places])


@pytest.mark.parametrize("name", [name for name in NAMES if not named(name).views])
def test_a_labels_file_of_views_serves_crops_and_flips_alone(digits, name):
    views = every_view(digits.pad, digits.flip).expand(len(digits.labels), -1, -1)
    with pytest.raises(UsageError, match=f"--augment {name}: the labels file holds labels of cr"):
        batches(digits, name, table=views)


def test_a_labels_file_of_all_views_serves_the_plain_image_too(digits):
    views = every_view(digits.pad, digits.flip).expand(len(digits.labels), -1, -1)
    batch = batches(digits, "none", table=views).at(torch.arange(8), 0, 0)
    assert batch.view.tolist() == [4] * 8  # the middle of 3 × 3
    assert torch.equal(batch.x, digits.images[:8].float() / 255)
    with pytest.raises(UsageError, match="--augment none: the labels file has 5 of 9 views"):
        batches(digits, "none", table=views[:, :5])


@pytest.mark.parametrize("labels", ["onehot", "smoothing", "adr"])
def test_labels_are_mixed_after_the_label_source(digits, labels):
    made = trainer(digits, method="at", objective="at", labels=labels, augment="cutmix")
    batch = made.batches.at(made.batches.order(0), 0, 0)
    targets = made.learner._targets(batch, 0, 0)
    whole = trainer(digits, method="at", objective="at", labels=labels).batches
    plain = whole.at(whole.order(0), 0, 0)
    assert torch.equal(batch.mix.first.x, plain.x)  # the crops are those without cutmix
    rows = made.learner._targets(plain, 0, 0)
    weight = batch.mix.weight.float()[:, None]
    partner = batch.mix.second.rows
    torch.testing.assert_close(targets, weight * rows + (1 - weight) * rows[partner])
    major = torch.where(batch.mix.weight < 0.5, plain.y[partner], plain.y)
    assert torch.equal(batch.y, major)


def contents(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"], row["images_per_second"]
    return rows, {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("name", ["idbh", "cutmix"])
def test_resumed_is_never_stopped(tmp_path, monkeypatch, name):
    resolved = resolve(({**SMALL, "augment": name}, "flag"))

    def go(folder, resume=False):
        return train(resolved, RunFolder(folder), device=CPU, threads=1, resume=resume)

    go(tmp_path / "whole")
    looks = iter([None, signal.SIGTERM])  # after the second step
    with monkeypatch.context() as patched:
        patched.setattr(signals, "pending", lambda: next(looks, None))
        with pytest.raises(Stopped):
            go(tmp_path / "stopped")
    go(tmp_path / "stopped", resume=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def earlier(folder, name="crop-flip"):
    """Make a finished run that of a version without the choice, as far as its options go."""
    resolved = resolve(({**SMALL, "epochs": 1, "augment": name}, "flag"))
    train(resolved, RunFolder(folder), device=CPU, threads=1)
    config = folder / "config.toml"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith("augment")))
    return folder


def test_a_run_of_before_is_found_done_and_is_no_other(tmp_path):
    folder = RunFolder(earlier(tmp_path / "run"))
    again = resolve(({**SMALL, "epochs": 1}, "flag"))
    assert train(again, folder, device=CPU, threads=1) is False
    other = resolve(({**SMALL, "epochs": 1, "augment": "cutout"}, "flag"))
    with pytest.raises(MismatchError, match="augment: crop-flip -> cutout"):
        train(other, folder, device=CPU, threads=1)


def test_a_description_names_what_is_not_the_default():
    said = {name: resolve(({**SMALL, "augment": name}, "flag")).settings.described()
            for name in ("crop-flip", "cutout")}  # fmt: skip
    assert "augment" not in said["crop-flip"]
    assert (said["cutout"]["augment"], said["cutout"]["hole"]) == ("cutout", None)


def test_an_option_of_another_augmentation_is_refused():
    with pytest.raises(UsageError, match=r"hole has no meaning for .* augment crop-flip"):
        resolve(({**SMALL, "hole": 3}, "flag"))
    with pytest.raises(UsageError, match="unknown augmentation 'cutoff'"):
        resolve(({**SMALL, "augment": "cutoff"}, "flag"))


def test_what_the_images_are_too_small_for_is_refused_before_the_folder_is_touched(tmp_path):
    resolved = resolve(({**SMALL, "augment": "cropshift", "shift_most": 8}, "flag"))
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match="below the images' 8 pixels"):
        train(resolved, RunFolder(folder), device=CPU, threads=1)
    assert not (folder / "config.toml").exists()


def test_augmentations_named_are_of_the_settings():
    part = augmentation_of(resolve(({**SMALL, "augment": "none"}, "flag")).settings)
    assert (part.name, part.views, part.cropped, part.mixed) == ("none", True, False, None)

"""Labelling a training split: which views, whose logits, and what is refused."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advkit import data, models
from advkit.artifacts import soft_labels
from advkit.config.resolve import resolve
from advkit.errors import MismatchError, NumericalError, UsageError
from advkit.runtime.reporting import Reporter
from advkit.softlabels.labelling import Labelling, view_table
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from tests.conftest import SEED

CPU = torch.device("cpu")
HERE = {"device": "cpu", "threads": 1}
TEACHER = {"data": "digits", "method": "natural", "width": 8, "epochs": 2, "batch_size": 32,
           "seed": SEED}  # fmt: skip
"""Its logits are compared with those that it gives again: any weights will do."""


class Heard(Reporter):
    """A reporter that remembers."""

    def __init__(self):
        self.notes, self.warnings = [], []

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)


def teach(path, **more):
    """Train a teacher and return its best checkpoint."""
    resolved = resolve(({**TEACHER, **more}, "flag"))
    assert train(resolved, RunFolder(path), device=CPU, threads=1)
    return path / "best.safetensors"


def labelling(checkpoint, images=None, reporter=None, **more):
    model, info = models.load(checkpoint) if not isinstance(checkpoint, tuple) else checkpoint
    images = images or data.load("digits", "train")
    plan = {"views": "all", "dtype": "float32", "top_k": None, "seed": 0, "batch_size": 500}
    return Labelling(model, info, images, **{**plan, **more}, environment=HERE, reporter=reporter)


def label(checkpoint, out, images=None, **more):
    """Write labels and read them back."""
    labelling(checkpoint, images, **more).write(out)
    return soft_labels.read(out)


def only(images, rows):
    """Return some examples of a data set, as a data set."""
    return dataclasses.replace(images, images=images.images[rows], labels=images.labels[rows])


def shifted(images, rows, views, pad):
    """Crop and flip by numpy: float pixels (B, C, H, W)."""
    padded = np.pad(images.images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    high, wide = images.images.shape[2:]
    found = []
    for row, (dy, dx, flip) in zip(rows, views.tolist(), strict=True):
        image = padded[row, :, dy : dy + high, dx : dx + wide]
        found.append(image[..., ::-1] if flip else image)
    return torch.tensor(np.stack(found)).float() / 255


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return teach(tmp_path_factory.mktemp("teacher") / "run")


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_all_views(digits, pad, flip):
    few = dataclasses.replace(only(digits, slice(0, 5)), pad=pad, flip=flip)
    table = view_table(few, "all", 0)
    span = range(2 * pad + 1)
    expected = set(itertools.product(span, span, range(1 + flip)))
    assert (table.shape[0], table.dtype) == (5, torch.uint8)
    for row in table.tolist():
        assert len(row) == len(expected)
        assert {tuple(view) for view in row} == expected


def test_seeded_views(digits):
    images = dataclasses.replace(digits, pad=2, flip=True)
    table = view_table(images, "6", 3)
    assert table.shape == (len(digits.labels), 6, 3)
    assert torch.equal(table, view_table(images, "6", 3))
    assert not torch.equal(table, view_table(images, "6", 4))
    drawn = table.flatten(0, 1).long()
    counts = torch.bincount(drawn @ torch.tensor([10, 2, 1]), minlength=50).double()
    mean = len(drawn) / 50
    assert len(counts) == 50
    # Chi square of 49 degrees of freedom, six standard deviations above its mean.
    assert float(((counts - mean) ** 2 / mean).sum()) < 49 + 6 * np.sqrt(98)


def test_one_view_is_the_plain_image(digits):
    assert view_table(digits, "1", 0) is None


@pytest.mark.parametrize("views", ["0", "-1", "two", "1.5", "", "²"])
def test_views_are_a_count_or_all(digits, views):
    with pytest.raises(UsageError, match="--views"):
        view_table(digits, views, 0)


@pytest.mark.parametrize("views", ["all", "3", "1"])
def test_logits_are_the_teachers_on_the_same_images(teacher, digits, tmp_path, views):
    few = only(digits, slice(100, 140))
    found = label(teacher, tmp_path / "x.h5", few, views=views, batch_size=50)
    model, _ = models.load(teacher)
    for view in range(found.logits.shape[1]):
        plain = torch.tensor([[1, 1, 0]]).expand(40, 3)
        table = plain if found.views is None else found.views[:, view]
        with torch.no_grad():
            z = model(shifted(few, range(40), table, 1))
        expected = z - z.amax(1, keepdim=True)
        np.testing.assert_allclose(found.logits[:, view], expected, atol=1e-5)


def test_flips_are_labelled_too(tmp_path, digits):
    """A made-up teacher whose logits are pixels: exact, and it sees flips and crops of two."""
    few = dataclasses.replace(only(digits, slice(0, 20)), pad=2, flip=True)

    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x.flatten(1)[:, 20:30] * self.scale

    made = (Pixels(), described(digits))
    found = label(made, tmp_path / "x.h5", few, views="all")
    assert found.logits.shape == (20, 50, 10)
    for view in (0, 1, 24, 25, 49):
        z = shifted(few, range(20), found.views[:, view], 2).flatten(1)[:, 20:30]
        assert torch.equal(found.logits[:, view], z - z.amax(1, keepdim=True))


def described(images, accuracy=0.5):
    """Return a teacher's description for a net made here."""
    return {
        "kind": "checkpoint", "digest": "sha256:0", "method": "natural", "arch": "small-cnn",
        "role": "best", "seed": 0, "parents": [], "metrics": {"clean_accuracy": accuracy},
        "config": {},
        "data": {"name": images.name, "classes": list(images.classes)},
    }  # fmt: skip


def test_rows_are_in_order_with_maximum_zero(teacher, digits, tmp_path):
    found = label(teacher, tmp_path / "x.h5")
    n = len(digits.labels)
    assert found.logits.shape == (n, 9, 10)
    assert torch.equal(found.index, torch.arange(n))
    assert torch.equal(found.labels, digits.labels)
    assert bool((found.logits.amax(2) == 0).all())
    hits = (found.logits.argmax(2) == digits.labels[:, None]).double().mean()
    assert found.info["teacher_accuracy"] == pytest.approx(float(hits), abs=1e-12)
    assert [each["kind"] for each in found.info["parents"]] == ["checkpoint", "data"]
    assert found.info["parents"][1]["digest"] == digits.fingerprint


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_the_batch_size_changes_rounding_alone(teacher, digits, tmp_path, size):
    few = only(digits, slice(0, 30))
    whole = label(teacher, tmp_path / "a.h5", few)
    found = label(teacher, tmp_path / "b.h5", few, batch_size=size)
    np.testing.assert_allclose(found.logits, whole.logits, atol=1e-5)
    assert torch.equal(found.views, whole.views)


def test_the_teacher_is_in_eval_mode_and_stays_as_it_was(teacher, tmp_path, digits):
    model, info = models.load(teacher)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    found = label((model, info), tmp_path / "a.h5", only(digits, slice(0, 30)))
    expected = label(teacher, tmp_path / "b.h5", only(digits, slice(0, 30)))
    assert torch.equal(found.logits, expected.logits)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(each.requires_grad for each in model.parameters())


def sure(teacher):
    """Return a teacher with a validation accuracy of 0.9 in its description."""
    model, info = models.load(teacher)
    return model, {**info, "metrics": {**info["metrics"], "clean_accuracy": 0.9}}


def answered(teacher, images, shift):
    """Return the images, labelled by the class that the teacher says, moved by `shift`."""
    model, _ = models.load(teacher)
    with torch.no_grad():
        said = model.eval()(images.images.float() / 255).argmax(1)
    return dataclasses.replace(images, labels=(said + shift) % 10)


def test_a_plausible_teacher_gets_no_warning(teacher, digits, tmp_path):
    heard = Heard()
    work = labelling(sure(teacher), answered(teacher, digits, 0), heard, views="1")
    assert work.write(tmp_path / "x.h5")["teacher_accuracy"] > 0.8  # 1 but for the closest calls
    assert heard.warnings == []


def test_labels_in_another_order_are_suspected(teacher, digits, tmp_path):
    heard = Heard()
    work = labelling(sure(teacher), answered(teacher, digits, 1), heard, views="1")
    accuracy = work.write(tmp_path / "x.h5")["teacher_accuracy"]
    (warning,) = heard.warnings
    assert accuracy < 0.1  # 0 but for the closest calls
    assert f"{accuracy:.3f}" in warning
    assert "another order" in warning


def test_other_classes_are_refused(teacher, digits):
    other = dataclasses.replace(digits, classes=tuple("abcdefghij"))
    with pytest.raises(MismatchError, match="the teacher knows 10 classes of digits"):
        labelling(teacher, other)
    more = dataclasses.replace(digits, classes=(*digits.classes, "10"))
    with pytest.raises(MismatchError, match="11"):
        labelling(teacher, more)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_teacher_that_is_not_finite(teacher, digits, tmp_path, value):
    model, info = models.load(teacher)
    last = [each for each in model.modules() if isinstance(each, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[3] = value
    with pytest.raises(NumericalError, match="not finite"):
        labelling((model, info), only(digits, slice(0, 9))).write(tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"top_k": 0}, "--top-k 0"),
        ({"top_k": 10}, "--top-k 10"),
        ({"dtype": "float64"}, "--dtype float64"),
        ({"views": "some"}, "--views some"),
    ],
)
def test_wrong_usage(teacher, more, what):
    with pytest.raises(UsageError, match=what):
        labelling(teacher, **more)


def test_top_k_keeps_the_largest_and_the_rest(teacher, digits, tmp_path):
    few = only(digits, slice(0, 50))
    full = label(teacher, tmp_path / "a.h5", few)
    found = label(teacher, tmp_path / "b.h5", few, top_k=3)
    z = full.logits.double().numpy()
    order = np.argsort(-z, axis=2, kind="stable")
    np.testing.assert_array_equal(found.logits, -np.sort(-full.logits.numpy(), axis=2)[..., :3])
    assert (found.classes.numpy() == order[..., :3]).mean() > 0.99  # but for exact ties
    gone = np.take_along_axis(z, order[..., 3:], 2)
    np.testing.assert_allclose(found.rest, np.log(np.exp(gone).sum(2)), atol=1e-4)
    p = F.softmax(full.logits, dim=2).gather(2, found.classes.long())
    views = found.logits.shape[1]
    for view in range(views):
        wide = found.at(torch.arange(50), torch.full((50,), view)).softmax(1)
        kept = wide.gather(1, found.classes[:, view].long())
        np.testing.assert_allclose(kept, p[:, view], atol=1e-6)

"""Labels files: exact round trips, parts that survive an interruption, faults refused."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from advkit.artifacts import hdf5, provenance, soft_labels
from advkit.artifacts.soft_labels import Writer, read
from advkit.errors import AdvkitError, InputError, StorageError
from advkit.images.image_set import Images
from advkit.softlabels import labelling
from advkit.softlabels.labelling import Labelling
from tests.described import described
from tests.faults import _child

NAMES = tuple("abcdefg")
FIELDS = ("index", "labels", "logits", "views", "classes", "rest")
N = 30


class Linear(nn.Module):
    """A teacher of seven classes, exact on every batch size, that counts its images."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randint(-8, 9, (9, 7), generator=draw).float())
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return (x.flatten(1) * 255).round() @ self.weight / 64


def images(seed=0, n=N):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 64, (n, 1, 3, 3), generator=draw).to(torch.uint8)
    labels = torch.randint(0, 7, (n,), generator=draw)
    return Images("made", "train", pixels, labels, NAMES, pad=1, flip=True)


INFO = described(
    "checkpoint", digest="sha256:1", data={"name": "made", "classes": list(NAMES)},
    metrics={"clean_accuracy": 0.1, "epoch": 1, "n": 8},
)  # fmt: skip


def work(data=None, teacher=None, **more):
    plan = {"views": "all", "dtype": "float32", "top_k": None, "seed": 0, "batch_size": 64}
    here = {"device": "cpu", "threads": 1}
    return Labelling(
        teacher or Linear(), INFO, data or images(), **{**plan, **more}, environment=here
    )


@pytest.fixture
def path(tmp_path):
    """A small labels file."""
    work(images(n=6), top_k=3, views="2").write(tmp_path / "x.h5")
    return tmp_path / "x.h5"


@pytest.fixture
def parts(monkeypatch):
    """Five rows a part: six parts."""
    monkeypatch.setattr(labelling, "PART_BYTES", 5 * 4 * 7 * 18)


def content(labels):
    values = {name: getattr(labels, name) for name in FIELDS}
    return {name: None if v is None else (v.dtype, v.tolist()) for name, v in values.items()}


def truth(data, views):
    """Return the logits (N, V, C) by numpy."""
    weight = Linear().weight.detach().double().numpy()
    padded = np.pad(data.images.numpy()[:, 0], ((0, 0), (1, 1), (1, 1)))
    rows = []
    for row in range(len(padded)):
        crops = []
        for dy, dx, flip in views[row].tolist():
            crop = padded[row, dy : dy + 3, dx : dx + 3]
            crops.append((crop[:, ::-1] if flip else crop).reshape(-1))
        rows.append(np.stack(crops).astype(np.float64) @ weight / 64)
    z = np.stack(rows)
    return z - z.max(2, keepdims=True)


@pytest.mark.parametrize(("views", "count"), [("1", 1), ("2", 2), ("5", 5), ("all", 18)])
def test_round_trip(tmp_path, views, count):
    data = images()
    described = work(data, views=views).write(tmp_path / "x.h5")
    found = read(tmp_path / "x.h5")
    table = found.views if views != "1" else torch.tensor([1, 1, 0]).expand(N, 1, 3)
    assert (found.views is None) == (views == "1")
    assert found.logits.shape == (N, count, 7)
    np.testing.assert_array_equal(found.logits.double(), truth(data, table))
    assert found.labels.tolist() == data.labels.tolist()
    assert found.index.tolist() == list(range(N))
    assert (found.classes, found.rest, found.class_count) == (None, None, 7)
    assert dict(found.info) == json.loads(json.dumps(described))
    rows, view = torch.tensor([7, 0, 29]), torch.tensor([count - 1, 0, 0])
    assert torch.equal(found.at(rows, view), found.logits[rows, view])


def test_half_precision(tmp_path):
    work(dtype="float16").write(tmp_path / "x.h5")
    found = read(tmp_path / "x.h5")
    assert found.logits.dtype == torch.float16
    expected = truth(images(), found.views).astype(np.float16)
    np.testing.assert_array_equal(found.logits.numpy(), expected)
    assert found.at(torch.tensor([3]), torch.tensor([4])).dtype == torch.float32


def test_half_precision_stays_finite(tmp_path):
    teacher = Linear()
    with torch.no_grad():
        teacher.weight *= 1e5
    work(teacher=teacher, dtype="float16", top_k=2).write(tmp_path / "x.h5")
    found = read(tmp_path / "x.h5")
    assert float(found.logits.min()) == -65504
    assert bool(torch.isfinite(found.rest).all())
    assert bool(torch.isfinite(found.at(torch.arange(N), torch.zeros(N).long())).all())


@pytest.mark.parametrize("views", ["1", "3", "all"])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_top_k_is_exact_where_it_kept(tmp_path, views, k):
    work(views=views, top_k=k).write(tmp_path / "x.h5")
    work(views=views).write(tmp_path / "full.h5")
    found, full = read(tmp_path / "x.h5"), read(tmp_path / "full.h5")
    assert found.logits.shape == found.classes.shape == (*full.logits.shape[:2], k)
    for view in range(full.logits.shape[1]):
        rows = torch.arange(N)
        narrow = found.at(rows, torch.full((N,), view))
        p = softmax(narrow.double().numpy(), axis=1)
        q = softmax(full.logits[:, view].double().numpy(), axis=1)
        kept = found.classes[:, view].long().numpy()
        np.testing.assert_allclose(
            np.take_along_axis(p, kept, 1), np.take_along_axis(q, kept, 1), atol=1e-6
        )
        assert torch.equal(narrow.gather(1, torch.tensor(kept)), found.logits[:, view])
        others = np.ones_like(p, bool)
        np.put_along_axis(others, kept, False, 1)
        spread = p[others].reshape(N, 7 - k)
        np.testing.assert_allclose(spread, np.broadcast_to(spread[:, :1], spread.shape))


def test_every_seventh_truncation_is_rejected(path):
    raw = path.read_bytes()
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"truncated or corrupt|empty file|not a labels file"):
            read(path)


def flips(raw: bytes) -> list[tuple[int, int]]:
    """Random (byte, bit) places, and some of those just before the description."""
    draw, text = random.Random(0), raw.index(b'{"arch"')
    random_places = [(draw.randrange(len(raw)), draw.randrange(8)) for _ in range(150)]
    return random_places + [(text - back, bit) for back in range(1, 33, 2) for bit in range(8)]


def test_a_bit_flip_is_an_error_or_changes_nothing(path):
    """In a child: HDF5's C code can hang, where no Python signal reaches it."""
    raw, whole = path.read_bytes(), read(path)
    places = flips(raw)

    def work(case: int) -> tuple[str, str]:
        damaged = bytearray(raw)
        place, bit = places[case]
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = read(path)
        except AdvkitError as error:
            lines = len(str(error).splitlines())
            return ("refused" if lines == 1 else "unclear"), f"bit {bit} of {place}: {error}"
        same = (content(found), found.info) == (content(whole), whole.info)
        return ("same" if same else "changed"), f"bit {bit} of {place}"

    found = _child.run(range(len(places)), work)
    assert found.violations == []
    assert sum(found.counts.values()) == len(places)
    assert found.counts["refused"] > len(places) // 3


def craft(path, **changes):
    """Write any arrays under a description whose digest is right; None leaves one out."""
    arrays = {
        "/index": np.arange(4),
        "/labels": np.array([0, 1, 2, 6]),
        "/logits": np.zeros((4, 2, 7), np.float32),
        "/views": np.ones((4, 2, 3), np.uint8),
    }
    arrays |= {f"/{name}": array for name, array in changes.items()}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    info = described("labels", data={"name": "made", "classes": list(NAMES)})
    digested = [provenance.Array(n, a.dtype.str, a.shape, a.tobytes()) for n, a in arrays.items()]
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        text = {**info, "digest": provenance.digest(info, digested)}
        hdf5.set_text(file, "advkit", provenance.canonical(text))
    return path


def test_a_crafted_file_of_the_contract_is_read(tmp_path):
    assert read(craft(tmp_path / "x.h5")).logits.shape == (4, 2, 7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 3])
def test_rows_that_are_not_finite_are_named(tmp_path, value, row):
    z = np.zeros((4, 2, 7), np.float32)
    z[row, 1, 2] = value
    with pytest.raises(InputError, match=f"row {row} are not finite"):
        read(craft(tmp_path / "x.h5", logits=z))


@pytest.mark.parametrize("name", ["index", "labels", "logits"])
def test_missing_arrays_are_named(tmp_path, name):
    with pytest.raises(InputError, match=f"lacks /{name}"):
        read(craft(tmp_path / "x.h5", **{name: None}))


KEPT = {"logits": np.zeros((4, 2, 3), np.float32), "classes": np.zeros((4, 2, 3), np.int16)}
IMPOSSIBLE = {
    "rows of index": {"index": np.arange(5)},
    "rows of labels": {"labels": np.zeros(3, np.int64)},
    "type of logits": {"logits": np.zeros((4, 2, 7))},
    "type of views": {"views": np.zeros((4, 2, 3), np.int64)},
    "classes of logits": {"logits": np.zeros((4, 2, 6), np.float32)},
    "rows of views": {"views": np.zeros((3, 2, 3), np.uint8)},
    "count of views": {"views": np.zeros((4, 5, 3), np.uint8)},
    "label": {"labels": np.array([0, 1, 2, 7])},
    "class too high": {
        **KEPT, "rest": np.zeros((4, 2), np.float32), "classes": np.full((4, 2, 3), 7, np.int16)
    },
    "rest is NaN": {**KEPT, "rest": np.full((4, 2), np.nan, np.float32)},
    "rest is missing": KEPT,
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_values_are_input_errors(tmp_path, name):
    with pytest.raises(InputError):
        read(craft(tmp_path / "x.h5", **IMPOSSIBLE[name]))


def test_other_kinds_are_input_errors(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        read(tmp_path / "x.h5")
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "y.h5")


@pytest.mark.parametrize("more", [{}, {"views": "1"}, {"top_k": 2, "dtype": "float16"}])
def test_parts_do_not_show_in_the_file(tmp_path, monkeypatch, more):
    """The same arrays however the work is cut, and the same digest."""
    whole = work(**more).write(tmp_path / "a.h5")
    monkeypatch.setattr(labelling, "PART_BYTES", 7 * 4 * 7 * 18)
    cut = work(**more).write(tmp_path / "b.h5")
    assert cut == whole
    assert content(read(tmp_path / "a.h5")) == content(read(tmp_path / "b.h5"))


def die(monkeypatch, at):
    """Let the `at`-th part (from 0) end in an interruption."""
    original, calls = Writer.add, []

    def add(self, number, arrays, hits):
        if number == at:
            raise KeyboardInterrupt
        calls.append(number)
        original(self, number, arrays, hits)

    monkeypatch.setattr(Writer, "add", add)
    return calls


@pytest.mark.parametrize("at", [0, 1, 3, 5])
@pytest.mark.parametrize("more", [{}, {"top_k": 2}])
def test_interrupted_goes_on_to_the_same_bytes(tmp_path, monkeypatch, parts, at, more):
    work(**more).write(tmp_path / "whole.h5")
    out = tmp_path / "x.h5"
    with monkeypatch.context() as patch:
        finished = die(patch, at)
        with pytest.raises(KeyboardInterrupt):
            work(**more).write(out)
    assert finished == list(range(at))
    assert not out.exists()
    teacher = Linear()
    work(teacher=teacher, **more).write(out)
    assert teacher.seen == (N - 5 * at) * 18
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["whole.h5", "x.h5"]


def test_interrupted_while_joining(tmp_path, monkeypatch, parts):
    work().write(tmp_path / "whole.h5")
    with monkeypatch.context() as patch:
        patch.setattr(soft_labels, "set_text", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            work().write(tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
    teacher = Linear()
    work(teacher=teacher).write(tmp_path / "x.h5")
    assert teacher.seen == 0
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize(
    "other",
    [{"seed": 1, "views": "18"}, {"top_k": 3}, {"dtype": "float16"}, {"data": images(seed=2)}],
    ids=["views", "top k", "dtype", "data"],
)
def test_parts_of_other_work_are_not_used(tmp_path, monkeypatch, parts, other):
    work().write(tmp_path / "whole.h5")
    with monkeypatch.context() as patch:
        die(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            work(**other).write(tmp_path / "x.h5")
    teacher = Linear()
    work(teacher=teacher).write(tmp_path / "x.h5")
    assert teacher.seen == N * 18
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize("damage", ["torn", "flipped", "swapped"])
def test_a_damaged_part_is_made_anew(tmp_path, monkeypatch, parts, damage):
    work().write(tmp_path / "whole.h5")
    with monkeypatch.context() as patch:
        die(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            work().write(tmp_path / "x.h5")
    first, second = (tmp_path / "x.h5.parts" / f"part-0000{n}.safetensors" for n in (1, 2))
    raw = first.read_bytes()
    damaged = {
        "torn": raw[:-9],
        "flipped": raw[:-9] + bytes([raw[-9] ^ 4]) + raw[-8:],
        "swapped": second.read_bytes(),
    }
    first.write_bytes(damaged[damage])
    teacher = Linear()
    work(teacher=teacher).write(tmp_path / "x.h5")
    assert teacher.seen == 15 * 18
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_disk_full_keeps_finished_parts(tmp_path, monkeypatch, parts):
    original, calls = Path.write_bytes, []

    def write_bytes(path, raw):
        calls.append(path)
        if len(calls) == 3:
            original(path, raw[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, raw)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(StorageError, match="disk is full"):
            work().write(tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
    names = sorted(each.name for each in (tmp_path / "x.h5.parts").iterdir())
    assert names == ["part-00000.safetensors", "part-00001.safetensors"]
    teacher = Linear()
    work(teacher=teacher).write(tmp_path / "x.h5")
    assert teacher.seen == 20 * 18


def test_disk_full_while_joining(tmp_path, monkeypatch, parts):
    """The parts stay, nothing stands under the final name, and HDF5 does not crash."""

    class Full(hdf5._Sink):
        def write(self, data, /):
            self.error = OSError(errno.ENOSPC, "No space left on device")
            return memoryview(data).nbytes

    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "_Sink", Full)
        with pytest.raises(StorageError, match="disk is full"):
            work().write(tmp_path / "x.h5")
    assert [each.name for each in tmp_path.iterdir()] == ["x.h5.parts"]
    teacher = Linear()
    work(teacher=teacher).write(tmp_path / "x.h5")
    assert teacher.seen == 0
    assert read(tmp_path / "x.h5").logits.shape == (N, 18, 7)


def test_a_file_in_the_place_of_the_parts(tmp_path):
    (tmp_path / "x.h5.parts").write_text("")
    with pytest.raises(StorageError, match="a file is in"):
        work().write(tmp_path / "x.h5")

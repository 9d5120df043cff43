"""A pickle that does something, in the place of everything that advkit reads: it is never done."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from advkit import data, models, registry
from advkit.analyses.gathering.trained import trained
from advkit.artifacts import analysis, artifact, checkpoint, hdf5, record, soft_labels
from advkit.cli.common import stage
from advkit.cli.common.options import Call
from advkit.config import stored
from advkit.errors import AdvkitError
from advkit.evaluation import merge, partial
from advkit.images import extra
from advkit.training.run_folder import RunFolder
from tests.faults import _formats


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.makedirs, (str(self.mark),)


def objects(mark: Path) -> np.ndarray:
    """Return an array of one Python object."""
    array = np.empty(1, object)
    array[0] = Payload(mark)
    return array


def plain(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def ancient(mark: Path) -> bytes:
    """Protocol 0 is text, which no first bytes tell from other text."""
    return pickle.dumps(Payload(mark), protocol=0)


def archive(mark: Path) -> bytes:
    """Return what `torch.save` writes."""
    raw = io.BytesIO()
    torch.save({"w": Payload(mark)}, raw)
    return raw.getvalue()


def legacy(mark: Path) -> bytes:
    raw = io.BytesIO()
    torch.save({"w": Payload(mark)}, raw, _use_new_zipfile_serialization=False)
    return raw.getvalue()


def npy(mark: Path) -> bytes:
    raw = io.BytesIO()
    np.save(raw, objects(mark), allow_pickle=True)
    return raw.getvalue()


def npz(mark: Path) -> bytes:
    raw = io.BytesIO()
    np.savez(raw, image=objects(mark), label=objects(mark))
    return raw.getvalue()


def line(mark: Path) -> bytes:
    """Return a pickle inside JSON, for what looks at the first character only."""
    return b'{"advkit": ' + ancient(mark) + b"}"


SHAPES = (plain, ancient, archive, legacy, npy, npz, line)
EVERY = pytest.mark.parametrize("shape", SHAPES, ids=lambda each: each.__name__)
PLACES: dict[str, tuple[Callable[[Path, int], None], tuple[str, ...], dict[str, str]]] = {
    kind.name: (kind.make, kind.targets, {}) for kind in _formats.FORMATS
}
PLACES["folder"] = PLACES.pop("folder-png")
PLACES["imagenet"] = (*PLACES["imagenet"][:2], {"image_list": "list.txt"})
PLACES["tinyimagenet"] = (
    PLACES["tinyimagenet"][0],
    (*PLACES["tinyimagenet"][1], *(f"val/images/val_{place}.JPEG" for place in range(4))),
    {},
)
SETS = [part.name for part in registry.parts("data").values() if part.constants.get("FILES", True)]


@EVERY
def test_each_payload_would_act(shape, tmp_path):
    """What is tried below works: the marker appears where somebody does unpickle."""
    raw, mark = shape(tmp_path / "mark"), tmp_path / "mark"
    if shape is archive:
        with zipfile.ZipFile(io.BytesIO(raw)) as inside:
            raw = inside.read(next(name for name in inside.namelist() if name.endswith("data.pkl")))
    if shape in (npy, npz):
        found = np.load(io.BytesIO(raw), allow_pickle=True)
        assert shape is npy or found["image"] is not None
    elif shape is legacy:
        torch.load(io.BytesIO(raw), weights_only=False)
    else:
        pickle.loads(raw[11:-1] if shape is line else raw)
    assert mark.is_dir()


@EVERY
@pytest.mark.parametrize("name", SETS)
def test_no_data_set_unpickles(name, shape, tmp_path):
    """A new data set of files fails here until it says, in `_formats`, what it reads."""
    assert name in PLACES, f"give {name} a Format in tests/faults/_formats.py"
    make, targets, options = PLACES[name]
    root, mark = tmp_path / "root", tmp_path / "mark"
    root.mkdir()
    make(root, 0)
    given = {key: str(root / value) for key, value in options.items()}
    for target in targets:
        before = (root / target).read_bytes()
        (root / target).write_bytes(shape(mark))
        if Path(target).suffix == ".gz":
            import gzip

            (root / target).write_bytes(gzip.compress(shape(mark)))
        for split in ("train", "test"):
            try:
                found = data.load(name, split, root=root, **given)
                found.batch(torch.arange(len(found.labels)))
            except AdvkitError:
                pass
        (root / target).write_bytes(before)
        assert not mark.exists(), target


READERS: dict[str, Callable[[Path], object]] = {
    "artifact": artifact.read_info,
    "artifact of arrays": lambda path: artifact.read(path, ("labels", "logits")),
    "checkpoint": checkpoint.read,
    "model": models.load,
    "state": lambda path: checkpoint.read(path, "state"),
    "trained": trained,
    "labels": soft_labels.read,
    "logits": hdf5.read_logits,
    "claim": lambda path: hdf5.read_claim(path, "labels"),
    "shards": lambda path: merge.logits([path]),
    "partial": lambda path: partial.Partial(path, {}).load(),
    "analysis": analysis.read_info,
    "configuration": stored.read,
    "table": lambda path: _formats.read_oracle(path, ("a", "b")),
    "extra images": lambda path: extra.read(path, data.load("digits", "test")),
    "a record's file": lambda path: artifact.read_info(
        Path(record.wanted(stage.record_of(str(path), record.KINDS), record.KINDS))
    ),
}


@EVERY
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_unpickles(reader, shape, tmp_path):
    for name in ("x.safetensors", "x.h5", "x.json", "x.toml"):
        path, mark = tmp_path / name, tmp_path / "mark"
        path.write_bytes(shape(mark))
        with pytest.raises(AdvkitError) as caught:
            READERS[reader](path)
        assert name in str(caught.value)
        assert not mark.exists()


@EVERY
def test_no_line_on_stdin_is_unpickled(shape, tmp_path, monkeypatch):
    import sys

    mark = tmp_path / "mark"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(shape(mark))))
    for text in stage.sources(Call(), "checkpoint"):
        with pytest.raises(AdvkitError):
            artifact.read_info(Path(stage.record_of(text, record.KINDS)["path"]))
    assert not mark.exists()


@EVERY
def test_no_metrics_are_unpickled(shape, tmp_path):
    RunFolder(tmp_path).metrics_file.write_bytes(shape(tmp_path / "mark"))
    with pytest.raises(AdvkitError, match=r"metrics\.jsonl: corrupt"):
        RunFolder(tmp_path).rows()
    assert not (tmp_path / "mark").exists()


def test_objects_in_a_matlab_file_or_an_hdf5_attribute_stay_what_they_are(tmp_path):
    mark = tmp_path / "mark"
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": plain(mark), "y": np.array([[1]])})
    with pytest.raises(AdvkitError, match="X is no array of real numbers"):
        data.load("svhn", "test", root=tmp_path)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["advkit"] = np.void(plain(mark))
        file["index"] = np.void(plain(mark))
    for read in (artifact.read_info, soft_labels.read, hdf5.read_logits, analysis.read_info):
        with pytest.raises(AdvkitError, match=r"x\.h5"):
            read(tmp_path / "x.h5")
    assert not mark.exists()


def test_damaged_batches_of_cifar_are_not_unpickled_though_whole_ones_are(tmp_path, monkeypatch):
    """The one exception: what has the published checksum; one byte more and it is refused."""
    from torchvision.datasets import CIFAR10

    for name in ("train_list", "test_list", "meta"):
        monkeypatch.setattr(CIFAR10, name, getattr(CIFAR10, name))  # put back afterwards
    kind = next(each for each in _formats.FORMATS if each.name == "cifar10")
    kind.make(tmp_path, 0)
    kind.prepare()
    assert len(data.load("cifar10", "test", root=tmp_path).labels) == 2
    path, mark = tmp_path / "cifar-10-batches-py" / "test_batch", tmp_path / "mark"
    path.write_bytes(plain(mark))
    with pytest.raises(AdvkitError, match="no intact CIFAR-10"):
        data.load("cifar10", "test", root=tmp_path)
    assert not mark.exists()

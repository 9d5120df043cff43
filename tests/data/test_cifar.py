"""CIFAR-10 and CIFAR-100 on small files in the published format, with their own checksums."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from advkit import data
from advkit.errors import InputError

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Kind:
    """How one of the two is published, and what is published of it."""

    name: str
    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names_key: str
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def torchvision(self):
        from torchvision import datasets

        return getattr(datasets, self.name.upper())


TEN = Kind(
    "cifar10", "CIFAR-10", "cifar-10-batches-py",
    tuple(f"data_batch_{place}" for place in range(1, 6)), "test_batch", "batches.meta",
    "labels", "label_names",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
)  # fmt: skip
HUNDRED = Kind(
    "cifar100", "CIFAR-100", "cifar-100-python", ("train",), "test", "meta",
    "fine_labels", "fine_label_names", tuple(f"fine {place}" for place in range(100)),
    (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
)  # fmt: skip
BOTH = pytest.mark.parametrize("kind", [TEN, HUNDRED], ids=lambda kind: kind.name)


def dumped(content: object, path: Path) -> str:
    raw = pickle.dumps(content, protocol=2)
    path.write_bytes(raw)
    return hashlib.md5(raw).hexdigest()


def write(kind: Kind, root: Path, monkeypatch) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write small batches whose checksums torchvision takes for the published ones."""
    folder, content, sums = root / kind.folder, {}, {}
    folder.mkdir(parents=True)
    for name in (*kind.train, kind.test):
        rows = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
        labels = RNG.integers(0, len(kind.names), 2).tolist()
        content[name] = rows, labels
        coarse = {"coarse_labels": [0, 1]} if kind is HUNDRED else {}
        sums[name] = dumped({"data": rows, kind.labels: labels, **coarse}, folder / name)
    meta = {kind.names_key: list(kind.names), "coarse_label_names": ["a", "b"]}
    known = {**kind.torchvision.meta, "md5": dumped(meta, folder / kind.meta)}
    listed = {name: [name, sums[name]] for name in content}
    monkeypatch.setattr(kind.torchvision, "train_list", [listed[name] for name in kind.train])
    monkeypatch.setattr(kind.torchvision, "test_list", [listed[kind.test]])
    monkeypatch.setattr(kind.torchvision, "meta", known)
    return content


@BOTH
@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_are_read_exactly(kind, split, tmp_path, monkeypatch):
    content = write(kind, tmp_path, monkeypatch)
    found = data.load(kind.name, split, root=tmp_path)
    chosen = [content[name] for name in (kind.train if split == "train" else [kind.test])]
    rows = np.concatenate([rows for rows, _ in chosen]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(found.images.numpy(), rows)
    assert found.labels.tolist() == [label for _, labels in chosen for label in labels]
    assert found.classes == kind.names
    assert (found.name, found.split) == (kind.name, split)
    assert (found.pad, found.flip) == (4, True)
    # the published statistics of the training images
    assert found.normalisation[0] == pytest.approx(kind.mean)
    assert found.normalisation[1] == pytest.approx(kind.std, abs=2e-4)


@BOTH
@pytest.mark.parametrize("which", ["train", "test", "meta"])
def test_a_changed_or_missing_batch_is_never_unpickled(kind, which, tmp_path, monkeypatch):
    write(kind, tmp_path, monkeypatch)
    name = {"train": kind.train[-1], "test": kind.test, "meta": kind.meta}[which]
    sentinel, path = tmp_path / "executed", tmp_path / kind.folder / name

    class Payload:
        def __reduce__(self):
            return sentinel.touch, ()

    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match=rf"no intact {kind.title} \({kind.folder}\)"):
        data.load(kind.name, "train", root=tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=f"run `advkit data fetch {kind.name}`"):
        data.load(kind.name, "train", root=tmp_path)
    assert not sentinel.exists()


@BOTH
def test_without_files_it_says_how_to_get_them(kind, tmp_path):
    with pytest.raises(
        InputError, match=f"give --data-root, or run `advkit data fetch {kind.name}"
    ):
        data.load(kind.name, "test", root=tmp_path)


@BOTH
def test_fetch_unpacks_the_published_archive_under_the_root(kind, cli, tmp_path, monkeypatch):
    from torchvision.datasets import cifar

    called = []

    def unpack(url: str, root: str, filename: str, md5: str) -> None:
        called.append((url.rsplit("/", 1)[1], Path(root), len(md5)))
        write(kind, Path(root), monkeypatch)

    monkeypatch.setattr(cifar, "download_and_extract_archive", unpack)
    outcome = cli("data", "fetch", kind.name, "--data-root", tmp_path / "new")
    assert (outcome.code, outcome.out.strip()) == (0, str(tmp_path / "new"))
    archive = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
    assert called == [(archive[kind.name], tmp_path / "new", 32)]
    outcome = cli("data", "info", kind.name, "--data-root", tmp_path / "new")
    assert outcome.code == 0
    train, test = outcome.records
    assert (train["split"], test["split"]) == ("train", "test")
    assert train["classes"] == test["classes"] == len(kind.names)
    assert train["mean"] == list(kind.mean)

"""Merging made-up shards: every row back in its place, figures from counts, misfits refused."""

import copy

import numpy as np
import pytest
import torch

from advkit.artifacts import hdf5
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError
from advkit.evaluation import merge
from tests.described import described

N, CLASSES = 7, 3
INFO = described("logits", CLASSES, zero_gradient=2 / 7)
INFO["config"]["eps"] = "0.1"
FIELDS = ("index", "labels", "clean", "adversarial", "norm", "broken_by", "images")
FLAT = (1, 4)
"""Rows whose gradient is zero."""


def whole():
    rng = torch.Generator().manual_seed(0)
    return Logits(
        index=torch.arange(N) * 3,
        labels=torch.randint(0, CLASSES, (N,), generator=rng),
        clean=torch.randn(N, CLASSES, generator=rng),
        adversarial=torch.randn(N, CLASSES, generator=rng),
        norm=torch.rand(N, generator=rng),
        broken_by=torch.tensor([0, -1, -2, 0, -1, -1, 0], dtype=torch.int8),
        images=torch.rand(N, 1, 2, 2, generator=rng),
        info=INFO,
    )


def shard(folder, number, count=3, change=None, drop=()):
    """Write one shard by picking its rows one by one."""
    rows = [row for row in range(N) if row % count == number - 1]
    made = whole()
    info = copy.deepcopy(INFO)
    info["config"]["shard"] = [number, count]
    info["zero_gradient"] = sum(row in FLAT for row in rows) / len(rows)
    if change:
        change(info)
    tensors = {name: getattr(made, name)[rows] for name in FIELDS if name not in drop}
    path = folder / f"{number}-{count}.h5"
    hdf5.write_logits(path, Logits(**tensors, info=info))
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_row_comes_back(tmp_path, count):
    paths = [shard(tmp_path, number, count) for number in range(1, count + 1)]
    found, expected = merge.logits(paths[::-1]), whole()
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert found.info == INFO
    assert hdf5.write_logits(tmp_path / "a", found) == hdf5.write_logits(tmp_path / "b", expected)


def test_without_an_attack(tmp_path):
    gone = ("adversarial", "norm", "broken_by", "images")

    def plain(info):
        info["zero_gradient"] = None

    paths = [shard(tmp_path, number, change=plain, drop=gone) for number in (1, 2, 3)]
    found = merge.logits(paths)
    assert torch.equal(found.clean, whole().clean)
    assert [getattr(found, name) for name in gone] == [None] * 4
    assert found.info["zero_gradient"] is None


def test_environments_that_differ(tmp_path):
    def elsewhere(info):
        info["environment"] = {"device": "cuda", "threads": 1}

    paths = [shard(tmp_path, n, change=elsewhere if n == 2 else None) for n in (1, 2, 3)]
    assert merge.logits(paths).info["environment"] == {"device": ["cpu", "cuda"], "threads": 1}


def test_environments_of_which_one_says_less(tmp_path):
    def silent(info):
        info["environment"] = {"threads": [1, 2]}

    paths = [shard(tmp_path, n, change=silent if n == 2 else None) for n in (1, 2, 3)]
    assert merge.logits(paths).info["environment"] == {"device": "cpu", "threads": [1, 2]}


def test_a_share_that_one_shard_does_not_know(tmp_path):
    paths = [shard(tmp_path, n, change=lambda info: info.update(zero_gradient=None))
             if n == 2 else shard(tmp_path, n) for n in (1, 2, 3)]  # fmt: skip
    assert merge.logits(paths).info["zero_gradient"] is None


def test_an_example_in_two_shards(tmp_path):
    first, second = (shard(tmp_path, number, 2) for number in (1, 2))
    there = hdf5.read_logits(second)
    there.index[0] = 0
    hdf5.write_logits(second, there)
    with pytest.raises(MismatchError, match="same example"):
        merge.logits([first, second])


def test_a_shard_of_the_wrong_size(tmp_path):
    paths = [shard(tmp_path, number) for number in (1, 2, 3)]
    there = hdf5.read_logits(paths[1])
    cut = {name: getattr(there, name)[:1] for name in FIELDS}
    hdf5.write_logits(paths[1], Logits(**cut, info=there.info))
    with pytest.raises(MismatchError, match="holds"):
        merge.logits(paths)


CHANGES = {
    "eps: 0.1 -> 0.2": lambda info: info["config"].update(eps="0.2"),
    "checkpoint: sha256:net -> sha256:1": lambda info: info["parents"][0].update(digest="sha256:1"),
    "data digest: sha256:data -> e": lambda info: info["parents"][1].update(digest="e"),
    "versions": lambda info: info["versions"].update(advkit="y"),
    "attacks": lambda info: info.update(attacks=["fgsm"]),
    "shards: 3 -> 4": lambda info: info["config"].update(shard=[2, 4]),
    "implementation": lambda info: info.update(implementation="other"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_shard_of_other_work(tmp_path, what):
    paths = [shard(tmp_path, n, change=CHANGES[what] if n == 2 else None) for n in (1, 2, 3)]
    with pytest.raises(MismatchError, match=what) as found:
        merge.logits(paths)
    assert str(paths[1]) in str(found.value)


def test_missing_twice_and_whole(tmp_path):
    one, two, three = (shard(tmp_path, number) for number in (1, 2, 3))
    with pytest.raises(MismatchError, match="missing: 1/3, 3/3"):
        merge.logits([two])
    with pytest.raises(MismatchError, match=f"shard 2/3 is there twice: {two} and {two}"):
        merge.logits([one, two, two, three])
    complete = tmp_path / "whole.h5"
    hdf5.write_logits(complete, whole())
    for paths in ([one, two, three, complete], [complete, one]):
        with pytest.raises(MismatchError, match=r"whole\.h5 is no shard"):
            merge.logits(paths)


def test_a_flipped_bit_is_seen(tmp_path):
    paths = [shard(tmp_path, number) for number in (1, 2, 3)]
    raw = bytearray(paths[2].read_bytes())
    value = np.float32(whole().clean[2, 0]).tobytes()
    raw[raw.index(value)] ^= 1
    paths[2].write_bytes(raw)
    with pytest.raises(InputError, match="corrupt"):
        merge.logits(paths)

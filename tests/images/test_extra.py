"""Extra images of several files, read where they lie; written by NumPy, orders by hand."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit.errors import InputError, MismatchError
from advkit.images import extra, npz, stored
from advkit.images.image_set import Images
from advkit.runtime import reading

RNG = np.random.default_rng(0)


def base(side: int = 4, channels: int = 3, classes: int = 3) -> Images:
    pixels = torch.zeros(2, channels, side, side, dtype=torch.uint8)
    names = tuple(map(str, range(classes)))
    return Images("x", "train", pixels, torch.tensor([0, 1]), names, 2, True)


def arrays(count: int) -> dict[str, np.ndarray]:
    image = RNG.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return {"image": image, "label": np.arange(count) % 3}


def folder(top: Path, content: dict[str, np.ndarray]) -> Path:
    top.mkdir()
    for name, array in content.items():
        np.save(top / f"{name}.npy", array)
    return top


def hashed(*raw: bytes) -> str:
    """The digest of one file, or of the list of several files' digests."""
    digests = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in raw]
    if len(digests) == 1:
        return digests[0]
    return f"sha256:{hashlib.sha256(chr(10).join(digests).encode()).hexdigest()}"


@pytest.fixture
def parts(tmp_path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """A stored npz, a compressed one and a folder, of 5, 4 and 3 images; all in their order."""
    content = [arrays(5), arrays(4), arrays(3)]
    np.savez(tmp_path / "b.npz", **content[0])
    np.savez_compressed(tmp_path / "a.npz", **content[1])
    paths = [tmp_path / "b.npz", tmp_path / "a.npz", folder(tmp_path / "c", content[2])]
    image = np.concatenate([one["image"] for one in content])
    return paths, image, np.concatenate([one["label"] for one in content])


def test_parts_are_one_set_in_the_order_given(parts):
    paths, image, label = parts
    found = extra.read(",".join(map(str, paths)), base())
    assert found.sizes == (5, 4, 3)
    assert found.labels.tolist() == label.tolist()
    for index in ([0, 11, 4, 5, 8, 9, 4], [6], list(range(12))[::-1]):
        batch = found.batch(torch.tensor(index))
        assert batch.is_contiguous()
        np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), image[index])


def test_a_pattern_gives_files_in_the_order_of_their_names(parts):
    (b, a, _), image, _ = parts
    found = extra.read(b.parent / "*.npz", base())
    assert extra.files(b.parent / "*.npz") == [a, b]
    wanted = np.concatenate([image[5:9], image[:5]])
    got = found.batch(torch.arange(9)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(got, wanted)


def test_a_path_with_a_comma_that_is_there_is_one_path(tmp_path):
    path = tmp_path / "a,b[1].npz"
    np.savez(path, **arrays(3))
    assert extra.files(path) == [path]
    assert len(extra.read(str(path), base()).labels) == 3


@pytest.mark.parametrize(("word", "what"), [("*.bin", "no file fits"), ("b.npz,./b.npz", "twice")])
def test_patterns_without_files_and_files_named_twice_are_refused(
    parts, monkeypatch, tmp_path, word, what
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=what):
        extra.files(word)


def test_one_files_identity_is_its_digest_and_that_of_several_their_list(parts):
    b, a, c = parts[0]
    pair = hashed((c / "image.npy").read_bytes(), (c / "label.npy").read_bytes())
    assert extra.digest(b) == hashed(b.read_bytes())
    assert extra.digest(c) == pair
    digests = [hashed(b.read_bytes()), hashed(a.read_bytes()), pair]
    wanted = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert extra.digest(f"{b},{a},{c}") == f"sha256:{wanted}"
    assert extra.digest(f"{a},{b},{c}") != extra.digest(f"{b},{a},{c}")


def test_uncompressed_files_stay_where_they_are(parts):
    b, a, c = parts[0]
    sources = extra.read(f"{b},{a},{c}", base()).sources
    assert [type(source) for source in sources] == [stored.Stored, extra.Whole, stored.Stored]
    again = pickle.loads(pickle.dumps(sources[0]))
    assert torch.equal(again.batch(torch.tensor([3])), sources[0].batch(torch.tensor([3])))


@pytest.mark.parametrize("first", [True, False])
def test_channels_first_and_arrays_by_columns(tmp_path, first):
    image = RNG.integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    kept = image if first else np.asfortranarray(image)
    np.savez(tmp_path / "x.npz", label=np.zeros(6, np.uint8), image=kept)
    found = extra.read(tmp_path / "x.npz", base())
    assert isinstance(found.sources[0], stored.Stored if first else extra.Whole)
    np.testing.assert_array_equal(found.batch(torch.tensor([5, 0])).numpy(), image[[5, 0]])


def test_a_changed_byte_of_a_stored_archive_is_seen(tmp_path):
    np.savez(tmp_path / "x.npz", **arrays(5))
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    where = extra.read(tmp_path / "x.npz", base()).sources[0].offset
    raw[where + 7] ^= 1
    (tmp_path / "x.npz").write_bytes(raw)
    with pytest.raises(InputError, match="not a readable npz file: Bad CRC-32"):
        extra.read(tmp_path / "x.npz", base())


@pytest.mark.parametrize("how", ["cut", "written", "replaced", "removed"])
def test_a_file_that_changes_in_use_is_one_line_and_no_signal(tmp_path, how):
    top = folder(tmp_path / "d", arrays(5))
    found = extra.read(top, base())
    found.batch(torch.tensor([4]))
    path = top / "image.npy"
    raw = path.read_bytes()
    if how == "cut":
        os.truncate(path, 200)
    elif how == "written":
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        os.utime(path, ns=(0, 0))  # whatever the file system's clock can tell apart
    else:
        path.unlink()
    if how == "replaced":
        (top / "n.npy").write_bytes(raw)
        (top / "n.npy").rename(path)
        os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=r"image\.npy: (changed since|cannot be read)"):
        found.batch(torch.tensor([4]))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"image": np.zeros((3, 4, 4, 3))}, "image is float64"),
        ({"image": np.zeros((0, 4, 4, 3), np.uint8), "label": np.zeros(0, int)}, "holds no image"),
        ({"label": np.array([0, 1])}, "3 images but 2 labels"),
        ({"label": np.array([0, -1, 2])}, "label -1 of example 1"),
        ({"label": np.array([None, 1, 2])}, "never unpickled"),
        ({"image": np.asfortranarray(arrays(3)["image"])}, "stored by columns"),
    ],
)
def test_other_arrays_in_a_folder_are_refused(tmp_path, change, what):
    folder(tmp_path / "d", {**arrays(3), **change})
    with pytest.raises(InputError, match=what):
        extra.read(tmp_path / "d", base())


@pytest.mark.parametrize("name", ["image.npy", "label.npy"])
def test_what_a_folder_lacks_or_breaks_is_named(tmp_path, name):
    top = folder(tmp_path / "d", arrays(3))
    raw = (top / name).read_bytes()
    for bad in (raw[:-1], raw[:40], b"", b"<html>", raw + b"x"):
        (top / name).write_bytes(bad)
        with pytest.raises(InputError, match=name.removesuffix(".npy")):
            extra.read(top, base())
    (top / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file"):
        extra.digest(top)


def test_each_file_must_fit(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(3))
    np.savez(tmp_path / "b.npz", **{**arrays(3), "label": np.array([0, 1, 3])})
    with pytest.raises(MismatchError, match=r"b\.npz: label 3, x has 3 classes"):
        extra.read(tmp_path / "*.npz", base())
    with pytest.raises(MismatchError, match=r"a\.npz: images of \(3, 4, 4\)"):
        extra.read(tmp_path / "a.npz", base(side=5))


def test_compressed_files_must_fit_in_memory_together(tmp_path, monkeypatch):
    for name in "ab":
        np.savez_compressed(tmp_path / f"{name}.npz", **arrays(50))
    size = 50 * 48
    monkeypatch.setattr(reading, "memory", lambda: 2 * size - 1)
    assert len(extra.read(tmp_path / "a.npz", base()).labels) == 50
    with pytest.raises(InputError, match=rf"b\.npz: is compressed and would need {2 * size} .*unz"):
        extra.read(tmp_path / "*.npz", base())
    np.savez(tmp_path / "b.npz", **arrays(50))
    assert len(extra.read(tmp_path / "*.npz", base()).labels) == 100


COUNT = 750_000
"""Images of 3,072 bytes: 2.15 GiB."""


def sparse(path: Path) -> Path:
    """Write a file of over 2 GiB that takes no room on the disk but its ends."""
    path.mkdir()
    shape = (COUNT, 32, 32, 3)
    with (path / "image.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        start = file.tell()
        file.truncate(start + COUNT * 3072)
        for place, value in ((0, 7), (COUNT - 1, 9), (COUNT // 2, 8)):
            file.seek(start + place * 3072)
            file.write(bytes([value]) * 3072)
    np.save(path / "label.npy", np.zeros(COUNT, np.uint8))
    return path


def test_over_two_gibibytes_are_read_by_rows(tmp_path):
    from advkit.runtime import memory

    top = sparse(tmp_path / "d")
    assert (top / "image.npy").stat().st_size > 2**31
    memory.reset_peak()
    before = memory.peak()
    found = extra.read(top, base(side=32))
    batch = found.batch(torch.tensor([COUNT - 1, 0, COUNT // 2, 1]))
    assert batch[:, 0, 0, 0].tolist() == [9, 7, 8, 0]
    for first in range(0, COUNT, 50_000):  # from all over the file
        found.batch(torch.arange(first, first + 100))
    if before is not None:  # labels are 6 MB as int64
        assert memory.peak() - before < 100 << 20


def test_the_members_of_an_archive_may_come_in_any_order_and_with_comments(tmp_path):
    content = arrays(4)
    top = folder(tmp_path / "d", content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        info = zipfile.ZipInfo("image.npy")
        info.extra = b"\x99\x99\x04\x00abcd"  # a field that no reader knows
        archive.write(top / "label.npy", "label.npy")
        archive.writestr(info, (top / "image.npy").read_bytes())
    found = extra.read(tmp_path / "x.npz", base())
    got = found.batch(torch.arange(4)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(got, content["image"])
    assert torch.equal(npz.read(tmp_path / "x.npz")[0], found.batch(torch.arange(4)))

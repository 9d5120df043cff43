"""SVHN on files that scipy.io.savemat wrote, and MATLAB's own files against scipy.io.loadmat."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from advkit import data
from advkit.data import _mat
from advkit.errors import InputError

RNG = np.random.default_rng(0)
DIGITS = [[10], [1], [9], [5], [10]]
"""y of five images: 10 is the digit 0."""


def pixels(count: int = 5) -> np.ndarray:
    return RNG.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)


def write(root: Path, split: str = "train", *, packed: bool = True, **changes: object) -> Path:
    """Write X and y, or what is put in their place (None: nothing)."""
    content = {"X": pixels(), "y": np.array(DIGITS, np.uint8), **changes}
    path = root / f"{split}_32x32.mat"
    kept = {name: value for name, value in content.items() if value is not None}
    scipy.io.savemat(path, kept, do_compression=packed)
    return path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", [np.uint8, np.float64, np.int16])
def test_images_and_labels_are_read_exactly(tmp_path, packed, split, kind):
    x = pixels()
    write(tmp_path, split, packed=packed, X=x, y=np.array(DIGITS, kind), comment="of no concern")
    found = data.load("svhn", split, root=tmp_path)
    assert found.images.is_contiguous()
    for place in range(5):
        for channel in range(3):
            expected = x[:, :, channel, place]
            np.testing.assert_array_equal(found.images[place, channel].numpy(), expected)
    assert found.labels.tolist() == [0, 1, 9, 5, 0]
    assert found.labels.dtype == torch.int64
    assert found.classes == tuple("0123456789")
    assert (found.name, found.split, found.pad, found.flip) == ("svhn", split, 4, False)
    assert found.normalisation == ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def test_a_missing_file_says_how_to_get_it(tmp_path):
    write(tmp_path, "train")
    with pytest.raises(InputError, match=r"no test_32x32\.mat there: .*`advkit data fetch svhn`"):
        data.load("svhn", "test", root=tmp_path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"X": None}, "holds no array 'X': X and y are needed"),
        ({"y": None}, "holds no array 'y': X and y are needed"),
        ({"X": pixels().transpose(3, 0, 1, 2)}, r"X is uint8 \(5, 32, 32, 3\), not uint8 \(32"),
        ({"X": pixels()[:31]}, r"X is uint8 \(31, 32, 3, 5\)"),
        ({"X": pixels()[..., 0]}, r"X is uint8 \(32, 32, 3\)"),
        ({"X": pixels() / 255}, r"X is float64 \(32, 32, 3, 5\)"),
        ({"X": pixels() + 1j}, "X is no array of real numbers"),
        ({"X": "text"}, "X is no array of real numbers"),
        ({"y": np.array([[{}]], object)}, "y is no array of real numbers"),
        ({"y": np.array(DIGITS).T}, r"y is \(1, 5\), not \(N, 1\)"),
        ({"y": np.array(DIGITS[:3])}, "5 images but 3 labels"),
        ({"y": np.array([[1], [2], [11], [3], [12]])}, r"label 11 of example 2 is not in 1\.\.10"),
        ({"y": np.array([[1], [2], [3], [-1], [4]])}, r"label -1 of example 3 is not"),
        ({"y": np.array([[1], [1.5], [3], [1], [4]])}, r"label 1\.5 of example 1 is not"),
        ({"y": np.array([[1], [np.nan], [3], [1], [4]])}, "label nan of example 1 is not"),
        ({"X": pixels(0), "y": np.zeros((0, 1))}, "the train split is empty"),
    ],
)
def test_other_content_is_an_input_error(tmp_path, changes, what):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=what):
        data.load("svhn", "train", root=tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_every_truncation_is_an_input_error(tmp_path, packed):
    path = write(tmp_path, packed=packed)
    raw = path.read_bytes()
    for length in [
        *range(300),
        *range(300, len(raw) - 300, 997),
        *range(len(raw) - 300, len(raw)),
    ]:
        path.write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"train_32x32\.mat: (not a readable|holds no array)"):
            data.load("svhn", "train", root=tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_a_wrong_byte_never_ends_in_another_error(tmp_path, packed):
    path = write(tmp_path, packed=packed, X=pixels(1), y=[[7]])
    raw = path.read_bytes()
    refused = 0
    for place in [*range(124, 260), *range(len(raw) - 100, len(raw))]:
        changed = bytearray(raw)
        changed[place] ^= 0x0A  # among others: complex numbers, element types that there are not
        path.write_bytes(changed)
        try:
            data.load("svhn", "train", root=tmp_path)
        except InputError:
            refused += 1
    assert refused > (200 if packed else 50)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>" * 20, b"MATLAB 7.3" + bytes(200)]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "train_32x32.mat").write_bytes(content)
    with pytest.raises(InputError, match="not a readable MATLAB 5 file: its header names"):
        data.load("svhn", "train", root=tmp_path)


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def test_a_file_that_declares_more_than_it_holds_allocates_nothing(tmp_path):
    flags, dims = struct.pack("<II", 9, 0), struct.pack("<4i", 32, 32, 3, 10**6)
    head = element(6, flags) + element(5, dims) + element(1, b"X")
    head += struct.pack("<II", 2, 32 * 32 * 3 * 10**6)  # 3 GB are announced
    variable = zlib.compress(struct.pack("<II", 14, 2**32 - 1) + head)
    header = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(header + struct.pack("<II", 15, len(variable)) + variable)
    with pytest.raises(InputError, match="an element of 3072000000 bytes where 268435456 are"):
        data.load("svhn", "train", root=tmp_path)


MATLABS = Path(scipy.io.matlab.__file__).parent / "tests" / "data"


@pytest.mark.skipif(not MATLABS.is_dir(), reason="scipy was installed without its tests")
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("testdouble_7.4_GLNX86.mat", "testdouble"),
        ("testmatrix_7.1_GLNX86.mat", "testmatrix"),
        ("test3dmatrix_7.4_GLNX86.mat", "test3dmatrix"),
        ("test3dmatrix_6.5.1_GLNX86.mat", "test3dmatrix"),
        ("testminus_6.5.1_GLNX86.mat", "testminus"),
        ("testmulti_7.4_GLNX86.mat", "theta"),
    ],
)
def test_files_that_matlab_wrote_are_read_as_scipy_reads_them(file, name):
    expected = scipy.io.loadmat(MATLABS / file)[name]
    found = _mat.read(MATLABS / file, (name,))[name]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_fetch_gets_both_files_and_torchvision_reads_the_same(cli, tmp_path, monkeypatch):
    from torchvision.datasets import SVHN, svhn

    source = tmp_path / "source"
    source.mkdir()
    listed = {}
    for split in ("train", "test"):
        raw = write(source, split).read_bytes()
        name = f"{split}_32x32.mat"
        listed[split] = [f"http://x/{name}", name, hashlib.md5(raw).hexdigest()]

    def copied(url: str, root: str, filename: str, md5: str) -> None:
        (Path(root) / filename).write_bytes((source / filename).read_bytes())

    monkeypatch.setattr(SVHN, "split_list", listed)
    monkeypatch.setattr(svhn, "download_url", copied)
    outcome = cli("data", "fetch", "svhn", "--data-root", tmp_path / "new")
    assert (outcome.code, outcome.out.strip()) == (0, str(tmp_path / "new"))
    for split in ("train", "test"):
        found, theirs = (
            data.load("svhn", split, root=tmp_path / "new"),
            SVHN(tmp_path / "new", split),
        )
        np.testing.assert_array_equal(found.images.numpy(), theirs.data)
        np.testing.assert_array_equal(found.labels.numpy(), theirs.labels)

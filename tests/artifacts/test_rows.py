"""Arrays that stay in their files: the same rows as in memory, a piece at a time."""

import math

import h5py
import pytest
import torch

from advkit.artifacts import artifact, hdf5, rows, soft_labels
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import Stored
from advkit.errors import InputError
from tests.described import described

N = 53


@pytest.fixture
def z():
    return torch.randn(N, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path, z):
    found = tmp_path / "it.h5"
    info = described("logits", 5)
    hdf5.write_logits(found, Logits(torch.arange(N), torch.arange(N) % 5, z, info))
    return found


@pytest.fixture(params=[1, 7, 1 << 14])
def stored(path, monkeypatch, request):
    monkeypatch.setattr(rows, "PIECE", request.param)
    found = hdf5.read_logits(path, stay=True).clean
    assert isinstance(found, Stored)
    return found


def test_it_gives_what_a_tensor_gives(stored, z):
    generator = torch.Generator().manual_seed(1)
    some = torch.randperm(N, generator=generator)[:20]
    for wanted in (slice(None), slice(3, 9), slice(50, 99), some, some.sort().values, z[:, 0] > 0):
        assert torch.equal(stored[wanted], z[wanted])
    assert torch.equal(stored[torch.tensor([4, 4, 0])], z[[4, 4, 0]])
    assert len(stored[torch.zeros(N, dtype=torch.bool)]) == 0
    assert (tuple(stored.shape), stored.dtype, len(stored)) == ((N, 5), torch.float32, N)


def test_the_dimension_of_one_view(stored, z):
    assert torch.equal(stored.apart()[slice(5)], z[:5, None])
    assert torch.equal(stored.apart()[torch.tensor([8, 2])], z[[8, 2]][:, None])


def test_piecewise_goes_through_everything(stored, z):
    seen = []
    found = rows.piecewise(lambda a, b: seen.append(len(a)) or (a + b).sum(1), stored, z)
    assert torch.equal(found, (2 * z).sum(1))
    step = min(rows.PIECE, N)
    assert seen == [step] * (N // step) + [N % step] * (N % step > 0)
    assert torch.equal(rows.argmax(stored), z.argmax(1))
    assert torch.equal(rows.loaded(stored), z)
    assert rows.loaded(z) is z


def test_pieces_of_wide_rows_are_short(monkeypatch):
    monkeypatch.setattr(rows, "PIECE_BYTES", 1000)
    assert rows.height(torch.zeros(9, 2, 25)) == 5
    assert rows.height(torch.zeros(9, 1000, dtype=torch.float64)) == 1
    pieces = list(rows.pieces(torch.zeros(9, 50), torch.zeros(9)))
    assert [len(each) for each, _ in pieces] == [5, 4]


def test_a_file_that_changes_between_looks(path, z):
    stored = hdf5.read_logits(path, stay=True).clean
    info = described("logits", 5)
    hdf5.write_logits(path, Logits(torch.arange(N), torch.arange(N) % 5, z + 1, info))
    with pytest.raises(InputError, match=f"{path}: it changed while it was read"):
        stored[:4]


def test_a_file_that_is_gone(path):
    stored = hdf5.read_logits(path, stay=True).clean
    path.unlink()
    with pytest.raises(InputError, match=str(path)):
        stored[:4]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_impossible_values_are_found_in_every_piece(tmp_path, z, monkeypatch, value):
    z[41, 2] = value
    path = tmp_path / "bad.h5"
    info = described("logits", 5)
    hdf5.write_logits(path, Logits(torch.arange(N), torch.arange(N) % 5, z, info))
    for piece in (1, 8, 1 << 14):
        monkeypatch.setattr(rows, "PIECE", piece)
        for stay in (False, True):
            with pytest.raises(InputError, match=r"NaN or infinity \(example 41\)"):
                hdf5.read_logits(path, stay=stay)


def test_a_damaged_piece_is_seen_before_anything_is_given(path):
    with h5py.File(path, "r") as file:
        offset = file["/clean/logits"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="corrupt"):
        hdf5.read_logits(path, stay=True)


@pytest.mark.parametrize("views", [None, 3])
@pytest.mark.parametrize("short", [False, True])
def test_labels_by_the_piece_are_those_in_memory(tmp_path, views, short):
    generator = torch.Generator().manual_seed(2)
    shape = (N,) if views is None else (N, views)
    width = 3 if short else 5
    arrays = {
        "/index": torch.arange(N).numpy(),
        "/labels": (torch.arange(N) % 5).numpy(),
        "/logits": torch.randn(*shape, width, generator=generator).numpy(),
    }
    if views:
        arrays["/views"] = torch.zeros(N, views, 3, dtype=torch.uint8).numpy()
    if short:
        arrays["/classes"] = torch.randint(5, (*shape, 3), generator=generator).short().numpy()
        arrays["/rest"] = torch.randn(shape, generator=generator).numpy()
    info = described("labels", 5)
    path = tmp_path / "labels.h5"
    soft_labels.write(path, [arrays], info)
    whole, held = soft_labels.read(path), artifact.read(path, ("labels", "logits"))
    assert isinstance(held.logits, Stored)
    assert tuple(held.logits.shape) == tuple(whole.logits.shape)
    for start in (0, 20, 40):
        piece, places = (
            held.piece(slice(start, start + 20)),
            torch.arange(start, min(start + 20, N)),
        )
        for view in range(views or 1):
            here = torch.full_like(places, view)
            assert torch.equal(piece.at(places - start, here), whole.at(places, here))

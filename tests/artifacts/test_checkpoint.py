"""Checkpoints: exact round trips; every fault is an error, never another content."""

from __future__ import annotations

import json
import pickle
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from advkit.artifacts import artifact, checkpoint
from advkit.artifacts.provenance import canonical
from advkit.errors import AdvkitError, InputError, MismatchError
from tests.described import described

INFO = described("checkpoint", lr=0.1, name="é")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8,
          torch.bool]  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
SPECS = st.dictionaries(
    TEXT, st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), max_size=4
)


def small() -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([[1.5, -2.0]]), "n": torch.tensor(3), "empty": torch.zeros(0)}


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple]:
    """Names, types, shapes and raw bytes, so that NaN equals itself."""
    return {
        name: (t.dtype, t.shape, t.contiguous().reshape(-1).view(torch.uint8).tolist())
        for name, t in tensors.items()
    }


@pytest.fixture
def path(tmp_path):
    """A small checkpoint."""
    checkpoint.write(tmp_path / "x.safetensors", small(), INFO)
    return tmp_path / "x.safetensors"


@given(SPECS, st.integers(0, 2**32))
def test_round_trip_is_exact(tmp_path_factory, specs, seed):
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randint(0, 2, shape, generator=draw).to(dtype)
        if dtype == torch.bool
        else torch.randn(shape, generator=draw).mul(50).to(dtype)
        for name, (dtype, shape) in specs.items()
    }
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    digest = checkpoint.write(path, tensors, INFO)
    found, info = checkpoint.read(path)
    assert bits(found) == bits(tensors)
    assert info == {**INFO, "digest": digest}


def test_special_values_survive(tmp_path):
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    checkpoint.write(tmp_path / "x", {"v": values}, INFO)
    assert bits(checkpoint.read(tmp_path / "x")[0]) == bits({"v": values})


def test_memory_layout_and_gradients_do_not_matter(tmp_path, path):
    plain = torch.randn(2, 3, 4, 5)
    laid_out = plain.to(memory_format=torch.channels_last).requires_grad_()
    digests = {checkpoint.write(tmp_path / "y", {"v": each}, INFO) for each in (plain, laid_out)}
    assert len(digests) == 1
    assert torch.equal(checkpoint.read(tmp_path / "y")[0]["v"], plain)


def test_equal_work_gives_equal_bytes(tmp_path, path):
    shuffled = dict(reversed(small().items()))
    checkpoint.write(tmp_path / "y", shuffled, dict(reversed(INFO.items())))
    assert (tmp_path / "y").read_bytes() == path.read_bytes()


def test_safetensors_alone_can_read_it(path):
    assert bits(load_file(path)) == bits(small())


def test_the_one_metadata_key_is_canonical(path):
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"].keys() == {"advkit"}
    text = header["__metadata__"]["advkit"]
    assert canonical(json.loads(text)) == text


def test_reading_does_not_keep_the_file_mapped(path):
    before = checkpoint.read(path)[0]["w"]
    path.write_bytes(b"\0" * path.stat().st_size)
    assert before.tolist() == [[1.5, -2.0]]


def test_the_description_alone_is_checked_too(path):
    assert checkpoint.read_info(path) == checkpoint.read(path)[1] == artifact.read_info(path)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="corrupt: the content does not match its digest"):
        checkpoint.read_info(path)


def test_every_truncation_is_rejected(path):
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"truncated or corrupt|empty file"):
            checkpoint.read(path)


@pytest.mark.parametrize("tail", [b"\0", b"more"])
def test_bytes_behind_the_end_are_rejected(path, tail):
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(InputError, match="truncated or corrupt"):
        checkpoint.read(path)


def test_a_bit_flip_is_an_error_or_changes_nothing(path):
    raw, (tensors, info) = path.read_bytes(), checkpoint.read(path)
    draw, rejected = random.Random(0), 0
    for _ in range(600):
        damaged = bytearray(raw)
        damaged[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = checkpoint.read(path)
        except (InputError, MismatchError):
            rejected += 1
        else:
            assert (bits(found[0]), found[1]) == (bits(tensors), info)
    assert rejected > 500


def test_moved_content_is_rejected(path, tmp_path):
    """The digest binds names and description to the values."""
    tensors, info = checkpoint.read(path)
    for changed in ({**tensors, "n": torch.tensor(4)}, {**tensors, "m": torch.zeros(1)}):
        save_file(changed, tmp_path / "y", metadata={"advkit": canonical(info)})
        with pytest.raises(InputError, match="does not match its digest"):
            checkpoint.read(tmp_path / "y")


def test_a_pickle_is_never_executed(tmp_path):
    sentinel, path = tmp_path / "executed", tmp_path / "x.safetensors"

    class Payload:
        def __reduce__(self):
            return sentinel.touch, ()

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Payload(), protocol))
        with pytest.raises(InputError, match=r"a pickle, which|truncated or corrupt"):
            checkpoint.read(path)
    torch.save({"w": Payload()}, path)
    with pytest.raises(InputError, match="a PyTorch or zip archive, which advkit never unpickles"):
        checkpoint.read(path)
    assert not sentinel.exists()
    pickle.loads(pickle.dumps(Payload()))  # the payload does work
    assert sentinel.exists()


def test_an_hdf5_file_is_called_one(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.safetensors", "w"):
        pass
    with pytest.raises(InputError, match=r"this is an HDF5 file; wanted: a checkpoint"):
        checkpoint.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        (None, "not made by advkit"),
        ({"other": "x"}, "not made by advkit"),
        ({"advkit": "{"}, "its description is not JSON"),
        ({"advkit": "{}"}, "lacks kind and schema"),
        (
            {"advkit": canonical({**INFO, "kind": "state"})},
            r"this is a.* state",
        ),
        ({"advkit": canonical({**INFO, "digest": "x"})}, "does not match its digest"),
    ],
)
def test_foreign_safetensors_are_input_errors(tmp_path, metadata, what):
    save_file(small(), tmp_path / "x", metadata=metadata)
    with pytest.raises(InputError, match=what):
        checkpoint.read(tmp_path / "x")


def test_another_kind_can_be_asked_for(tmp_path):
    checkpoint.write(tmp_path / "x", small(), described("state"))
    assert checkpoint.read(tmp_path / "x", kind="state")[1]["kind"] == "state"


def test_another_format_version_is_a_mismatch(tmp_path):
    checkpoint.write(tmp_path / "x", small(), {**INFO, "schema": 2})
    with pytest.raises(MismatchError, match="format version 2, this advkit reads 1"):
        checkpoint.read(tmp_path / "x")


def header(size: int, text: bytes) -> bytes:
    return size.to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header(99_000_000, b"{}"),
        header(2**63, b"{}"),
        header(2, b"[]"),
        header(40, b'{"a":{"dtype":"F32","shape":[9],"data"}}'),
        header(100_000, b'{"__metadata__":' + b"[" * 99_984),
    ],
    ids=["99 MB", "2^63", "list", "not JSON", "deep"],
)
def test_hostile_headers_are_rejected(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="truncated or corrupt"):
        checkpoint.read(tmp_path / "x")


def test_an_absent_or_foreign_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no such file \(wanted: a checkpoint"):
        checkpoint.read(tmp_path / "absent")
    with pytest.raises(InputError, match=r"is a folder: give a file \(wanted: a checkpoint"):
        checkpoint.read(tmp_path)
    (tmp_path / "final.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"is a folder: give \S+/final\.safetensors$"):
        checkpoint.read(tmp_path)
    (tmp_path / "best.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"give \S+/best\.safetensors, or another file in it$"):
        checkpoint.read(tmp_path)


def test_a_description_that_is_not_json_is_refused_before_writing(path):
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError, AdvkitError)):
        checkpoint.write(path, small(), {**INFO, "loss": float("nan")})
    assert path.read_bytes() == before


def test_a_header_length_is_not_taken_for_a_pickle(tmp_path):
    """A header of 896 bytes begins like a pickle of protocol 3, one of 1152 as of protocol 4."""
    path = tmp_path / "x.safetensors"
    info = described("checkpoint", pad="")
    while not (path.exists() and path.read_bytes().startswith((b"\x80\x03", b"\x80\x04"))):
        info["pad"] += "x"
        assert len(info["pad"]) < 1000
        checkpoint.write(path, {"a": torch.zeros(2)}, info)
    assert checkpoint.read(path)[1]["pad"] == info["pad"]

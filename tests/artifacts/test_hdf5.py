"""Logits files: exact round trips; faults and impossible values are errors."""

from __future__ import annotations

import dataclasses
import random

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advkit.artifacts import artifact, hdf5, provenance
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError
from tests.described import described
from tests.faults import _child

ATTACKED = {"attacks": ["pgd", "fgsm"]}
CLEAN = {"attack": "none", "data": "digits", "seed": 0, "batch_size": 250, "limit": None}
WITHOUT = {"attacks": [], "config": CLEAN}
INFO = described("logits", **ATTACKED)
FIELDS = ("index", "labels", "clean", "adversarial", "norm", "broken_by", "images")


def sample(n: int = 6, classes: int = 3, attacked: bool = True, images: bool = True) -> Logits:
    draw = torch.Generator().manual_seed(n * 10 + classes)
    extra = {}
    if attacked:
        extra = {
            "adversarial": torch.randn(n, classes, generator=draw),
            "norm": torch.rand(n, generator=draw),
            "broken_by": torch.randint(-2, 2, (n,), generator=draw).to(torch.int8),
        }
    if attacked and images:
        extra["images"] = torch.rand(n, 1, 2, 2, generator=draw)
    return Logits(
        index=torch.randperm(n, generator=draw),
        labels=torch.randint(0, classes, (n,), generator=draw),
        clean=torch.randn(n, classes, generator=draw),
        info=described("logits", classes, **(ATTACKED if attacked else WITHOUT)),
        **extra,
    )


def content(logits: Logits) -> dict:
    values = {name: getattr(logits, name) for name in FIELDS}
    return {name: None if v is None else (v.dtype, v.tolist()) for name, v in values.items()}


@pytest.fixture
def path(tmp_path):
    """A small logits file."""
    hdf5.write_logits(tmp_path / "x.h5", sample())
    return tmp_path / "x.h5"


@given(st.integers(1, 9), st.integers(2, 5), st.booleans(), st.booleans())
def test_round_trip_is_exact(tmp_path_factory, n, classes, attacked, images):
    logits = sample(n, classes, attacked, images)
    path = tmp_path_factory.getbasetemp() / "round.h5"
    digest = hdf5.write_logits(path, logits)
    found = hdf5.read_logits(path)
    assert content(found) == content(logits)
    assert found.info == {**logits.info, "digest": digest}
    assert found.attacks == logits.info["attacks"]
    assert found.path == str(path)


def test_a_file_longer_than_a_chunk_round_trips(tmp_path):
    logits = sample(hdf5.CHUNK + 3, 2, images=False)
    hdf5.write_logits(tmp_path / "x.h5", logits)
    assert content(hdf5.read_logits(tmp_path / "x.h5")) == content(logits)


def test_as_many_classes_as_logits_are_named(tmp_path):
    hdf5.write_logits(tmp_path / "x.h5", dataclasses.replace(sample(), info=described("logits", 2)))
    with pytest.raises(InputError, match="it names 2 classes, its logits are of 3"):
        hdf5.read_logits(tmp_path / "x.h5")


def test_half_precision_is_stored_as_float32(tmp_path):
    logits = dataclasses.replace(sample(), clean=sample().clean.half())
    hdf5.write_logits(tmp_path / "x.h5", logits)
    assert torch.equal(hdf5.read_logits(tmp_path / "x.h5").clean, logits.clean.float())


def test_the_layout_is_the_contracts(path):
    expected = {
        "index": "int64", "labels": "int64", "clean/logits": "float32",
        "adversarial/logits": "float32", "adversarial/norm": "float32",
        "adversarial/broken_by": "int8", "adversarial/images": "float32",
    }  # fmt: skip
    with h5py.File(path) as file:
        assert {name: str(file[name].dtype) for name in expected} == expected
        assert all(file[name].fletcher32 for name in expected)
        assert file.attrs.keys() == {"advkit"}


def test_without_an_attack_there_is_no_adversarial_group(tmp_path):
    hdf5.write_logits(tmp_path / "x.h5", sample(attacked=False))
    with h5py.File(tmp_path / "x.h5") as file:
        assert "adversarial" not in file


def test_equal_work_gives_equal_bytes(path, tmp_path):
    hdf5.write_logits(tmp_path / "y.h5", sample())
    assert (tmp_path / "y.h5").read_bytes() == path.read_bytes()


def test_the_description_is_read_from_any_artifact(path):
    assert artifact.read_info(path) == hdf5.read_info(path, "logits")


def test_every_tenth_truncation_is_rejected(path):
    raw = path.read_bytes()
    for length in range(0, len(raw), 10):
        path.write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"truncated or corrupt|empty file|not a logits file"):
            hdf5.read_logits(path)


def flips(raw: bytes) -> list[tuple[int, int]]:
    """Random (byte, bit) places, and some of those just before the description."""
    draw, text = random.Random(0), raw.index(b'{"arch"')
    random_places = [(draw.randrange(len(raw)), draw.randrange(8)) for _ in range(200)]
    return random_places + [(text - back, bit) for back in range(1, 49, 3) for bit in range(8)]


def test_a_bit_flip_is_an_error_or_changes_nothing(path):
    """In a child: HDF5's C code can hang, where no Python signal reaches it."""
    raw, whole = path.read_bytes(), hdf5.read_logits(path)
    places = flips(raw)

    def work(case: int) -> tuple[str, str]:
        damaged = bytearray(raw)
        place, bit = places[case]
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = hdf5.read_logits(path)
        except (InputError, MismatchError) as error:
            lines = len(str(error).splitlines())
            return ("refused" if lines == 1 else "unclear"), f"bit {bit} of {place}: {error}"
        same = (content(found), found.info) == (content(whole), whole.info)
        return ("same" if same else "changed"), f"bit {bit} of {place}"

    found = _child.run(range(len(places)), work)
    assert found.violations == []
    assert sum(found.counts.values()) == len(places)
    assert found.counts["refused"] > len(places) // 3


@pytest.mark.parametrize("name", ["labels", "clean/logits", "adversarial/broken_by"])
def test_a_value_changed_by_other_tools_is_corrupt(path, name):
    with h5py.File(path, "r+") as file:
        file[name][0] = file[name][0] + 1
    with pytest.raises(InputError, match="corrupt: the content does not match its digest"):
        hdf5.read_logits(path)


def test_a_changed_description_is_corrupt(path):
    with h5py.File(path, "r+") as file:
        text = hdf5.get_text(file, "advkit")
        hdf5.set_text(file, "advkit", text.replace("fgsm", "none"))
    with pytest.raises(InputError, match="does not match its digest"):
        hdf5.read_logits(path)


def test_a_removed_array_is_corrupt(path):
    with h5py.File(path, "r+") as file:
        del file["adversarial/images"]
    with pytest.raises(InputError, match="does not match its digest"):
        hdf5.read_logits(path)


IMPOSSIBLE = {
    "label too high": ({"labels": torch.tensor([0, 1, 2, 3, 0, 0])}, "label 3 of example 3 is not"),
    "label too low": ({"labels": torch.tensor([0, -2, 2, 0, 0, 0])}, "label -2 of example 1"),
    "clean NaN": ({"clean": torch.full((6, 3), torch.nan)}, "/clean/logits holds NaN"),
    "adversarial inf": ({"adversarial": torch.full((6, 3), torch.inf)}, "/adversarial/logits hold"),
    "norm NaN": ({"norm": torch.full((6,), torch.nan)}, "/adversarial/norm"),
    "norm negative": ({"norm": torch.full((6,), -1.0)}, "/adversarial/norm"),
    "broken by nobody": ({"broken_by": torch.full((6,), 2)}, "/adversarial/broken_by|broken_by"),
    "broken by -3": ({"broken_by": torch.full((6,), -3)}, "/adversarial/broken_by|broken_by"),
    "rows": ({"labels": torch.zeros(5).long()}, "/labels has shape"),
    "classes": ({"adversarial": torch.zeros(6, 4)}, "/adversarial/logits has shape"),
    "no matrix": ({"clean": torch.zeros(6, 3, 1)}, r"/clean/logits is not \(N, C\)"),
    "labels not flat": ({"labels": torch.zeros(6, 1).long()}, "/labels has shape|labels"),
    "norm not flat": ({"norm": torch.zeros(6, 2)}, "/adversarial/norm has shape|norm"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_values_are_input_errors(tmp_path, name):
    changes, what = IMPOSSIBLE[name]
    hdf5.write_logits(tmp_path / "x.h5", dataclasses.replace(sample(), **changes))
    with pytest.raises(InputError, match=what):
        hdf5.read_logits(tmp_path / "x.h5")


def test_label_minus_one_means_none(tmp_path):
    logits = dataclasses.replace(sample(attacked=False), labels=torch.full((6,), -1))
    hdf5.write_logits(tmp_path / "x.h5", logits)
    assert hdf5.read_logits(tmp_path / "x.h5").labels.tolist() == [-1] * 6


def craft(path, arrays: dict[str, np.ndarray], info: dict = INFO) -> None:
    """Write any arrays under a description whose digest is right."""
    digested = [
        provenance.Array(name, array.dtype.str, array.shape, array.tobytes())
        for name, array in arrays.items()
    ]
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        text = {**info, "digest": provenance.digest(info, digested)}
        hdf5.set_text(file, "advkit", provenance.canonical(text))


def core(**changes: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {
        "/index": np.arange(2),
        "/labels": np.zeros(2, np.int64),
        "/clean/logits": np.zeros((2, 3), np.float32),
    }
    return arrays | {f"/{name.replace('__', '/')}": value for name, value in changes.items()}


def test_a_crafted_file_of_the_contract_is_read(tmp_path):
    craft(tmp_path / "x.h5", core())
    assert hdf5.read_logits(tmp_path / "x.h5").clean.shape == (2, 3)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"index": np.arange(2.0)}, "/index is float64, not int64"),
        ({"clean__logits": np.zeros((2, 3))}, "/clean/logits is float64, not float32"),
        ({"index": np.asarray(3)}, "/index"),
    ],
    ids=["type of index", "type of logits", "scalar"],
)
def test_wrong_types_are_input_errors(tmp_path, changes, what):
    craft(tmp_path / "x.h5", core(**changes))
    with pytest.raises(InputError, match=what):
        hdf5.read_logits(tmp_path / "x.h5")


def test_a_file_without_examples_is_an_input_error(tmp_path):
    craft(tmp_path / "x.h5", {name: array[:0] for name, array in core().items()})
    with pytest.raises(InputError, match="holds no example"):
        hdf5.read_logits(tmp_path / "x.h5")


def test_missing_arrays_are_named(tmp_path):
    craft(tmp_path / "x.h5", {"/clean/logits": core()["/clean/logits"]})
    with pytest.raises(InputError, match="lacks /index, /labels"):
        hdf5.read_logits(tmp_path / "x.h5")


def test_links_out_of_the_file_are_refused(path, tmp_path):
    for link in (h5py.ExternalLink(str(path), "/index"), h5py.SoftLink("/labels")):
        craft(tmp_path / "y.h5", core())
        with h5py.File(tmp_path / "y.h5", "r+") as file:
            del file["index"]
            file["index"] = link
        with pytest.raises(InputError, match="/index is a link"):
            hdf5.read_logits(tmp_path / "y.h5")


def test_external_storage_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    craft(tmp_path / "y.h5", core())
    with h5py.File(tmp_path / "y.h5", "r+") as file:
        del file["index"]
        file.create_dataset("index", (2,), "i8", external=[(tmp_path / "secret", 0, 16)])
    with pytest.raises(InputError, match="/index is not a plain dataset"):
        hdf5.read_logits(tmp_path / "y.h5")


def test_a_group_in_an_arrays_place_is_refused(tmp_path):
    craft(tmp_path / "y.h5", core())
    with h5py.File(tmp_path / "y.h5", "r+") as file:
        del file["index"]
        file.create_group("index")
    with pytest.raises(InputError, match="/index is not a plain dataset"):
        hdf5.read_logits(tmp_path / "y.h5")


@pytest.mark.parametrize("attribute", [None, b"bytes", 3])
def test_foreign_hdf5_is_not_made_by_advkit(tmp_path, attribute):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["index"] = np.arange(3)
        if attribute is not None:
            if isinstance(attribute, str):
                hdf5.set_text(file, "advkit", attribute)
            else:
                file.attrs["advkit"] = attribute
    with pytest.raises(InputError, match=r"not made by advkit|description is not JSON"):
        hdf5.read_logits(tmp_path / "x.h5")


def test_another_kind_or_version_says_so(tmp_path):
    craft(tmp_path / "x.h5", core(), {**INFO, "kind": "labels"})
    with pytest.raises(InputError, match=r"this is .*labels.*; wanted: .*logits"):
        hdf5.read_logits(tmp_path / "x.h5")
    craft(tmp_path / "x.h5", core(), {**INFO, "schema": 7})
    with pytest.raises(MismatchError, match="format version 7"):
        hdf5.read_logits(tmp_path / "x.h5")


def test_a_file_still_open_for_writing_never_hangs_a_reader(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["index"] = np.arange(3)
        file.flush()
        file.swmr_mode = True
        copied = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "dead.h5").write_bytes(copied)  # as a killed writer leaves it
    with pytest.raises(InputError, match=r"dead\.h5"):
        hdf5.read_logits(tmp_path / "dead.h5")


@pytest.mark.parametrize(
    ("raw", "what"),
    [(b"", "empty file"), (b"PK\x03\x04", "zip archive"), (b"12345678", "not a logits file")],
)
def test_other_files_are_input_errors(tmp_path, raw, what):
    (tmp_path / "x.h5").write_bytes(raw)
    with pytest.raises(InputError, match=what):
        hdf5.read_logits(tmp_path / "x.h5")


def test_a_length_that_cannot_be_set_is_remembered(tmp_path):
    """HDF5 calls on with an exception pending, which then hides behind another one."""
    path = tmp_path / "x"
    path.write_bytes(b"kept")
    with hdf5._Sink(path, "rb") as sink:
        assert sink.truncate(2) == 2
        assert isinstance(sink.error, OSError)
    assert path.read_bytes() == b"kept"

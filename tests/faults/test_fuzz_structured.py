"""Files that are well made but say something else: what hypothesis comes up with."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import types
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from advkit import data, models
from advkit.artifacts import analysis, artifact, checkpoint, hdf5, provenance, record, soft_labels
from advkit.cli import inspect
from advkit.cli.common import stage
from advkit.config import origins, resolve, stored
from advkit.errors import AdvkitError, InputError, UsageError
from tests.faults import _child, _formats

FEW, MANY = 10, 300

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([2**63, -1, 10**30, "a\nb", "\ud800", "x" * 3000, [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                               max_size=3),
    max_leaves=6,
)  # fmt: skip
"""Any JSON, with what readers get wrong."""


def clear(folder: Path, read: Callable[[], object], *names: str) -> None:
    """Read; what fails has to fail with one clear line that names the file."""
    message = str(folder)
    try:
        read()
    except AdvkitError as error:
        message = str(error)
    kind = _formats.Format("", lambda *_: None, (), lambda _: None, names=names)
    assert kind._fault(message, folder) == ""


def fresh(function: Callable[..., None]) -> Callable[..., None]:
    """Return a copy, since a function takes settings once only."""
    found = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    found.__dict__.update(function.__dict__)
    found.__kwdefaults__ = function.__kwdefaults__
    return found


def tried(property_: Callable[..., None], count: int, folder: Path) -> list[str]:
    """Check a property in a child and return what broke it."""
    made = settings(
        max_examples=count, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )(fresh(property_))  # fmt: skip

    def work(case: int) -> tuple[str, str]:
        made(folder)
        return "sound", ""

    return _child.run([0], work, patience=60 + count).violations


def changed(value: Any, path: list[int], new: Any, *, drop: bool) -> Any:
    """Return nested JSON with one place, chosen by numbers, replaced or left out."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    keys = list(copy) if isinstance(copy, dict) else list(range(len(copy)))
    key = keys[path[0] % len(keys)]
    if drop and len(path) == 1:
        del copy[key]
    else:
        copy[key] = changed(copy[key], path[1:], new, drop=drop)
    return copy


PLACES = st.lists(st.integers(0, 20), min_size=1, max_size=4)


# --- checkpoints ---

DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64", "BOOL",
          "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "F128", ""]  # fmt: skip
SIZES = st.sampled_from([0, 1, 2, 3, 2**31, 2**40, 2**62, 2**63, 2**64, -1])
ENTRIES = st.dictionaries(
    st.sampled_from(["w", "n", "", "é", "a" * 300]),
    st.fixed_dictionaries({
        "dtype": st.sampled_from(DTYPES),
        "shape": st.lists(SIZES, max_size=3) | JSON,
        "data_offsets": st.lists(st.sampled_from([0, 1, 8, 16, 24, 2**63]), min_size=2, max_size=2),
    }) | JSON,
    max_size=3,
)  # fmt: skip


@given(
    ENTRIES, JSON, st.binary(max_size=24), st.none() | st.integers(0, 2**64 - 1), st.none() | JSON
)
@example(
    {"w": {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}, {}, b"", None, None
)
@example({"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, {}, b"1", None, None)
@example({}, {}, b"", None, 7)
@example({}, {}, b"", None, {"advkit": 7})
@example({}, {}, b"", None, {"advkit": ["{}"]})
def safetensors(folder, entries, info, body, length, metadata):
    """A header of any tensors in front of any bytes."""
    description = {"schema": 1, "kind": "checkpoint", "more": info}
    metadata = {"advkit": json.dumps(description)} if metadata is None else metadata
    text = json.dumps({**entries, "__metadata__": metadata}).encode()
    path = folder / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    clear(folder, lambda: checkpoint.read(path))
    clear(folder, lambda: artifact.read_info(path))


@given(PLACES, JSON, st.booleans())
@example([3, 1, 0], {"width": 10**9}, False)
def described_models(folder, places, new, drop):
    """A checkpoint whose description was changed, with the digest that belongs to it."""
    net, info = _formats._model(0)
    path = folder / "x.safetensors"
    try:
        checkpoint.write(path, net.state_dict(), changed(info, places, new, drop=drop))
    except (ValueError, TypeError):  # NaN, lone surrogates, no object: nothing that can be written
        return
    clear(folder, lambda: models.load(path))
    clear(folder, lambda: inspect._inspected({"path": str(path)}))


# --- HDF5 ---

KINDS = ["<i8", ">i8", "<i4", "<f4", "<f2", "<f8", "u1", "i1", "S3", "V5", "?", "<c8",
         [("a", "<i8")], ("<i8", (2,))]  # fmt: skip
NAMES = ["index", "labels", "logits", "views", "classes", "rest", "clean/logits",
         "adversarial/logits", "adversarial/norm", "adversarial/broken_by",
         "adversarial/images"]  # fmt: skip
LAYOUTS = ["plain", "chunks", "unwritten", "gzip", "scaleoffset", "soft", "external", "virtual",
           "group", "null", "vlen", "many"]  # fmt: skip
ARRAYS = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=4),
              st.sampled_from(LAYOUTS)),
    max_size=6,
)  # fmt: skip


def put(file: h5py.File, name: str, kind: Any, shape: list[int], layout: str) -> None:
    """Store something under a name, in one of HDF5's ways."""
    array = np.zeros(shape, kind) if layout != "unwritten" else None
    if layout == "group":
        file.create_group(name)
    elif layout == "soft":
        file[name] = h5py.SoftLink("/elsewhere")
    elif layout == "external":
        file[name] = h5py.ExternalLink("/dev/zero", "/index")
    elif layout == "virtual":
        plan = h5py.VirtualLayout((4,), "<i8")
        plan[:] = h5py.VirtualSource(".", "labels", (4,))
        file.create_virtual_dataset(name, plan)
    elif layout == "null":
        file[name] = h5py.Empty("<f4")
    elif layout == "vlen":
        file.create_dataset(name, (3,), h5py.string_dtype())
    elif layout == "many":
        file.create_dataset(name, (2**40, *(max(n, 1) for n in shape)), kind,
                            chunks=(1, *(max(n, 1) for n in shape)))  # fmt: skip
    elif layout == "unwritten":
        file.create_dataset(name, (2**20, 2**10), kind)
    elif layout == "chunks" and shape:
        file.create_dataset(name, data=array, chunks=tuple(max(n, 1) for n in shape),
                            maxshape=(None,) * len(shape))  # fmt: skip
    elif layout in ("gzip", "scaleoffset") and shape and array.dtype.kind in "iu":
        options = {"compression": "gzip"} if layout == "gzip" else {"scaleoffset": 0}
        file.create_dataset(name, data=array, **options)
    else:
        file[name] = array


@given(ARRAYS, st.sampled_from(["labels", "logits", "analysis", "part"]), JSON)
def arrays(folder, content, kind, new):
    """An HDF5 file of any arrays under the names that are looked for."""
    info = {"schema": 1, "kind": kind, "data": {"classes": ["a", "b"]}, "attacks": ["pgd"],
            "digest": "sha256:0", "more": new}  # fmt: skip
    path = folder / "x.h5"
    with h5py.File(path, "w", libver=hdf5.LIBVER) as file:
        for name, how in content.items():
            with contextlib.suppress(ValueError):  # a type that cannot lie in that way
                put(file, name, *how)
        hdf5.set_text(file, "advkit", json.dumps(info))
    for read in (artifact.read_info, soft_labels.read, hdf5.read_logits, analysis.read_info):
        clear(folder, lambda read=read: read(path))
    clear(folder, lambda: hdf5.read_claim(path, "labels"))
    path.unlink()


@given(st.sampled_from(["labels", "logits", "analysis"]), PLACES, JSON, st.booleans())
@example("labels", [0], {"shard": 7}, False)
@example("labels", [0], {"shard": [1, 2, 3]}, False)
@example("logits", [1], {"shard": ["a", "b"]}, False)
def described_arrays(folder, kind, places, new, drop):
    """A file of arrays whose description was changed, with the digest that belongs to it."""
    path = folder / "x.h5"
    make = {"labels": _formats.make_labels, "logits": _formats.make_logits,
            "analysis": _formats._make_analysis("x.h5")}[kind]  # fmt: skip
    make(folder, 1)
    with h5py.File(path, "r+") as file:
        info = json.loads(str(hdf5.get_text(file, "advkit")))
        info = changed({**info, "parents": [{"kind": "data", "digest": "sha256:0"}]}, places, new,
                       drop=drop)  # fmt: skip
        try:
            if kind == "analysis":
                raw = provenance.canonical(json.loads(str(hdf5.get_text(file, "content")))).encode()
                held = [provenance.Array("analysis", "json", (len(raw),), raw)]
            else:
                held = hdf5._digested({
                    f"/{name}": np.asarray(file[name][()])
                    for name in NAMES if name in file
                })  # fmt: skip
                if kind == "labels":
                    held = [each._replace(name=each.name.lstrip("/")) for each in held]
            text = provenance.canonical({**info, "digest": provenance.digest(info, held)})
            del file.attrs["advkit"]
            hdf5.set_text(file, "advkit", text)
        except (ValueError, TypeError):
            return
    for read in (artifact.read_info, soft_labels.read, hdf5.read_logits):
        clear(folder, lambda read=read: read(path))
    clear(folder, lambda: inspect._inspected({"path": str(path)}))


# --- text ---


@given(JSON, st.text(max_size=60), JSON)
@example({}, "[" * 100_000, {})
@example({}, '{"advkit": {"schema": 1, "kind": "analysis"}, "numbers": 1e999}', {})
@example({}, '{"advkit": {"schema": 1, "kind": "analysis"}, "numbers": "\\ud800"}', {})
@example({}, "7", {})
@example({}, "{" + '"a":{' * 50_000, {})
def analyses(folder, content, text, info):
    """A JSON file of anything."""
    path = folder / "x.json"
    described = {"advkit": {"schema": 1, "kind": "analysis", "more": info}, "numbers": content}
    for raw in (json.dumps(described), json.dumps(content), text):
        path.write_text(raw, encoding="utf-8", errors="surrogatepass")
        clear(folder, lambda: analysis.read_info(path))
        clear(folder, lambda: artifact.read_info(path))


@given(st.dictionaries(st.sampled_from(["kind", "path", "digest", "x"]), JSON), st.text())
@example({"kind": "a\nb\x1b[2J", "path": "x"}, "")
@example({"kind": "x" * 10_000}, "{" * 50_000)
@example({"kind": ["labels"], "path": "x"}, '{"path": ' + "9" * 10_000 + "}")
def lines(folder, content, text):
    """A line of anything on stdin, as every stage reads it."""
    for line in (json.dumps(content), text, "{" + text):
        clear(folder, lambda line=line: stage.record_of(line, record.KINDS), "stdin", "record")


OPTIONS = ["data", "method", "arch", "eps", "norm", "lr_drops", "epochs", "temperature", "lambda_",
           "labels", "objective", "step_size", "teacher_noise", "soft_labels", "é"]  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=12), st.integers(), st.floats(), st.booleans(),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.sampled_from(["digits", "adr", "at", "ltd", "small-cnn", "wrn-34-10", "wrn-" + "9" * 5000,
                     "linf", "l2", "8/255", "1/0", "0.9:0.7", "eps/4", "weights:0.1", "x" * 5000]),
)  # fmt: skip


def spelt(value: Any) -> str:
    """Return TOML."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


@given(st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=6), st.text(max_size=40))
@example({"data": "digits", "epochs": 0}, "")
@example({}, "a = " + "[" * 50_000)
@example({}, "a = " + "{b=" * 50_000)
@example({}, "a = " + "9" * 5000)
@example({}, "a" + ".a" * 50_000 + " = 1")
@example({}, "data = 1979-05-27\n")
def options(folder, content, text):
    """A configuration of anything."""
    path = folder / "x.toml"
    lines_ = "".join(f"{json.dumps(key)} = {spelt(value)}\n" for key, value in content.items())
    for raw in (lines_, text, lines_ + text):
        path.write_text(raw, encoding="utf-8", errors="surrogatepass")
        clear(folder, lambda: resolve.resolve((stored.read(path), "from x.toml")),
              "(from x.toml)", "--data is needed")  # fmt: skip


# --- data sets ---

NUMBERS = st.sampled_from([0, 1, 2, 3, 255, 2**16, 2**31, 2**32 - 1])


@given(st.lists(NUMBERS, min_size=3, max_size=3), NUMBERS, st.binary(max_size=30),
       st.binary(max_size=4))  # fmt: skip
@example([2, 0, 0], 2, b"", b"\0\1")
@example([1, 1, 1], 2, b"\0", b"\0\1")
@example([0, 2**32 - 1, 2**32 - 1], 0, b"", b"")
def idx(folder, shape, count, images, labels):
    """Headers of any size over any bytes."""
    head = bytes([0, 0, 8, 3]) + np.array(shape, ">u4").tobytes()
    (folder / "t10k-images-idx3-ubyte").write_bytes(head + images)
    head = bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes()
    (folder / "t10k-labels-idx1-ubyte").write_bytes(head + labels)
    clear(folder, lambda: data.load("idx", "test", root=folder), "the test split is empty")


DECLARED = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format,
        st.sampled_from(["'|u1'", "'<i8'", "'|O'", "[('a', '|u1')]", "'9999999999i4'", "None",
                         "'x'", "('<i8', (10**9,))", "'" + "u1," * 2000 + "u1'"]),
        st.sampled_from(["True", "False", "7", "None"]),
        st.sampled_from(["(2, 4, 4, 3)", "(2,)", "()", "(-1,)", "(10**30,)", "2", "(2.0,)",
                         "(" + "9" * 3000 + ",)", "-" * 9000 + "1", "(" * 5000, "(0, 4, 4, 3)"]),
    ),
)  # fmt: skip


def npy(text: str, body: bytes) -> bytes:
    raw = text.encode("latin1", errors="replace") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw) % 2**16) + raw + body


@given(DECLARED, DECLARED, st.binary(max_size=99), st.sampled_from([0, 8, 12, 14]))
@example("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4, 4, 3), }",
         "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", bytes(96), 14)  # fmt: skip
def npz(folder, image, label, body, packing):
    """An archive of arrays with any headers."""
    with zipfile.ZipFile(folder / "train.npz", "w", packing) as archive:
        archive.writestr("image.npy", npy(image, body))
        archive.writestr("label.npy", npy(label, body[:16]))
    clear(folder, lambda: data.load("npz", "train", root=folder))


@given(st.lists(st.tuples(st.integers(0, 16), NUMBERS | st.integers(0, 40), st.binary(max_size=24)),
                max_size=5), st.booleans())  # fmt: skip
@example([(6, 1, b"\6"), (5, 8, bytes(8)), (1, 1, b"X")], False)
def mat(folder, elements, packed):
    """A variable of any elements."""
    body = b"".join(struct.pack("<II", kind, size) + raw for kind, size, raw in elements)
    variable = struct.pack("<II", 14, len(body)) + body
    if packed:
        variable = zlib.compress(variable)
        variable = struct.pack("<II", 15, len(variable)) + variable
    header = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    (folder / "test_32x32.mat").write_bytes(header + variable)
    clear(folder, lambda: data.load("svhn", "test", root=folder))


PICTURES = ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "EPS", "PDF", "ICO", "TGA", "PCX"]


@given(st.sampled_from(PICTURES), st.sampled_from(["1", "L", "P", "RGB", "RGBA", "I;16"]),
       st.integers(1, 9), st.integers(1, 9), st.none() | st.integers(1, 5))  # fmt: skip
@example("PNG", "L", 1, 60_000, 4)
@example("PNG", "1", 12_000, 12_000, None)
def pictures(folder, form, mode, wide, high, size):
    """A picture of any format and shape, under a name that says PNG."""
    raw = io.BytesIO()
    try:
        Image.new(mode, (wide, high)).save(raw, form)
    except (OSError, ValueError, KeyError, SystemError):  # a mode that this format does not have
        return
    for name in ("cat", "dog"):
        (folder / "test" / name).mkdir(parents=True, exist_ok=True)
        (folder / "test" / name / "0.png").write_bytes(raw.getvalue())
    with _child.watching() as acted:
        clear(folder, lambda: data.load("folder", "test", root=folder, image_size=size))
    assert not acted


@given(st.lists(st.text(max_size=30) | st.sampled_from(["n00/a0.JPEG", "n00/", "../x", "n00/\0",
                "n00/" + "a" * 5000, "n09/a0.JPEG"]), max_size=4))  # fmt: skip
def listed(folder, names):
    """A list of any images."""
    if not (folder / "val").exists():
        _formats.make_imagenet(folder, 0)
    path = folder / "list.txt"
    path.write_text("\n".join(names), encoding="utf-8", errors="surrogatepass")
    clear(folder, lambda: data.load("imagenet", "test", root=folder, image_list=str(path)))


@given(st.lists(st.lists(st.text(max_size=12) | st.sampled_from(["val_0.JPEG", "n01443537",
                "x" * 5000]), max_size=3).map("\t".join), max_size=5))  # fmt: skip
def annotated(folder, rows):
    """A table of any annotations, then of any ids and words."""
    if not (folder / "val").exists():
        _formats.make_tiny(folder, 0)
    for name in ("val/val_annotations.txt", "wnids.txt", "words.txt"):
        before = (folder / name).read_bytes()
        raw = "\n".join(rows).encode("utf-8", errors="surrogatepass")
        (folder / name).write_bytes(raw)
        clear(folder, lambda: data.load("tinyimagenet", "test", root=folder))
        (folder / name).write_bytes(before)


@given(st.lists(st.lists(st.text(max_size=8) | st.sampled_from(["path", "cat", "dog", "é", "1",
                "nan", "1e999", "-1", '"', "x" * 200_000]), max_size=5)
                .map(",".join), max_size=4))  # fmt: skip
def tables(folder, rows):
    """A table of any people's labels."""
    raw = "\n".join(["path,cat,dog,é", *rows])
    (folder / "x.csv").write_text(raw, encoding="utf-8", errors="surrogatepass")
    clear(folder, lambda: _formats.read_table(folder))


PROPERTIES = [safetensors, described_models, arrays, described_arrays, analyses, lines, options,
              idx, npz, mat, pictures, listed, annotated, tables]  # fmt: skip
EACH = pytest.mark.parametrize("property_", PROPERTIES, ids=lambda each: each.__name__)


@EACH
def test_what_is_well_made_but_wrong_is_refused_clearly(property_, tmp_path):
    assert tried(property_, FEW, tmp_path) == []


@pytest.mark.faults
@EACH
def test_more_of_what_is_well_made_but_wrong(property_, tmp_path):
    assert tried(property_, MANY, tmp_path) == []


# --- what was found, one by one ---


def test_a_pipe_or_a_device_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    for path in (tmp_path / "x.safetensors", Path("/dev/zero")):
        with pytest.raises(InputError, match="a pipe, socket or device; wanted: a regular f"):
            artifact.read_info(path)


def test_a_kind_with_a_line_break_stays_in_one_line(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, {"w": torch.zeros(1)}, {"schema": 1, "kind": "a\nadvkit: all is well"})
    with pytest.raises(InputError, match="a file of a; wanted: checkpoint") as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)


def test_a_virtual_dataset_is_refused(tmp_path):
    _formats.make_logits(tmp_path, 0)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        del file["index"]
        put(file, "index", "<i8", [], "virtual")
    with pytest.raises(InputError, match="/index is not a plain dataset"):
        hdf5.read_logits(tmp_path / "x.h5")


def test_a_configuration_file_is_named_beside_its_mistakes(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('data = "digits"\nepochs = 0\n')
    with pytest.raises(UsageError, match=r"^--epochs 0 is not in \[1, 1e6\] \(from mine\.toml\)$"):
        resolve.resolve((stored.read(path), "from mine.toml"))
    with pytest.raises(UsageError, match=r"^--epochs 0 is not in \[1, 1e6\]$"):
        resolve.resolve(({"data": "digits", "epochs": 0}, origins.FLAG))


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO"])
def test_only_formats_that_the_names_promise_are_opened(form, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "test" / name / "0.png", form)
    with pytest.raises(InputError, match=r"0\.png: not a readable image: none of PNG, JPEG"):
        data.load("folder", "test", root=tmp_path)


def test_an_image_that_unpacks_to_far_more_than_its_file_is_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("1", (9000, 9000)).save(tmp_path / "test" / name / "0.png")
    with pytest.raises(InputError, match=r"bytes that would unpack to 9000x9000: refused"):
        data.load("folder", "test", root=tmp_path)


def test_a_packing_that_numpy_never_writes_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.npz", "w", zipfile.ZIP_LZMA) as archive:
        for name in ("image", "label"):
            raw = io.BytesIO()
            np.save(raw, np.zeros((2, 4, 4, 3), np.uint8))
            archive.writestr(f"{name}.npy", raw.getvalue())
    with pytest.raises(
        InputError, match=r"image is packed in a way that NumPy never writes \(14\)"
    ):
        data.load("npz", "train", root=tmp_path)

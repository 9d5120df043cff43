"""HDF5 files of logits: checksummed chunks, one description, nothing written in place."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advkit.artifacts import descriptions, files, provenance
from advkit.artifacts.provenance import Array
from advkit.artifacts.rows import Rows, Stored, in_order, loaded, mark, pieces
from advkit.errors import BusyError, InputError, StorageError, UsageError, brief, storage
from advkit.runtime import reading

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Numbers = NDArray[np.generic]
MAGIC = b"\x89HDF\r\n\x1a\n"
CHUNK = 4096
"""Rows of a chunk at most: HDF5 reads, and checks, whole chunks."""
CHUNK_BYTES = 8 << 20
# Pinned, not "latest": the same arrays give the same bytes whatever HDF5 is installed.
LIBVER = ("v110", "v110")
DTYPES = {
    "/index": "int64",
    "/labels": "int64",
    "/clean/logits": "float32",
    "/adversarial/logits": "float32",
    "/adversarial/norm": "float32",
    "/adversarial/broken_by": "int8",
    "/adversarial/images": "float32",
}
LARGE = {"/clean/logits", "/adversarial/logits", "/adversarial/images"}
"""What stays in the file until it is looked at."""
ROBUST, WRONG = -1, -2
"""Values of broken_by for an example that no attack broke, and for one wrong when clean."""


@dataclass(frozen=True)
class Logits:
    """What a model says of N examples, clean and attacked.

    `index` and `labels` are (N,) int64 (label −1: none), `clean` is (N, C) float32. The rest is
    None after `--attack none`: `adversarial` (N, C) float32, `norm` (N,) float32 with ‖x′ − x‖,
    `broken_by` (N,) int8 (position in `attacks`, −1 robust, −2 wrong when clean), `images`
    (N, channels, H, W) float32 if they were saved. `clean`, `adversarial` and `images` may still
    be in the file.
    """

    index: Tensor
    labels: Tensor
    clean: Rows
    info: descriptions.Logits
    adversarial: Rows | None = None
    norm: Tensor | None = None
    broken_by: Tensor | None = None
    images: Rows | None = None
    path: str = ""

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks in the order in which they were run."""
        return list(self.info["attacks"])

    def by_index(self) -> Logits:
        """Return its examples in order of their index."""
        order = self.index.argsort(stable=True)
        if torch.equal(order, torch.arange(len(order))):
            return self
        return replace(
            self,
            index=self.index[order],
            labels=self.labels[order],
            clean=in_order(self.clean, order),
            adversarial=None if self.adversarial is None else in_order(self.adversarial, order),
            norm=None if self.norm is None else self.norm[order],
            broken_by=None if self.broken_by is None else self.broken_by[order],
            images=None if self.images is None else in_order(self.images, order),
        )


def require_name(path: Path) -> None:
    """Check where an HDF5 output is to go.

    Raises:
        UsageError: its name does not end in .h5.
        StorageError: a folder is in its place.
    """
    if path.suffix != ".h5":
        raise UsageError(f"-o {path}: the name must end in .h5")
    if files.exists(path) and path.is_dir():
        raise StorageError(f"cannot write {path}: a folder is in its place")


def write_logits(path: Path, logits: Logits) -> str:
    """Write a logits file atomically; return its digest.

    Raises:
        StorageError: disk full, folder read-only or gone.
    """
    values = {
        "/index": logits.index,
        "/labels": logits.labels,
        "/clean/logits": logits.clean,
        "/adversarial/logits": logits.adversarial,
        "/adversarial/norm": logits.norm,
        "/adversarial/broken_by": logits.broken_by,
        "/adversarial/images": logits.images,
    }
    arrays = {
        name: loaded(rows).detach().cpu().numpy().astype(DTYPES[name], copy=False)
        for name, rows in values.items()
        if rows is not None
    }
    digested = _digested({name: torch.from_numpy(array) for name, array in arrays.items()})
    digest = provenance.digest(logits.info, digested)
    with files.replacing(path) as temporary, writing(temporary, path) as file:
        for name, array in arrays.items():
            chunk = chunk_shape(array.shape, array.itemsize)
            # No compression: floats hardly shrink, and a small file could claim a huge array.
            file.create_dataset(name, data=array, chunks=chunk, fletcher32=True)
        set_text(file, "advkit", provenance.canonical({**logits.info, "digest": digest}))
    return digest


def read_logits(path: Path | str, *, stay: bool = False) -> Logits:
    """Read a logits file, checking shapes, values and digest.

    Args:
        path: the file.
        stay: leave logits and images in the file, to be read when they are looked at.

    Raises:
        InputError: missing, corrupt, of another kind, or holding impossible values.
    """
    arrays, info = read_arrays(Path(path), "logits", DTYPES, LARGE if stay else ())
    classes = _classes(path, arrays)
    described = cast(descriptions.Logits, info)  # checked as one when it was parsed
    named = len(described["data"]["classes"])
    if named != classes:
        raise InputError(f"{path}: it names {named} classes, its logits are of {classes}")
    _require_possible(path, arrays, classes, len(described["attacks"]))
    small = {name: loaded(arrays[name]) for name in arrays.keys() - LARGE}
    return Logits(
        index=small["/index"],
        labels=small["/labels"],
        clean=arrays["/clean/logits"],
        adversarial=arrays.get("/adversarial/logits"),
        norm=small.get("/adversarial/norm"),
        broken_by=small.get("/adversarial/broken_by"),
        images=arrays.get("/adversarial/images"),
        info=described,
        path=str(path),
    )


def read_info(path: Path | str, kind: str) -> dict[str, object]:
    """Read the description of an HDF5 artifact, with its digest checked."""
    return read_arrays(Path(path), kind, DTYPES, LARGE)[1]


def read_claim(path: Path, kind: str) -> tuple[dict[str, object], int]:
    """Return what a file says of itself, the digest not checked, and how many examples it holds.

    Raises:
        InputError: missing, corrupt, or of another kind.
        MismatchError: another format version.
        BusyError: another process is writing it.
    """
    files.require(path, f"a {kind} file (HDF5)", MAGIC)
    try:
        with h5py.File(path, "r") as file:
            info = provenance.parse(get_text(file, "advkit"), path, kind)
            index = _dataset(file, "/index", path.stat().st_size)
            if index is None:
                raise KeyError("it holds no /index")
            return info, len(index)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> InputError | BusyError:
    """Say what HDF5's failure to read a file means: a living writer, a dead one, or damage."""
    # HDF5 locks what it writes, and its file says so until it is closed: two signs of a writer.
    if isinstance(error, BlockingIOError):
        return BusyError(f"{path}: another process has it open for writing: wait for it")
    reason = brief(error)
    if "already open for write" in reason:
        reason = "its writer never closed it: wait for it if it still works, else make it anew"
    return InputError(f"{path}: truncated or corrupt: {reason}")


def _classes(path: Path | str, arrays: Mapping[str, Rows]) -> int:
    """Check that the shapes agree and return C."""
    missing = {"/index", "/labels", "/clean/logits"} - arrays.keys()
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}")
    clean = arrays["/clean/logits"]
    if len(clean.shape) != 2:
        raise InputError(f"{path}: /clean/logits is not (N, C) but {tuple(clean.shape)}")
    if 0 in clean.shape:
        raise InputError(f"{path}: holds no example or no class")
    for name, array in arrays.items():
        wanted = clean.shape if name.endswith("logits") else clean.shape[:1]
        images = name == "/adversarial/images" and len(array.shape) == 4
        if array.shape != wanted and not (images and len(array) == len(clean)):
            raise InputError(f"{path}: {name} has shape {tuple(array.shape)}, not {tuple(wanted)}")
    return int(clean.shape[1])


def _require_possible(
    path: Path | str, arrays: Mapping[str, Rows], classes: int, attacks: int
) -> None:
    """Refuse values that no evaluation writes, naming the first."""
    limits: dict[str, tuple[float, float]] = {
        "/labels": (-1, classes - 1),
        "/adversarial/broken_by": (WRONG, attacks - 1),
        "/adversarial/norm": (0, np.inf),
        "/clean/logits": (-np.inf, np.inf),
        "/adversarial/logits": (-np.inf, np.inf),
    }
    for name, (low, high) in limits.items():
        if name not in arrays:
            continue
        start = 0
        for (piece,) in pieces(arrays[name]):
            # Written so that NaN, which no comparison holds for, is impossible too.
            inside = (piece >= low) & (piece <= high) & piece.isfinite()
            fine = inside.reshape(len(piece), -1).all(1)
            if not bool(fine.all()):
                row = int((~fine).nonzero()[0])
                value = piece[row].flatten()[0].item()
                raise _impossible(path, name, value, start + row, (low, high))
            start += len(piece)


def _impossible(
    path: Path | str, name: str, value: float, row: int, limits: tuple[float, float]
) -> InputError:
    if name.endswith("logits"):
        return InputError(f"{path}: {name} holds NaN or infinity (example {row})")
    what, (low, high) = "label" if name == "/labels" else name, limits
    return InputError(f"{path}: {what} {value} of example {row} is not in {low:g}..{high:g}")


def set_text(file: h5py.File, name: str, text: str) -> None:
    """Write a text attribute of fixed length.

    A variable-length one lies in a heap without checksum, where one flipped bit can hang HDF5.
    """
    raw = text.encode()
    file.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", len(raw)))


def get_text(file: h5py.File, name: str) -> str | None:
    """Read a text attribute of fixed length; None if there is none of that type."""
    if name not in file.attrs:
        return None
    attribute = file.attrs.get_id(name)
    # Asked of the low level: reading a forged variable-length attribute can hang HDF5.
    kind = attribute.get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str() or attribute.shape:
        return None
    text = file.attrs[name]
    return text.decode() if isinstance(text, bytes) else str(text)


class _Sink(io.FileIO):
    """A file that remembers the first failure to write instead of raising it.

    HDF5 may crash the process when a write fails while it closes a file; this way it never
    learns, and the error is raised once it is done.
    """

    error: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of it, or remember why not."""
        size = memoryview(data).nbytes
        if self.error is not None:
            return size
        try:
            done = 0
            while done < size:
                done += super().write(memoryview(data).cast("B")[done:]) or 0
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        """Set the length, or remember why not: growing may be forbidden as well."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def writing(temporary: Path, path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file for writing, `temporary`, that is to become `path`.

    Raises:
        StorageError: disk full or file-size limit reached.
    """
    with _Sink(temporary, "w+b") as sink:
        try:
            with h5py.File(sink, "w", libver=LIBVER, track_order=False) as file:
                yield file
        except (OSError, RuntimeError):
            if sink.error is None:
                raise
        if sink.error is not None:
            raise storage(sink.error, path)


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return whole rows, at most `CHUNK` of them and about `CHUNK_BYTES`."""
    row = itemsize * math.prod(shape[1:])
    return max(1, min(CHUNK, shape[0], CHUNK_BYTES // max(row, 1))), *shape[1:]


def read_arrays(
    path: Path, kind: str, dtypes: Mapping[str, str], stay: Collection[str] = ()
) -> tuple[dict[str, Rows], dict[str, object]]:
    """Read the named arrays that are there, and the description; check kind, dtype and digest.

    Args:
        path: the file.
        kind: the kind that its description must name.
        dtypes: name → dtype, or several apart by `|`.
        stay: arrays that stay in the file: they are read for the digest, a piece at a time.

    Raises:
        InputError: missing, corrupt, or of another kind.
        MismatchError: another format version.
        BusyError: another process is writing it.
    """
    files.require(path, f"a {kind} file (HDF5)", MAGIC)
    arrays: dict[str, Rows] = {}
    was = mark(path)  # before the first look: what changes while it is read is found out
    try:
        with h5py.File(path, "r") as file:
            text = get_text(file, "advkit")
            provenance.parse(text, path, kind)
            for name, dtype in dtypes.items():
                dataset = _dataset(file, name, path.stat().st_size)
                if dataset is None:
                    continue
                if str(dataset.dtype) not in dtype.split("|"):
                    raise InputError(f"{path}: {name} is {dataset.dtype}, not {dtype}")
                if name in stay:
                    narrow = getattr(torch, str(dataset.dtype))
                    arrays[name] = Stored(path, name, dataset.shape, narrow, was)
                else:
                    reading.require_room(path, dataset.nbytes)
                    arrays[name] = torch.from_numpy(np.asarray(dataset[()]))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise unreadable(path, error) from None
    return arrays, provenance.check(text, _digested(arrays), path, kind)


def _dataset(file: h5py.File, name: str, size: int) -> h5py.Dataset | None:
    """Find one array by its fixed name, never through a link that leaves the file."""
    place: h5py.Group | h5py.Dataset = file
    for part in name.strip("/").split("/"):
        if part not in place:
            return None
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise OSError(f"{name} is a link")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.is_virtual or place.external:
        raise OSError(f"{name} is not a plain dataset")
    if place.compression or place.scaleoffset is not None or place.dtype.kind not in "iuf":
        raise OSError(f"{name} is not plain numbers")
    # Nothing is compressed, so more than the file holds can only be a lie about the shape.
    if place.ndim == 0 or place.nbytes > size:
        raise OSError(f"{name} claims shape {place.shape}, the file has {size} bytes")
    if place.chunks and math.prod(place.chunks) * place.dtype.itemsize > size:
        raise OSError(f"{name} claims chunks {place.chunks}, the file has {size} bytes")
    return place


def _digested(arrays: Mapping[str, Rows]) -> list[Array]:
    """Return arrays as the digest wants them, a piece at a time."""

    def data(rows: Rows) -> Iterator[memoryview]:
        if len(rows.shape) and len(rows):
            for (piece,) in pieces(rows):
                yield np.ascontiguousarray(piece.numpy()).data

    return [
        Array(name, np.dtype(str(rows.dtype)[6:]).str, tuple(rows.shape), data(rows))
        for name, rows in arrays.items()
    ]

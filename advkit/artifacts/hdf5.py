"""HDF5 files of logits: checksummed chunks, one description, nothing written in place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from advkit.artifacts import files, provenance
from advkit.artifacts.provenance import Array
from advkit.errors import InputError, StorageError

MAGIC = b"\x89HDF\r\n\x1a\n"
CHUNK = 4096
CHUNK_BYTES = 8 << 20
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
ROBUST, WRONG = -1, -2
"""Values of broken_by for an example that no attack broke, and for one wrong when clean."""


@dataclass(frozen=True)
class Logits:
    """What a model says of N examples, clean and attacked.

    `index` and `labels` are (N,) int64 (label −1: none), `clean` is (N, C) float32. The rest is
    None after `--attack none`: `adversarial` (N, C) float32, `norm` (N,) float32 with ‖x′ − x‖,
    `broken_by` (N,) int8 (position in `attacks`, −1 robust, −2 wrong when clean), `images`
    (N, channels, H, W) float32 if they were saved.
    """

    index: Tensor
    labels: Tensor
    clean: Tensor
    info: Mapping[str, Any]
    adversarial: Tensor | None = None
    norm: Tensor | None = None
    broken_by: Tensor | None = None
    images: Tensor | None = None
    path: str = ""

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks in the order in which they were run."""
        return list(self.info.get("attacks", []))


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
        name: tensor.detach().cpu().numpy().astype(DTYPES[name])
        for name, tensor in values.items()
        if tensor is not None
    }
    return _write(path, arrays, logits.info)


def read_logits(path: Path | str) -> Logits:
    """Read a logits file, checking shapes, values and digest.

    Raises:
        InputError: missing, corrupt, of another kind, or holding impossible values.
    """
    arrays, info = read_arrays(Path(path), "logits", DTYPES)
    classes = _classes(path, arrays)
    labels = arrays["/labels"]
    if labels.size and (labels.min() < -1 or labels.max() >= classes):
        bad = int(np.flatnonzero((labels < -1) | (labels >= classes))[0])
        raise InputError(f"{path}: label {labels[bad]} of example {bad} is not in 0..{classes - 1}")
    for name in ("/clean/logits", "/adversarial/logits"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise InputError(f"{path}: {name} holds NaN or infinity")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Logits(
        index=tensors["/index"],
        labels=tensors["/labels"],
        clean=tensors["/clean/logits"],
        adversarial=tensors.get("/adversarial/logits"),
        norm=tensors.get("/adversarial/norm"),
        broken_by=tensors.get("/adversarial/broken_by"),
        images=tensors.get("/adversarial/images"),
        info=info,
        path=str(path),
    )


def read_info(path: Path | str, kind: str) -> dict[str, Any]:
    """Read the description of an HDF5 artifact, with its digest checked."""
    return read_arrays(Path(path), kind, DTYPES)[1]


def _classes(path: Path | str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Check that the shapes agree and return C."""
    missing = {"/index", "/labels", "/clean/logits"} - arrays.keys()
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}")
    if arrays["/clean/logits"].ndim != 2:
        raise InputError(f"{path}: /clean/logits is not (N, C)")
    n, classes = arrays["/clean/logits"].shape
    for name, array in arrays.items():
        wide = name.endswith("logits")
        if len(array) != n or (wide and array.shape != (n, classes)):
            raise InputError(f"{path}: {name} has shape {array.shape}, clean logits {n, classes}")
    if n == 0:
        raise InputError(f"{path}: holds no example")
    return int(classes)


def _write(
    path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], description: Mapping[str, Any]
) -> str:
    digest = provenance.digest(description, _digested(arrays))
    text = provenance.canonical({**description, "digest": digest})
    with files.replacing(path) as temporary:
        try:
            with h5py.File(temporary, "w", libver=LIBVER) as file:
                for name, array in arrays.items():
                    chunk = chunk_shape(array.shape, array.itemsize)
                    file.create_dataset(name, data=array, chunks=chunk, fletcher32=True)
                file.attrs["advkit"] = text
        except RuntimeError as error:  # h5py's word for a disk that is full at close
            raise StorageError(f"cannot write {path}: {error}; earlier files are intact") from error
    return digest


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return whole rows, at most `CHUNK` of them and about `CHUNK_BYTES`."""
    row = itemsize * math.prod(shape[1:])
    return max(1, min(CHUNK, shape[0], CHUNK_BYTES // max(row, 1))), *shape[1:]


def read_arrays(
    path: Path, kind: str, dtypes: Mapping[str, str]
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Read the named arrays that are there, and the description; check kind, dtype and digest.

    Args:
        path: the file.
        kind: the kind that its description must name.
        dtypes: name → dtype, or several apart by `|`.

    Raises:
        InputError: missing, corrupt, or of another kind.
        MismatchError: another format version.
    """
    files.require(path, f"a {kind} file (HDF5)", MAGIC)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("advkit")
            text = text if isinstance(text, str) else None
            provenance.parse(text, path, kind)
            for name, dtype in dtypes.items():
                array = _dataset(file, name)
                if array is not None:
                    if str(array.dtype) not in dtype.split("|"):
                        raise InputError(f"{path}: {name} is {array.dtype}, not {dtype}")
                    arrays[name] = array
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: truncated or corrupt: {reason}") from None
    return arrays, provenance.check(text, _digested(arrays), path, kind)


def _dataset(file: h5py.File, name: str) -> np.ndarray[Any, Any] | None:
    """Read one array by its fixed name, never through a link that leaves the file."""
    place: Any = file
    for part in name.strip("/").split("/"):
        if part not in place:
            return None
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise OSError(f"{name} is a link")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.external:
        raise OSError(f"{name} is not a plain dataset")
    return np.asarray(place[()])


def _digested(arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[Array]:
    return [
        Array(name, array.dtype.str, array.shape, np.ascontiguousarray(array).data)
        for name, array in arrays.items()
    ]

"""Labels files: a teacher's logits for a whole training split, written in finished parts.

One file serves every temperature, because temperature is applied when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import torch
from torch import Tensor

from advkit.artifacts import checkpoint, describing, descriptions, files, provenance
from advkit.artifacts.descriptions import Description
from advkit.artifacts.hdf5 import Numbers, chunk_shape, read_arrays, set_text, writing
from advkit.artifacts.provenance import Array
from advkit.artifacts.rows import Rows, Stored, in_order, loaded, pieces
from advkit.errors import InputError, MismatchError
from advkit.parallel import shards

DTYPES = {
    "/index": "int64",
    "/labels": "int64",
    "/views": "uint8",
    "/logits": "float32|float16",
    "/classes": "int16",
    "/rest": "float32|float16",
}
Arrays = dict[str, Numbers]
"""Name of a dataset → its rows."""
LARGE = {"/logits", "/classes"}
"""What can stay in the file until it is looked at."""
PIECE = 1 << 12
"""Rows read at once when a digest is taken over a file."""


@dataclass(frozen=True)
class SoftLabels:
    """A teacher's logits of N examples under V views.

    `logits` (N, V, C), row maximum subtracted; with `--top-k` (N, V, K), the classes they
    belong to in `classes` (N, V, K) and the log-sum-exp of all others in `rest` (N, V).
    `views` (N, V, 3) = (dy, dx, flip), None where the plain image stands for every view.
    `logits` and `classes` may still be in the file.
    """

    index: Tensor
    labels: Tensor
    logits: Rows
    views: Tensor | None
    info: descriptions.Labels
    classes: Rows | None = None
    rest: Tensor | None = None
    path: str = ""

    @property
    def class_count(self) -> int:
        """C."""
        return len(self.info["data"]["classes"])

    def piece(self, rows: slice) -> SoftLabels:
        """Return a range of its examples, in memory."""
        return replace(
            self,
            index=self.index[rows],
            labels=self.labels[rows],
            logits=self.logits[rows],
            views=None if self.views is None else self.views[rows],
            classes=None if self.classes is None else self.classes[rows],
            rest=None if self.rest is None else self.rest[rows],
        )

    def by_index(self) -> SoftLabels:
        """Return its examples in order of their index."""
        order = self.index.argsort(stable=True)
        if torch.equal(order, torch.arange(len(order))):
            return self
        return replace(
            self,
            index=self.index[order],
            labels=self.labels[order],
            logits=in_order(self.logits, order),
            views=None if self.views is None else self.views[order],
            classes=None if self.classes is None else in_order(self.classes, order),
            rest=None if self.rest is None else self.rest[order],
        )

    def at(self, rows: Tensor, view: Tensor) -> Tensor:
        """Return logits (B, C), float32 or wider, of rows (B,) under views (B,).

        With `--top-k` the rest mass is spread evenly over the other classes: exact for the
        kept classes at temperature 1, an approximation at others.
        """
        wide = torch.promote_types(self.logits.dtype, torch.float32)
        top = loaded(self.logits)[rows, view].to(wide)
        if self.classes is None or self.rest is None:
            return top
        others = self.class_count - top.shape[1]
        # rest is log Σ exp over the others: log of each one's even share is rest − log others.
        even = self.rest[rows, view].to(wide) - math.log(max(others, 1))
        full = even[:, None].expand(-1, self.class_count).clone()
        return full.scatter(1, loaded(self.classes)[rows, view].long(), top)


def read(path: Path | str, *, stay: bool = False) -> SoftLabels:
    """Read a labels file, checking shapes, values and digest.

    Args:
        path: the file.
        stay: leave what is large in the file, for `SoftLabels.piece` to fetch.

    Raises:
        InputError: missing, corrupt, of another kind, a shard, or holding impossible values.
    """
    path = Path(path)
    arrays, info = read_parts(path, LARGE if stay else ())
    shard = shards.said(info)
    if shard is not None:
        raise InputError(
            f"{path}: shard {shard} of a labels file: "
            "join the shards with advkit softlabels --merge"
        )
    rest = arrays.get("/rest")
    views = arrays.get("/views")
    return SoftLabels(
        index=loaded(arrays["/index"]),
        labels=loaded(arrays["/labels"]),
        logits=_by_view(arrays["/logits"], 3),
        views=None if views is None else loaded(views),
        classes=_by_view(arrays["/classes"], 3) if "/classes" in arrays else None,
        rest=None if rest is None else loaded(_by_view(rest, 2)),
        info=info,
        path=str(path),
    )


def _by_view(array: Rows, dimensions: int) -> Rows:
    """Return (N, V, …); a file of one view lacks the dimension."""
    if len(array.shape) == dimensions:
        return array
    return array.apart() if isinstance(array, Stored) else loaded(array)[:, None]


def read_parts(
    path: Path, stay: Collection[str] = ()
) -> tuple[dict[str, Rows], descriptions.Labels]:
    """Read the arrays and the description of a labels file or of a shard of one, both checked.

    Args:
        path: the file.
        stay: arrays that stay in the file.

    Raises:
        InputError: missing, corrupt, of another kind, or holding impossible values.
    """
    arrays, described = read_arrays(path, "labels", DTYPES, stay)
    info = cast(descriptions.Labels, described)  # checked as one when it was parsed
    missing = {"/index", "/labels", "/logits"} - arrays.keys()
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}")
    classes = len(info["data"]["classes"])
    _require_shapes(arrays, classes, path)
    _require_order(loaded(arrays["/index"]), shards.said(info) is not None, path)
    _require_values(arrays, classes, path)
    return arrays, info


def _require_order(index: Tensor, shard: bool, path: Path) -> None:
    # A shard's rows keep their positions in the split, so that the join can check them.
    first = int(index[0]) if shard else 0
    if not torch.equal(index, torch.arange(first, first + len(index))):
        what = "the shard" if shard else "the split"
        raise InputError(f"{path}: /index is not every position of {what} in order")


def _require_shapes(arrays: Mapping[str, Rows], classes: int, path: Path) -> None:
    """Refuse shapes that no labelling writes."""
    short = "/classes" in arrays
    if short != ("/rest" in arrays):
        raise InputError(f"{path}: /classes and /rest belong together")
    shape = tuple(arrays["/logits"].shape)
    plain = len(shape) == 2
    if len(shape) not in (2, 3) or 0 in shape or not (short or shape[-1] == classes):
        raise InputError(f"{path}: /logits has shape {shape} for {classes} classes")
    n, views, width = (shape[0], 1, shape[1]) if plain else shape
    wanted = {
        "/index": (n,),
        "/labels": (n,),
        "/views": (n, views, 3),
        "/classes": (n, width) if plain else (n, views, width),
        "/rest": (n,) if plain else (n, views),
    }
    for name, right in wanted.items():
        if name in arrays and tuple(arrays[name].shape) != right:
            shape = tuple(arrays[name].shape)
            raise InputError(f"{path}: {name} has shape {shape}, not {right}")


def _require_values(arrays: Mapping[str, Rows], classes: int, path: Path) -> None:
    """Refuse values that no labelling writes."""
    for name in arrays.keys() & {"/labels", "/classes"}:
        if not all(bool(((p >= 0) & (p < classes)).all()) for (p,) in pieces(arrays[name])):
            raise InputError(f"{path}: {name} holds a class outside 0..{classes - 1}")
    if "/rest" in arrays and not bool(loaded(arrays["/rest"]).isfinite().all()):
        raise InputError(f"{path}: /rest holds NaN or infinity")
    row = 0
    for (piece,) in pieces(arrays["/logits"]):
        bad = ~piece.isfinite().flatten(1).all(1)
        if bool(bad.any()):
            row += int(bad.nonzero()[0])
            raise InputError(f"{path}: the logits of row {row} are not finite")
        row += len(piece)


def parts_of(out: Path) -> Path:
    """Return the folder of a labels file's parts."""
    return out.with_name(f"{out.name}.parts")


class Writer:
    """Parts of a labels file in a folder beside it; each appears whole.

    `identity` is what the parts must agree on: parts of other work are made anew. `hits` counts
    the views that the teacher classified right, over the parts so far.
    """

    def __init__(self, out: Path, identity: Mapping[str, object]) -> None:
        self.out = out
        self.folder = files.folder(parts_of(out))
        self.identity = {"schema": provenance.SCHEMA, "kind": "part", **identity}
        self.hits = 0

    def has(self, number: int, known: Mapping[str, Tensor]) -> bool:
        """Whether a part is finished, whole, and of this work.

        Args:
            number: of the part.
            known: what it holds whatever the teacher says, such as /index and /labels.
        """
        path = self._path(number)
        if not path.exists():
            return False
        try:
            tensors, info = checkpoint.read(path, "part")
        except (InputError, MismatchError):  # torn, or of another version: made anew
            return False
        hits, rows = info.get("hits", 0), len(known["/index"])
        expected = {**self.identity, "number": number, "hits": hits, "digest": info["digest"]}
        fit = all(name in tensors and torch.equal(tensors[name], known[name]) for name in known)
        fit = fit and "/logits" in tensors and tensors.keys() <= DTYPES.keys()
        fit = fit and all(tensor.dim() > 0 and len(tensor) == rows for tensor in tensors.values())
        if expected != {"hits": hits, **info} or not fit or hits > _answers(tensors["/logits"]):
            return False
        self.hits += hits
        return True

    def add(self, number: int, arrays: Mapping[str, Tensor], hits: int) -> None:
        """Write one part: dataset name → rows, and how often the teacher was right in it."""
        description = {**self.identity, "number": number, "hits": hits}
        describing.require_whole(description)
        checkpoint.write(self._path(number), arrays, description)
        self.hits += hits

    def finish(self, numbers: Iterable[int], description: Description) -> str:
        """Join the parts into the file, one in memory at a time; return the digest.

        Raises:
            StorageError: disk full, folder gone.
        """
        digest = write(self.out, (self._part(number) for number in numbers), description)
        self.discard()
        return digest

    def discard(self) -> None:
        """Remove the parts."""
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def _part(self, number: int) -> Arrays:
        tensors, _ = checkpoint.read(self._path(number), "part")
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05}.safetensors"


def _answers(logits: Tensor) -> int:
    """Return how many rows of logits there are, over all views."""
    return logits.numel() // max(logits.shape[-1], 1)


def write(out: Path, parts: Iterable[Arrays], description: Description) -> str:
    """Write a labels file atomically, part by part; return its digest.

    The same parts give the same bytes, whoever made them.

    Raises:
        StorageError: disk full, folder gone.
    """
    with files.replacing(out) as temporary, writing(temporary, out) as file:
        for part in parts:
            for name, array in sorted(part.items()):
                _append(file, name, array)
        # Over the rows as they were stored, piece by piece: the file may not fit into memory.
        digest = provenance.digest(description, _pieces(file))
        set_text(file, "advkit", provenance.canonical({**description, "digest": digest}))
    return digest


def _append(file: h5py.File, name: str, array: Numbers) -> None:
    start = len(file[name]) if name in file else 0
    if name not in file:
        file.create_dataset(
            name,
            shape=array.shape,
            maxshape=(None, *array.shape[1:]),
            dtype=array.dtype,
            chunks=chunk_shape(array.shape, array.itemsize),
            fletcher32=True,  # without it one flipped bit in four is read in silence
        )
    file[name].resize(start + len(array), axis=0)
    file[name][start:] = array


def _pieces(file: h5py.File) -> list[Array]:
    """Return the arrays of an open file as the digest wants them, read piece by piece."""

    def rows(dataset: h5py.Dataset) -> Iterator[memoryview]:
        for start in range(0, len(dataset), PIECE):
            yield np.ascontiguousarray(dataset[start : start + PIECE]).data

    return [
        Array(name, file[name].dtype.str, file[name].shape, rows(file[name]))
        for name in DTYPES
        if name in file
    ]

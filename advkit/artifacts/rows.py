"""Arrays with a row for each example, of which as much is in memory as is looked at.

A tensor is one; so is an array that stays in its file. Files of any length are gone through in
bounded memory by `pieces` and `piecewise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import h5py
import torch
from torch import Tensor

from advkit.errors import InputError, brief

PIECE_BYTES = 32 << 20
"""What a piece holds at most, in the array's own dtype."""
PIECE = 1 << 14
"""Rows of a piece at most."""


class Rows(Protocol):
    """An array (N, …) that can be asked for some of its rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what it gives."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Return a range of rows, or those at places (B,) int64 or with (N,) bool true."""


Mark = tuple[int, int, int]


def mark(path: Path) -> Mark:
    """Return what changes when a file is replaced or rewritten."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Stored:
    """A dataset that stays in its file, which is opened for each look at it.

    `shape` may have dimensions of 1 that the file lacks.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    mark: Mark

    def apart(self) -> Stored:
        """Return it with a dimension of 1 after the first."""
        return replace(self, shape=(self.shape[0], 1, *self.shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        try:
            # Its digest was checked when it was opened: a file replaced since then was not.
            if mark(self.path) != self.mark:
                raise InputError(f"{self.path}: it changed while it was read")
            with h5py.File(self.path, "r") as file:
                read = self._read(file[self.name], rows)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise InputError(f"{self.path}: truncated or corrupt: {brief(error)}") from None
        return read.view(len(read), *self.shape[1:])

    def _read(self, dataset: h5py.Dataset, rows: slice | Tensor) -> Tensor:
        if isinstance(rows, slice):
            return torch.from_numpy(dataset[rows])
        places = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        scattered = torch.empty((len(places), *dataset.shape[1:]), dtype=self.dtype)
        # HDF5 takes scattered rows one by one: whole blocks are faster, and each is bounded.
        block = torch.div(places, height(self), rounding_mode="floor")
        for number in torch.unique(block).tolist():
            start, chosen = number * height(self), block == number
            whole = torch.from_numpy(dataset[start : start + height(self)])
            scattered[chosen] = whole[places[chosen] - start]
        return scattered


@dataclass(frozen=True)
class Ordered:
    """The rows of an array in another order: row k is row `order[k]`; `order` is (N,) int64."""

    rows: Rows
    order: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return tuple(self.rows.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of what it gives."""
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.rows[self.order[rows]]


def in_order(array: Rows, order: Tensor) -> Rows:
    """Return the rows at places `order`, (N,) int64: of what stays in its file, a view."""
    return array[order] if isinstance(array, Tensor) else Ordered(array, order)


def height(rows: Rows) -> int:
    """Return how many rows a piece has."""
    row = rows.dtype.itemsize * math.prod(rows.shape[1:])
    return max(1, min(PIECE, PIECE_BYTES // max(row, 1)))


def pieces(*arrays: Rows) -> Iterator[tuple[Tensor, ...]]:
    """Yield the arrays' rows, from the first on, a piece at a time.

    Args:
        arrays: of N rows each; how many a piece has goes by the widest.
    """
    step = min(height(array) for array in arrays)
    for start in range(0, len(arrays[0]), step):
        yield tuple(array[start : start + step] for array in arrays)


def piecewise(function: Callable[..., Tensor], *arrays: Rows) -> Tensor:
    """Apply a function to all arrays a piece at a time and join the results.

    Args:
        function: of tensors with B rows each, to a tensor with B rows.
        arrays: with N ≥ 1 rows each.
    """
    return torch.cat([function(*piece) for piece in pieces(*arrays)])


def argmax(logits: Rows) -> Tensor:
    """Return each row's first greatest class, (N,) int64, of logits (N, C)."""
    return piecewise(lambda z: z.argmax(1), logits)


def loaded(array: Rows) -> Tensor:
    """Return all of it as a tensor."""
    return array if isinstance(array, Tensor) else array[:]

"""Finished batches of an evaluation, kept beside its output until it is whole.

Unfinished work has four stores, because what is lost by a kill differs. Here a batch changes rows
all over the examples, so one file of all rows is rewritten. Parts of a labels file
(`artifacts.soft_labels.Writer`) are final when written, and only joined. Shards
(`artifacts.sharing`) are whole files that other processes finish. A search (`search.ledger`) adds
lines to a file that people read. The first two share `artifacts.checkpoint`, which makes a file
whole or absent and checks its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from torch import Tensor

from advkit.artifacts import checkpoint, describing, descriptions, provenance
from advkit.errors import InputError, MismatchError

KIND, LAYOUT = "partial", 4
Patch = tuple[Tensor, Tensor]
"""Rows (B,) and their images (B, C, H, W)."""


class Partial:
    """The books of an unfinished evaluation in one file, rewritten after each batch.

    Images, which are large, go to numbered files of their own, one for each batch, so that what
    is written grows with the examples and not with their square.
    """

    def __init__(self, path: Path, identity: Mapping[str, object]) -> None:
        self.path = path
        self.identity = {"schema": provenance.SCHEMA, "kind": KIND, "layout": LAYOUT, **identity}
        self.patches = 0

    def save(self, books: Mapping[str, Tensor], done: tuple[int, int], patch: Patch | None) -> None:
        """Keep what is known after a batch.

        Args:
            books: all examples' tensors.
            done: (pass, batches of it) that are behind us.
            patch: the images that this batch changed.

        Raises:
            StorageError: disk full, folder read-only or gone.
        """
        describing.require_whole(self.identity)
        # Images first: books that name a patch find it in place.
        if patch is not None and len(patch[0]):
            tensors = dict(zip(("rows", "images"), patch, strict=True))
            description = {**self.identity, "number": self.patches}
            checkpoint.write(_numbered(self.path, self.patches), tensors, description)
            self.patches += 1
        state = {"done": list(done), "patches": self.patches}
        checkpoint.write(self.path, books, {**self.identity, **state})

    def load(self) -> tuple[dict[str, Tensor], tuple[int, int], list[Patch]] | None:
        """Return (books, done, patches in their order), None where there are none.

        Raises:
            InputError: a file is corrupt or missing.
            MismatchError: they are another evaluation's.
        """
        if not self.path.exists():
            return None
        books, info = self._read(self.path)
        if "done" not in info or "patches" not in info:
            raise InputError(f"{self.path}: corrupt: it does not say what is done")
        patches = []
        for number in range(info["patches"]):
            place = _numbered(self.path, number)
            tensors, said = self._read(place)
            if said.get("number") != number or tensors.keys() != {"rows", "images"}:
                raise InputError(f"{place}: corrupt: not the images of batch {number}")
            patches.append((tensors["rows"], tensors["images"]))
        self.patches = len(patches)
        return books, (info["done"][0], info["done"][1]), patches

    def _read(self, path: Path) -> tuple[dict[str, Tensor], descriptions.Partial]:
        tensors, info = checkpoint.read(path, KIND)
        if any(info.get(key) != value for key, value in self.identity.items()):
            raise MismatchError(f"{path}: of another evaluation")
        return tensors, cast(descriptions.Partial, info)


def remove(path: Path) -> None:
    """Remove the files of an evaluation that is done, or of another one."""
    for file in files_of(path):
        file.unlink(missing_ok=True)


def files_of(path: Path) -> list[Path]:
    """Return the files that an unfinished evaluation may have left, the books first."""
    with suppress(OSError):  # a folder that may be written but not listed
        names = ((file, *file.name.rpartition(".")) for file in path.parent.iterdir())
        return [path, *(file for file, head, _, n in names if head == path.name and n.isdecimal())]
    return [path]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")

"""Any artifact: told apart by content, not by name."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path

import h5py

from advkit.artifacts import (
    analysis,
    checkpoint,
    descriptions,
    files,
    hdf5,
    provenance,
    soft_labels,
)
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import AdvkitError, MismatchError, brief

Exchanged = (
    descriptions.Checkpoint | descriptions.Labels | descriptions.Logits | descriptions.Analysis
)
"""What describes a file that stages exchange."""
WANTED = "an advkit artifact"


def read_info(path: Path) -> Exchanged:
    """Return the description of a checkpoint, labels, logits or analysis file, digest checked.

    Raises:
        InputError: missing, corrupt, or not an artifact.
        MismatchError: another format version.
    """
    head = files.head(path, WANTED)
    if head.startswith(hdf5.MAGIC):
        kind = _kind(path)
        if kind == "analysis":
            return analysis.read_info(path)
        if kind == "labels":  # shards of one too
            return soft_labels.read_parts(path, soft_labels.LARGE)[1]
        return hdf5.read_logits(path, stay=True).info
    if head.removeprefix(BOM_UTF8).lstrip().startswith(b"{") and path.suffix != ".safetensors":
        return analysis.read_info(path)
    return checkpoint.read_info(path)


def read(path: Path | str, kinds: Sequence[str]) -> Logits | SoftLabels:
    """Read a logits or labels file, whichever of `kinds` it is; what is large stays in it.

    Examples come in order of their index, so that halves and resamples that are drawn by place
    are the same in whatever order the file has them.

    Raises:
        InputError: missing, corrupt, or of another kind.
    """
    path = Path(path)
    files.require(path, f"a {' or '.join(kinds)} file (HDF5)", hdf5.MAGIC)
    kind = _kind(path)
    wanted = kind if kind in kinds else kinds[0]  # the reader of another kind refuses it
    if wanted == "labels":
        return soft_labels.read(path, stay=True).by_index()
    return hdf5.read_logits(path, stay=True).by_index()


def require_digest(path: Path, wanted: str) -> None:
    """Check that a file carries a digest, by its header; whoever reads the file checks the rest.

    Raises:
        InputError: missing, or neither a checkpoint nor an HDF5 file of advkit's.
        MismatchError: it carries another one.
    """
    inside = files.head(path, WANTED).startswith(hdf5.MAGIC)
    text = _description(path) if inside else checkpoint.claimed(path)
    carried = provenance.claimed(text, path).get("digest")
    if carried != wanted:
        raise MismatchError(
            f"{path} is not the file that its record was printed for ({brief(wanted, 19)}; it is "
            f"{brief(carried, 19)}): name the file itself to take it as it is now"
        )


def is_labels(path: Path | str) -> bool:
    """Whether a file claims to hold soft labels; what cannot be read does not."""
    path = Path(path)
    try:
        files.require(path, "a labels file (HDF5)", hdf5.MAGIC)
        return _kind(path) == "labels"
    except AdvkitError:  # its reader says what is wrong
        return False


def _kind(path: Path) -> str:
    """Return the kind that an HDF5 file claims to be."""
    return str(provenance.claimed(_description(path), path)["kind"])


def _description(path: Path) -> str | None:
    """Return the text of an HDF5 file's description."""
    try:
        with h5py.File(path, "r") as file:
            return hdf5.get_text(file, "advkit")
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise hdf5.unreadable(path, error) from None

"""Any artifact: told apart by content, not by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advkit.artifacts import checkpoint, files, hdf5, soft_labels
from advkit.errors import InputError


def read_info(path: Path) -> dict[str, Any]:
    """Return the description of a checkpoint, labels, logits or analysis file, digest checked.

    Raises:
        InputError: missing, corrupt, or not an artifact.
        MismatchError: another format version.
    """
    wanted = "an advkit artifact"
    if path.is_file() and path.read_bytes()[:8] == hdf5.MAGIC:
        return _hdf5_info(path)
    files.require(path, wanted)
    if path.suffix == ".json":
        try:
            info = json.loads(path.read_text(encoding="utf-8"))["advkit"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: not made by advkit") from None
        return dict(info)
    return checkpoint.read_info(path)


def _hdf5_info(path: Path) -> dict[str, Any]:
    try:
        return hdf5.read_info(path, "logits")
    except InputError:
        # Not logits, or not whole: the labels reader says which, in words of its own.
        return dict(soft_labels.read(path).info)

"""Checkpoints: a plain state dict in safetensors with one metadata key, `advkit`.

safetensors has no checksum and orders several metadata keys at random, hence one key with
canonical JSON and a digest of our own inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from advkit.artifacts import files, provenance
from advkit.artifacts.provenance import Array
from advkit.errors import InputError, brief, storage

WANTED = "a checkpoint (.safetensors)"


def write(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """Write tensors and description atomically; return the digest.

    Raises:
        StorageError: disk full, folder read-only or gone.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = provenance.digest(description, _arrays(plain))
    text = provenance.canonical({**description, "digest": digest})
    payload = save(plain, metadata={"advkit": text})
    with files.replacing(path) as temporary:
        try:
            temporary.write_bytes(payload)
        except OSError as error:
            raise storage(error, path) from error
    return digest


def read(path: Path | str, kind: str = "checkpoint") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read (tensors, description), checking kind and digest.

    Raises:
        InputError: missing, truncated, corrupt, of another kind, or not made by advkit.
        MismatchError: another format version.
    """
    path = Path(path)
    files.require(path, WANTED)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("advkit")
            provenance.parse(text, path, kind)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            arrays = _arrays(tensors)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: truncated or corrupt, or not safetensors: {brief(error)}"
        ) from None
    return tensors, provenance.check(text, arrays, path, kind)


def read_info(path: Path | str, kind: str = "checkpoint") -> dict[str, Any]:
    """Read the description, checked like `read`."""
    return read(path, kind)[1]


def _arrays(tensors: Mapping[str, Tensor]) -> list[Array]:
    return [
        Array(
            name,
            str(tensor.dtype),
            tuple(tensor.shape),
            tensor.reshape(-1).view(torch.uint8).numpy().data,
        )
        for name, tensor in tensors.items()
    ]

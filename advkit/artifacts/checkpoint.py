"""Checkpoints: a plain state dict in safetensors with one metadata key, `advkit`.

safetensors has no checksum and orders several metadata keys at random, hence one key with
canonical JSON and a digest of our own inside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from advkit.artifacts import descriptions, files, provenance
from advkit.artifacts.descriptions import Description
from advkit.artifacts.provenance import Array
from advkit.errors import InputError, MismatchError, brief, storage
from advkit.runtime import reading
from advkit.runtime.reporting import Reporter

WANTED = "a checkpoint (.safetensors)"
BROKEN = (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError, AssertionError)
"""How safetensors and torch tell that a file is not what it claims to be."""
HEADER = 16 << 20
"""Bytes of the longest header that is read: room for a hundred thousand tensors."""


class Packed(NamedTuple):
    """A checkpoint before it is written: the bytes of its file, and its digest."""

    payload: bytes
    digest: str


def pack(tensors: Mapping[str, Tensor], description: Description) -> Packed:
    """Return tensors and description as a file holds them."""
    # safetensors refuses strided tensors, and the digest is over bytes in the CPU's memory.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = provenance.digest(description, _arrays(plain))
    text = provenance.canonical({**description, "digest": digest})
    return Packed(save(plain, metadata={"advkit": text}), digest)


def put(path: Path, packed: Packed) -> str:
    """Write a packed checkpoint atomically; return the digest.

    Raises:
        StorageError: disk full, folder read-only or gone.
    """
    with files.replacing(path) as temporary:
        try:
            temporary.write_bytes(packed.payload)
        except OSError as error:
            raise storage(error, path) from error
    return packed.digest


def write(path: Path, tensors: Mapping[str, Tensor], description: Description) -> str:
    """Write tensors and description atomically; return the digest.

    Raises:
        StorageError: disk full, folder read-only or gone.
    """
    return put(path, pack(tensors, description))


@overload
def read(
    path: Path | str, kind: Literal["checkpoint"] = "checkpoint"
) -> tuple[dict[str, Tensor], descriptions.Checkpoint]: ...
@overload
def read(
    path: Path | str, kind: Literal["state"]
) -> tuple[dict[str, Tensor], descriptions.State]: ...
@overload
def read(
    path: Path | str, kind: Literal["part"]
) -> tuple[dict[str, Tensor], descriptions.Part]: ...
@overload
def read(path: Path | str, kind: str) -> tuple[dict[str, Tensor], Any]: ...
def read(path: Path | str, kind: str = "checkpoint") -> tuple[dict[str, Tensor], object]:
    """Read (tensors, description), checking kind and digest.

    Raises:
        InputError: missing, truncated, corrupt, of another kind, or not made by advkit.
        MismatchError: another format version.
    """
    path = Path(path)
    files.require(path, WANTED)
    try:
        # Read once: safetensors' own readers look a file up by name for its header and again
        # for its tensors, and a writer may have replaced it in between.
        raw = _content(path)
        text = _metadata(raw).get("advkit")
        provenance.parse(text, path, kind)
        tensors = load(raw)
        arrays = _arrays(tensors)
    except BROKEN as error:
        raise _broken(path, error) from None
    return tensors, provenance.check(text, arrays, path, kind)


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: truncated or corrupt, or not safetensors: {brief(error)}")


def _content(path: Path) -> bytes:
    """Return all of a file that is as large as its header says.

    Raises:
        ValueError, RecursionError: it is not, or has no such header.
        InputError: it is no regular file, or larger than this machine's memory.
    """
    with reading.opened(path) as file:
        start = file.read(8)
        size = _header_size(start)
        head = file.read(size)
        there = reading.size(file)
        said = 8 + size + _tensor_bytes(_header(head))
        if there != said:
            raise ValueError(f"{there} bytes, its header says {said}")
        reading.require_room(path, there)
        return start + head + file.read(there - 8 - size)


def _header_size(start: bytes) -> int:
    """Return the length of a header from the first eight bytes of a file.

    Raises:
        ValueError: so long that reading it alone would cost what no model needs.
    """
    size = int.from_bytes(start, "little")  # safetensors: u64 length, JSON, then the tensors
    if size > HEADER:
        raise ValueError("it does not begin as such a file does")
    return size


def _header(text: bytes) -> dict[str, object]:
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return header


def _tensor_bytes(header: Mapping[str, object]) -> int:
    """Return where the last tensor of a header ends."""
    ends = [0]
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets = entry["data_offsets"] if isinstance(entry, dict) else None
        if not isinstance(offsets, list) or [type(place) for place in offsets] != [int, int]:
            raise ValueError(f"{brief(name)} has no place in it")
        ends.append(offsets[1])
    return max(ends)


def _metadata(raw: bytes) -> dict[str, str]:
    """Return the text of a safetensors header.

    Raises:
        ValueError: it is none.
        RecursionError: it is too deep.
    """
    metadata = _header(raw[8 : 8 + _header_size(raw[:8])]).get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("the header is no object")
    return metadata


def claimed(path: Path) -> str | None:
    """Return the text of a file's description as it stands there; the tensors are not read.

    Raises:
        InputError: missing, or not safetensors.
    """
    files.require(path, WANTED)
    try:
        with reading.opened(path) as file:
            start = file.read(8)
            return _metadata(start + file.read(_header_size(start))).get("advkit")
    except BROKEN as error:
        raise _broken(path, error) from None


def read_info(path: Path | str) -> descriptions.Checkpoint:
    """Read the description of a checkpoint, checked like `read`."""
    return read(path)[1]


def tell_unfinished(path: Path, reporter: Reporter) -> None:
    """Say that the run beside a checkpoint has not ended, if it has not."""
    if path.with_name(files.STATE).exists():
        reporter.note(f"{path}: its run has not ended (train --resume goes on), and may replace it")


def require_unchanged(path: Path | str, digest: str) -> None:
    """Check that a file still holds the checkpoint that was read from it.

    Raises:
        MismatchError: it was replaced, as by `train --overwrite`, or is gone.
    """
    try:
        same = read_info(path)["digest"] == digest
    except InputError:
        same = False
    if not same:
        raise replaced(path)


def replaced(path: Path | str) -> MismatchError:
    """Return the error for a checkpoint that is another one by now.

    What was made from it would lie beside the other one, under its name.
    """
    return MismatchError(
        f"{path} was replaced or removed while it was in use: nothing is written for it; run the "
        "same command again"
    )


def _arrays(tensors: Mapping[str, Tensor]) -> list[Array]:
    return [
        Array(
            name,
            str(tensor.dtype),
            tuple(tensor.shape),
            tensor.reshape(-1).view(torch.uint8).numpy().data,  # bytes: NumPy has no bfloat16
        )
        for name, tensor in tensors.items()
    ]

"""Foreign files of weights: told apart by content, read without running anything in them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

import advkit
from advkit.artifacts import files
from advkit.artifacts.checkpoint import BROKEN, HEADER
from advkit.doors import nests
from advkit.doors.unpickling import allowed
from advkit.errors import InputError, UsageError, brief
from advkit.runtime import reading

WANTED = "weights (.safetensors, .pt, .pth, .bin, .tar, or a Hugging Face folder)"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Files of a Hugging Face folder."""
PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")
POINTER = b"version https://git-lfs"
PATIENCE = 20
"""Times the processor's seconds that may go by on a clock: a busy machine must refuse no file."""
LONGEST = 1 << 20
"""Bytes of the longest configuration that is read."""


@dataclass(frozen=True)
class Foreign:
    """A state dict as it was found: its source, and what a configuration beside it says."""

    path: Path
    tensors: dict[str, Tensor]
    digest: str
    format: str
    place: str = ""
    classes: Sequence[str] = ()
    statistics: tuple[list[float], list[float]] | None = None
    input_shape: Sequence[int] = ()
    architecture: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """What timm builds the net with, as its configuration says: patch_size, ..."""


def read(path: Path, key: str | None = None) -> Foreign:
    """Read the state dict of a file, or of a Hugging Face folder.

    Args:
        path: of the file or folder.
        key: where in the file the state dict lies, where several fit.

    Raises:
        InputError: missing, of another kind, corrupt, or a pickle that is more than data.
        UsageError: several state dicts and no `key`, or none there.
    """
    if path.is_dir():
        return _folder(path, key)
    head = _head(path)
    # safetensors begins with the length of its JSON.
    if head[8:9] == b"{":
        return _safetensors(path, key)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _pickled(path, key)
    raise InputError(f"{path}: neither safetensors nor a PyTorch file; wanted: {WANTED}")


def _head(path: Path) -> bytes:
    """Return a file's first bytes, having told apart what download tools leave instead of it."""
    files.head(path, WANTED)
    try:
        with reading.opened(path) as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        raise InputError(f"{path}: this is a web page (a failed download?); wanted: {WANTED}")
    if head.startswith(POINTER):
        raise InputError(f"{path}: a Git LFS pointer, not the file that it stands for")
    return head


def _digest(path: Path) -> str:
    with reading.opened(path) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _content(path: Path) -> bytes:
    there = path.stat().st_size
    reading.require_room(path, there)
    return reading.content(path, there)


def _safetensors(path: Path, key: str | None) -> Foreign:
    try:
        raw = _content(path)
        if int.from_bytes(raw[:8], "little") > HEADER:
            raise ValueError("its header is longer than any net's")
        tensors = load(raw)
    except BROKEN as error:
        raise InputError(
            f"{path}: truncated or corrupt, or not safetensors: {brief(error)}"
        ) from None
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    place, chosen = _blaming(path, tensors, key)
    return Foreign(path, chosen, digest, "safetensors", place)


def _blaming(
    path: Path, tensors: dict[str, Tensor], key: str | None
) -> tuple[str, dict[str, Tensor]]:
    try:
        return nests.choose(tensors, key)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _pickled(path: Path, key: str | None) -> Foreign:
    """Have another process read the file; what it makes of it is safetensors.

    Raises:
        InputError, UsageError: as `read`.
    """
    size = path.stat().st_size
    digest = _digest(path)
    with tempfile.TemporaryDirectory(prefix="advkit-import-") as folder:
        out = Path(folder) / WEIGHTS
        answer = _asked([str(path.resolve()), str(out), *([] if key is None else [key])], size)
        if "code" in answer:
            kind = UsageError if answer["code"] == UsageError.code else InputError
            raise kind(f"{path}: {answer['message']}")
        try:
            tensors = load(_content(out))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read: {brief(error)}") from None
    return Foreign(path, tensors, digest, "pytorch", str(answer["place"]))


def _asked(arguments: Sequence[str], size: int) -> Mapping[str, object]:
    """Run the process that unpickles and return what it says.

    Raises:
        InputError: it ran into a limit, or died.
    """
    where = arguments[0]
    # Its own modules alone: what lies in the working directory is none of them.
    paths = [str(Path(advkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-P", "-m", "advkit.doors.unpickling", *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE * allowed(size),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{where}: unpacking takes longer than its size allows") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        answer = None
    if not isinstance(answer, dict):
        # The kernel ends a process at its limits, and a forged file may end it in other ways.
        raise InputError(
            f"{where}: reading it ended the process that did (exit {done.returncode}): it unpacks "
            "to more memory than its size allows, or is corrupt"
        )
    return answer


def _folder(path: Path, key: str | None) -> Foreign:
    """Read a Hugging Face folder: weights, and what its configuration says of the net.

    Raises:
        InputError: one of the two files is missing or corrupt.
    """
    config = _config(path / CONFIG)
    read_weights = _safetensors if _head(path / WEIGHTS)[8:9] == b"{" else None
    if read_weights is None:
        raise InputError(f"{path / WEIGHTS}: not safetensors")
    weights = read_weights(path / WEIGHTS, key)
    pretrained = config.get("pretrained_cfg")
    own = pretrained if isinstance(pretrained, dict) else config
    names = config.get("label_names") or own.get("label_names")
    return Foreign(
        path,
        weights.tensors,
        weights.digest,
        "hf",
        weights.place,
        _names(names, config.get("num_classes", own.get("num_classes"))),
        _statistics(own.get("mean"), own.get("std")),
        _sides(own.get("input_size")),
        str(config.get("architecture", "")),
        arguments if isinstance(arguments := config.get("model_args"), dict) else {},
    )


def _config(path: Path) -> dict[str, object]:
    files.head(path, f"a Hugging Face folder with {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads(reading.text(path, LONGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a configuration: {brief(error)}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a configuration: no object")
    return config


def _names(names: object, count: object) -> list[str]:
    if isinstance(names, list) and len(names) > 1:
        return [str(name) for name in names]
    known = isinstance(count, int) and not isinstance(count, bool) and 1 < count < 10**6
    return [str(number) for number in range(count)] if known and isinstance(count, int) else []


def _sides(sides: object) -> list[int]:
    known = isinstance(sides, list) and len(sides) == 3 and all(type(s) is int for s in sides)
    return [int(side) for side in sides] if known and isinstance(sides, list) else []


def _statistics(mean: object, std: object) -> tuple[list[float], list[float]] | None:
    pair = []
    for values in (mean, std):
        if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
            return None
        pair.append([float(value) for value in values])
    return pair[0], pair[1]

"""Damaged copies of a file, read in a process of their own: parts of `campaign`."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from advkit.artifacts import checkpoint, hdf5, soft_labels
from advkit.errors import AdvkitError
from tests.faults._trials import Campaign, Figures


def content(path: Path) -> Any:
    """All that a file says: its description and the bits of its arrays."""
    if path.suffix == ".safetensors":
        tensors, info = checkpoint.read(path)
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    else:
        if "logits" in path.name:
            read = hdf5.read_logits(path)
            names = ("index", "labels", "clean", "adversarial", "norm", "broken_by")
        else:
            read = soft_labels.read(path)  # type: ignore[assignment]
            names = ("index", "labels", "logits", "views")
        arrays = {name: np.asarray(getattr(read, name)) for name in names}
        info = dict(read.info)
    said = {n: (a.dtype.str, a.shape, np.ascontiguousarray(a).tobytes()) for n, a in arrays.items()}
    return json.dumps(info, sort_keys=True), said


def damaged(raw: bytes, flips: int, cuts: int) -> Iterator[bytes]:
    draw = random.Random(0)
    for _ in range(flips):
        changed = bytearray(raw)
        changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        yield bytes(changed)
    lengths = range(len(raw)) if cuts >= len(raw) else sorted(draw.sample(range(len(raw)), cuts))
    for length in lengths:
        yield raw[:length]


def damage(source: Callable[[Campaign], Path], flips: int, cuts: int | None) -> Any:
    """Read damaged copies of a file, in a process of its own lest a library crashes."""

    def part(campaign: Campaign) -> Figures:
        path = source(campaign)
        raw, expected = path.read_bytes(), content(path)
        copy = campaign.folder / f"damaged-{path.name}"
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            counts = {"trials": 0, "refused": 0, "harmless": 0, "silent_changes": 0, "other": 0}
            for each in damaged(raw, flips, len(raw) if cuts is None else cuts):
                copy.write_bytes(each)
                counts["trials"] += 1
                try:
                    same = content(copy) == expected
                    counts["harmless" if same else "silent_changes"] += 1
                except AdvkitError:
                    counts["refused"] += 1
                except BaseException as error:
                    print(f"  {type(error).__name__}: {error}", file=sys.stderr)
                    counts["other"] += 1
            os.write(writing, json.dumps(counts).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as answers:
            counts = json.loads(answers.read() or b"{}")
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"a reader crashed: {status}"
        losses = counts.pop("other")
        return {**counts, "losses": losses, "bytes": len(raw)}

    return part

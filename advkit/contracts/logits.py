"""Logits files in memory, of random numbers: what analyses are tried on."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from advkit.artifacts.descriptions import Logits as Description
from advkit.artifacts.hdf5 import Logits
from advkit.contracts.scene import CLASSES, COUNT, classes, draws
from advkit.registry import Part


def logits(seed: int, method: str = "at") -> Logits:
    """Return a logits file with its path and description as `advkit attack` would give them."""
    y = classes()
    clean = 4 * F.one_hot(y, CLASSES) + 2 * draws(COUNT, CLASSES, seed=seed)
    adversarial = clean + 3 * draws(COUNT, CLASSES, seed=seed + 1)
    hit = adversarial.argmax(1) != y
    broken_by = torch.where(clean.argmax(1) != y, -2, torch.where(hit, 0, -1)).to(torch.int8)
    checkpoint = {"kind": "checkpoint", "digest": f"sha256:c{seed}", "temperature": 2.0,
                  "seed": seed}  # fmt: skip
    info: dict[str, Any] = {
        "schema": 1,
        "kind": "logits",
        "digest": f"sha256:{seed}",
        "seed": seed,
        "parents": [checkpoint],
        "config": {
            "attack": "pgd",
            "norm": "linf",
            "eps": "8/255",
            "data": "digits",
            "seed": seed,
            "steps": 5,
            "limit": None,
            "batch_size": 250,
        },
        "environment": {},
        "versions": {},
        "attacks": ["pgd"],
        "method": method,
        "arch": "small-cnn",
        "role": "best",
        "data": {
            "name": "digits",
            "split": "test",
            "digest": "sha256:d",
            "classes": [str(c) for c in range(CLASSES)],
        },
    }
    norm = torch.full((COUNT,), 0.03)
    index = torch.arange(COUNT)
    told, path = cast(Description, info), f"run/x{seed}.h5"
    return Logits(index, y, clean, told, adversarial, norm, broken_by, path=path)


def outside(file: Logits) -> Logits:
    """Return the clean logits of a file as those of out-of-distribution data."""
    info = cast(dict[str, Any], file.info)
    data = {**info["data"], "name": "other"}
    told = cast(Description, {**info, "attacks": [], "config": {"attack": "none"}, "data": data})
    none = torch.full_like(file.labels, -1)
    return Logits(file.index, none, file.clean, told, path=file.path)


def inputs(part: Part) -> list[Logits]:
    """Return what an analysis of logits takes."""
    if "outside" in part.constants.get("NEEDS", ()):
        return [logits(0), outside(logits(0))]
    compares = part.constants.get("COMPARES", False)
    return [logits(0, "natural"), logits(10)] if compares else [logits(0)]


def arrays(file: Logits) -> list[Tensor]:
    """Return the arrays of a file."""
    every = (file.index, file.labels, file.clean, file.adversarial, file.norm, file.broken_by)
    return [torch.as_tensor(array) for array in every if array is not None]

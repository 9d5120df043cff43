"""A valid description of each kind, for tests that make files by hand."""

from __future__ import annotations

import copy
from typing import Any

DATA = {"kind": "data", "name": "digits", "split": "train", "digest": "sha256:data"}
NET = {"kind": "checkpoint", "digest": "sha256:net", "method": "natural", "arch": "small-cnn",
       "role": "best", "seed": 0, "parents": [DATA]}  # fmt: skip
RUN = {
    "config": {"norm": "linf", "eps": "8/255", "epochs": 2},
    "parents": [DATA],
    "model": {"arch": "small-cnn", "options": {"width": 2}, "input_shape": [1, 8, 8],
              "mean": [0.5], "std": [0.25]},
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "checkpoint": {**RUN, "role": "best", "metrics": {"clean_accuracy": 0.5, "epoch": 1, "n": 8}},
    "state": {**RUN, "epoch": 1, "step": 0, "best": {}, "alarmed": False},
    "labels": {
        "config": {"data": "digits", "views": "1", "dtype": "float32", "top_k": None, "seed": 0},
        "parents": [NET, DATA], "pad": 1, "flip": False, "teacher_accuracy": 0.5,
    },
    "logits": {
        "config": {"attack": "pgd", "data": "digits", "seed": 0, "batch_size": 250, "limit": None,
                   "norm": "linf", "eps": "8/255", "save_images": False, "steps": 10},
        "parents": [NET, {**DATA, "split": "test"}], "attacks": ["pgd"], "role": "best",
        "zero_gradient": 0.0,
    },
    "analysis": {"config": {"analysis": "calibration"}, "parents": []},
}  # fmt: skip


def described(kind: str, classes: int = 3, **changes: Any) -> dict[str, Any]:
    """Return a description without a digest; `changes` replace or add keys."""
    info: dict[str, Any] = {
        "schema": 1, "kind": kind, "seed": 0, "versions": {"advkit": "0.1.0", "torch": "2.10"},
        "environment": {"device": "cpu", "threads": 1},
    }  # fmt: skip
    if kind != "analysis":
        info |= {"method": "natural", "arch": "small-cnn"}
        info["data"] = {"name": "digits", "classes": [str(each) for each in range(classes)]}
    return copy.deepcopy({**info, **OWN[kind], **changes})

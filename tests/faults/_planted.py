"""NaN and infinity planted where a run or an evaluation could take them in."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.torch import load_file

from advkit.artifacts import checkpoint, soft_labels
from tests.conftest import Outcome
from tests.faults._runs import NET, Server

Plant = Callable[[Server, Path, Path, Path], Outcome]
"""(server, teacher, labels, folder) → how the command ended that met the NaN."""
TRAIN = ["train", *NET, "--epochs", "3", "--attack-steps", "2", "-o", "run"]


def finite(path: Path) -> bool:
    """Whether every number in a file is, by the libraries' own readers."""
    if path.suffix == ".safetensors":
        found = [tensor.double().numpy() for tensor in load_file(path).values()]
    else:
        found = []
        with h5py.File(path) as file:
            file.visititems(
                lambda _, item: (
                    found.append(np.asarray(item)) if isinstance(item, h5py.Dataset) else None
                )
            )
    return all(bool(np.isfinite(array).all()) for array in found)


def spoiled(source: Path, folder: Path, value: float) -> Path:
    """Write a checkpoint with a right digest and one weight that is not finite."""
    tensors, info = checkpoint.read(source)
    name = next(each for each in tensors if each.endswith("weight"))
    tensors[name].view(-1)[3] = value
    path = folder.with_name(f"{folder.name}-in.safetensors")
    checkpoint.write(path, tensors, {k: v for k, v in info.items() if k != "digest"})
    return path


def spoiled_labels(source: Path, folder: Path, value: float) -> Path:
    """Write a labels file with a right digest and one logit that is not finite."""
    path = folder.with_name(f"{folder.name}-in.h5")
    change_labels(source, path, lambda logits: logits.reshape(-1).__setitem__(77, value))
    return path


def change_labels(source: Path, path: Path, change: Callable[[Any], None]) -> None:
    """Write a labels file with other logits and a right digest."""
    arrays, info = soft_labels.read_parts(source)
    found = {name: np.asarray(array).copy() for name, array in arrays.items()}
    change(found["/logits"])
    soft_labels.write(path, [found], {k: v for k, v in info.items() if k != "digest"})


def _weights(value: float, *words: str) -> Plant:
    """A command that takes a checkpoint with a bad weight."""

    def plant(server: Server, teacher: Path, labels: Path, cwd: Path) -> Outcome:
        path = spoiled(teacher, cwd, value)
        return server.run(*[str(path) if word == "?" else word for word in words], cwd=cwd)

    return plant


def _labels(value: float) -> Plant:
    def plant(server: Server, teacher: Path, labels: Path, cwd: Path) -> Outcome:
        path = spoiled_labels(labels, cwd, value)
        return server.run(*TRAIN, "--method", "ltd", "--soft-labels", path, cwd=cwd)

    return plant


def _within(place: str, call: int, *words: str) -> Plant:
    """A command in which a NaN turns up at a call of a place, see `_driver.poison`."""

    def plant(server: Server, teacher: Path, labels: Path, cwd: Path) -> Outcome:
        known = {"?": str(teacher), "!": str(labels)}
        found = [known.get(word, word) for word in words]
        return server.run(*found, cwd=cwd, nan=[place, call])

    return plant


ATTACK = ["attack", "?", "--limit", "12", "-q", "-o", "a.h5"]
NAN, INF = math.nan, math.inf
PLANTED: dict[str, Plant] = {
    "weights, pgd": _weights(NAN, *ATTACK, "--attack", "pgd"),
    "weights, autoattack": _weights(INF, *ATTACK, "--autoattack"),
    "weights, softlabels": _weights(NAN, "softlabels", "?", "-q", "-o", "l.h5"),
    "weights, teacher": _weights(NAN, *TRAIN, "--method", "ltd", "--teacher", "?"),
    "weights, analysis": _weights(NAN, "analyze", "masking", "?", "--limit", "10"),
    "input, pgd": _within("input", 1, *ATTACK, "--attack", "pgd"),
    "input, autoattack": _within("input", 4, *ATTACK, "--autoattack"),
    "input, softlabels": _within("input", 1, "softlabels", "?", "-q", "-o", "l.h5"),
    "input, at": _within("input", 3, *TRAIN, "--method", "at"),
    "input, natural": _within("input", 9, *TRAIN[:-4], "-o", "run", "--method", "natural"),
    "input, trades-adr-awp": _within("input", 8, *TRAIN, "--method", "trades-adr-awp"),
    "loss, at": _within("loss", 7, *TRAIN, "--method", "at"),
    "loss, trades": _within("loss", 1, *TRAIN, "--method", "trades"),
    "loss, mart": _within("loss", 12, *TRAIN, "--method", "mart"),
    "loss, at-awp": _within("loss", 7, *TRAIN, "--method", "at-awp"),
    "loss, at-awp perturbed": _within("loss", 8, *TRAIN, "--method", "at-awp"),
    "gradient, at": _within("gradient", 5, *TRAIN, "--method", "at"),
    "gradient, adr-wa": _within("gradient", 10, *TRAIN, "--method", "adr-wa"),
    "gradient, trades-awp": _within("gradient", 8, *TRAIN, "--method", "trades-awp"),
    "targets, adr": _within("targets", 6, *TRAIN, "--method", "adr"),
    "targets, ltd": _within("targets", 6, *TRAIN, "--method", "ltd", "--soft-labels", "!"),
    "labels file NaN": _labels(NAN),
    "labels file infinity": _labels(-INF),
}
"""Where: what a command does about it, which is to end with 3 or 5 and to save nothing of it."""


def bad(outcome: Outcome) -> bool:
    """Whether a command went on with a NaN as if nothing were wrong."""
    return outcome.code not in (3, 5) or outcome.out != ""

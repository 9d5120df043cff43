"""Logits files paired by checkpoint: its own data with each out-of-distribution set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from advkit.analyses.gathering.entries import Settings, differing, shown
from advkit.analyses.gathering.rows import data_digest, is_outside
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError

HINT = "advkit attack CHECKPOINT --attack none"


@dataclass(frozen=True)
class Model:
    """One checkpoint: its digest, its name among the others, and its logits files.

    `inside` is on its own data, `outside` holds the name and the file of each other data set.
    """

    checkpoint: str
    name: str
    inside: Logits
    outside: tuple[tuple[str, Logits], ...]


def models(inputs: Sequence[Logits]) -> list[Model]:
    """Return each checkpoint with its files, in the order given.

    Of several files on the same examples, as under several attacks, the first is taken: their
    clean logits are the same.

    Raises:
        InputError: no file is out of distribution, or none is in distribution.
        MismatchError: a checkpoint has files of one sort only, or of one data set several on
            other examples.
    """
    outside = [is_outside(logits) for logits in inputs]
    if not any(outside):
        raise InputError(f"no file is out of distribution: make one with {HINT} --data OTHER")
    if all(outside):
        raise InputError(f"{inputs[0].path}: no file is in distribution: make one with {HINT}")
    by_checkpoint: dict[str, list[Logits]] = {}
    for logits in inputs:
        by_checkpoint.setdefault(_checkpoint(logits), []).append(logits)
    names = _names([files[0] for files in by_checkpoint.values()])
    pairs = zip(by_checkpoint.items(), names, strict=True)
    return [_model(digest, name, files) for (digest, files), name in pairs]


def _model(digest: str, name: str, files: Sequence[Logits]) -> Model:
    inside = _distinct([file for file in files if not is_outside(file)])
    outside = _distinct([file for file in files if is_outside(file)])
    if not inside or not outside:
        lacks = "out of" if inside else "in"
        raise MismatchError(
            f"{files[0].path}: no file {lacks} distribution is of the same checkpoint: give one, "
            "or leave this out"
        )
    if len(inside) > 1:
        raise _twice(inside)
    # Six digits of the digest tell data sets of one name apart.
    labels = [file.info["data"]["name"] for file in outside]
    if len(set(labels)) < len(labels):
        labels = [
            f"{file.info['data']['name']} {(data_digest(file) or '')[7:13]}" for file in outside
        ]
    return Model(digest, name, inside[0], tuple(zip(labels, outside, strict=True)))


def _distinct(files: Sequence[Logits]) -> list[Logits]:
    """Return the first file of each data set.

    Raises:
        MismatchError: another one of it is on other examples.
    """
    by_digest: dict[str | None, Logits] = {}
    for file in files:
        first = by_digest.setdefault(data_digest(file), file)
        if not torch.equal(first.index, file.index):
            raise _twice([first, file])
    return list(by_digest.values())


def _twice(files: Sequence[Logits]) -> MismatchError:
    return MismatchError(
        f"{files[0].path} and {files[1].path}: the same checkpoint on other examples: give one"
    )


def _names(files: Sequence[Logits]) -> list[str]:
    """Return for each model its method and the settings in which the models differ."""
    settings = [_settings(file) for file in files]
    wanted = [name for name in differing(settings) if name != "method"]
    names = [
        " ".join([str(own["method"]), shown({key: own.get(key) for key in wanted})]).strip()
        for own in settings
    ]
    return [
        name if names.count(name) == 1 else f"{name} {_checkpoint(file)[7:13]}"
        for name, file in zip(names, files, strict=True)
    ]


def _settings(logits: Logits) -> Settings:
    info = logits.info
    named = {"method": info["method"], "arch": info["arch"], "role": info["role"]}
    return {**named, "seed": info["parents"][0].get("seed")}


def _checkpoint(logits: Logits) -> str:
    return logits.info["parents"][0]["digest"]

"""Two logits files on the same examples, and short names for several files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from advkit.analyses.gathering.entries import attack_options, radius
from advkit.analyses.gathering.rows import data_digest, run_name
from advkit.artifacts import descriptions
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError


@dataclass(frozen=True)
class Pair:
    """Two files and the rows of each, (n,), that hold their common examples in one order."""

    first: Logits
    second: Logits
    first_rows: Tensor
    second_rows: Tensor

    @property
    def n(self) -> int:
        """Common examples."""
        return len(self.first_rows)

    @property
    def whole(self) -> bool:
        """Whether neither file holds an example that the other lacks."""
        return self.n == len(self.first.labels) == len(self.second.labels)

    @property
    def same_model(self) -> bool:
        """Whether both are of one checkpoint."""
        return model_of(self.first).get("digest") == model_of(self.second).get("digest")

    @property
    def same_threat(self) -> bool:
        """Whether norm and ε are the same."""
        first, second = (x.info["config"] for x in (self.first, self.second))
        return (first.get("norm"), radius(first)) == (second.get("norm"), radius(second))

    @property
    def same_attack(self) -> bool:
        """Whether attack, norm, ε and the attack's options are the same, its seed aside."""
        first, second = (attack_options(x.info["config"]) for x in (self.first, self.second))
        return first == second


def paired(first: Logits, second: Logits) -> Pair:
    """Join two files by the examples' places in their data set.

    Where one file's examples are some of the other's (`--limit`), these are the common ones.

    Raises:
        InputError: an example is there twice.
        MismatchError: other data, other labels, or examples of which neither file has all.
    """
    both = f"{first.path} and {second.path}"
    if fingerprint(first) != fingerprint(second):
        names = " and ".join(logits.info["data"]["name"] for logits in (first, second))
        raise MismatchError(
            f"{both}: other data ({names}): only answers to the same images compare"
        )
    for logits in (first, second):
        if len(torch.unique(logits.index)) != len(logits.index):
            raise InputError(f"{logits.path}: holds an example twice")
    rows = _rows(first.index, second.index)
    if len(rows[0]) < min(len(first.index), len(second.index)):
        raise MismatchError(
            f"{both}: {len(rows[0])} common examples of {len(first.index)} and "
            f"{len(second.index)}: attack the same ones (the same --limit)"
        )
    if not torch.equal(first.labels[rows[0]], second.labels[rows[1]]):
        raise MismatchError(f"{both}: other labels for the same images")
    return Pair(first, second, *rows)


def _rows(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if torch.equal(first, second):
        same = torch.arange(len(first))
        return same, same
    # Sorted by place in the data set, so that both files give their rows in one order.
    _, *places = np.intersect1d(
        first.numpy(), second.numpy(), assume_unique=True, return_indices=True
    )
    return torch.from_numpy(places[0]), torch.from_numpy(places[1])


def fingerprint(logits: Logits) -> str | descriptions.Data:
    """Return what tells the file's data from other data."""
    return data_digest(logits) or logits.info["data"]


def model_of(logits: Logits) -> descriptions.Parent:
    """Return the checkpoint as the file names it.

    Raises:
        InputError: it names none.
    """
    for parent in logits.info["parents"]:
        if parent["kind"] == "checkpoint":
            return parent
    raise InputError(f"{logits.path}: names no checkpoint")


def names_of(inputs: Sequence[Logits]) -> list[str]:
    """Return short names that tell files apart: method and seed, and what else differs.

    That is role, attack, norm, ε, steps, data, architecture; then the run's folder; else a number.
    """
    seeds = [model_of(logits).get("seed") for logits in inputs]
    parts = [
        [logits.info["method"], *([] if seed is None else [f"s{seed}"])]  # imported nets have none
        for logits, seed in zip(inputs, seeds, strict=True)
    ]
    # Files down, details along: those are added, one by one, in which the files differ.
    for values in zip(*map(_details, inputs), strict=True):
        if len({" ".join(words) for words in parts}) == len(parts):
            break
        if len(set(values)) > 1:
            for words, value in zip(parts, values, strict=True):
                words += [value] if value is not None else []
    names = [" ".join(words) for words in parts]
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{name} ({number})" if name in twice else name
        for number, name in enumerate(names, start=1)
    ]


def _details(logits: Logits) -> tuple[str | None, ...]:
    info, config = logits.info, logits.info["config"]
    steps = f"{config['steps']} steps" if config.get("steps") else None
    attack = (config["attack"], config.get("norm"), config.get("eps"), steps)
    return (info["role"], *attack, info["data"]["name"], info["arch"], run_name(logits.path))

"""Two logits files on the same examples, and short names for several files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advkit.analyses.gathering.groups import ASIDE, OWN
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError
from advkit.formulas.threat import parse_eps


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
        return threat_of(self.first) == threat_of(self.second)

    @property
    def same_attack(self) -> bool:
        """Whether attack, norm, ε and the attack's options are the same, its seed aside."""
        first, second = (
            {
                name: value
                for name, value in each.info["config"].items()
                if name not in (*ASIDE, "eps")
            }
            for each in (self.first, self.second)
        )
        return self.same_threat and first == second


def paired(first: Logits, second: Logits) -> Pair:
    """Join two files by the examples' places in their data set.

    Where one file's examples are some of the other's (`--limit`), these are the common ones.

    Raises:
        InputError: an example is there twice.
        MismatchError: other data, other labels, or examples of which neither file has all.
    """
    both = f"{first.path} and {second.path}"
    if fingerprint(first) != fingerprint(second):
        names = " and ".join(each.info["data"]["name"] for each in (first, second))
        raise MismatchError(
            f"{both}: other data ({names}): only answers to the same images compare"
        )
    for each in (first, second):
        if len(torch.unique(each.index)) != len(each.index):
            raise InputError(f"{each.path}: holds an example twice")
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
    _, *places = np.intersect1d(
        first.numpy(), second.numpy(), assume_unique=True, return_indices=True
    )
    left, right = (torch.from_numpy(each) for each in places)
    return left, right


def fingerprint(logits: Logits) -> Any:
    """Return what tells the file's data from other data."""
    digests = (each["digest"] for each in logits.info["parents"] if each["kind"] == "data")
    return next(digests, logits.info["data"])


def model_of(logits: Logits) -> dict[str, Any]:
    """Return the checkpoint as the file names it.

    Raises:
        InputError: it names none.
    """
    for each in logits.info["parents"]:
        if each["kind"] == "checkpoint":
            return dict(each)
    raise InputError(f"{logits.path}: names no checkpoint")


def threat_of(logits: Logits) -> tuple[Any, Any]:
    """Return norm and ε; None for both without an attack."""
    config = logits.info["config"]
    if "eps" not in config:
        return None, None
    return config["norm"], parse_eps(config["eps"], config["norm"])


def names_of(inputs: Sequence[Logits]) -> list[str]:
    """Return short names that tell files apart: method and seed, and what else differs.

    That is role, attack, norm, ε, steps, data, architecture; then the run's folder; else a number.
    """
    parts = [[f"{each.info['method']} s{model_of(each).get('seed')}"] for each in inputs]
    details = [_details(each) for each in inputs]
    for name in details[0] if details else ():
        if len(_texts(parts)) == len(parts):
            break
        if len({str(each[name]) for each in details}) > 1:
            for own, detail in zip(parts, details, strict=True):
                own += [str(detail[name])] if detail[name] is not None else []
    texts = [" ".join(own) for own in parts]
    twice = {text for text in texts if texts.count(text) > 1}
    return [
        f"{text} ({number})" if text in twice else text
        for number, text in enumerate(texts, start=1)
    ]


def _texts(parts: Sequence[Sequence[str]]) -> set[str]:
    return {" ".join(own) for own in parts}


def _details(logits: Logits) -> dict[str, Any]:
    config, info = logits.info["config"], logits.info
    own = {name: config.get(name) for name in OWN}
    own["steps"] = f"{own['steps']} steps" if own["steps"] else None
    run = Path(logits.path).resolve().parent.name
    return {
        "role": info["role"],
        **own,
        "data": info["data"]["name"],
        "arch": info["arch"],
        "run": run,
    }

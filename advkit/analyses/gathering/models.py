"""Logits files gathered by the model that they are of, and each robust model's natural one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from advkit.analyses.gathering.pairing import fingerprint, model_of
from advkit.analyses.gathering.rows import entropies, is_outside
from advkit.artifacts import descriptions
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.provenance import canonical
from advkit.errors import InputError

BASELINE = "natural"


@dataclass
class Model:
    """A checkpoint's files: one of labelled test data, and one of each data set without labels."""

    info: descriptions.Logits
    seed: int | None
    path: str
    test: Logits | None = None
    outside: dict[str, Logits] = field(default_factory=dict)

    @property
    def natural(self) -> bool:
        """Whether it was trained without an attack."""
        return self.info["method"] == BASELINE

    @cached_property
    def test_entropy(self) -> Tensor:
        """(N,) of the clean test data, nats; empty without them."""
        return torch.empty(0) if self.test is None else entropies(self.test.clean)

    def outside_entropy(self, data: str) -> Tensor:
        """(N,) of one data set without labels, nats."""
        return entropies(self.outside[data].clean)

    def add(self, logits: Logits) -> None:
        """Take one of its files.

        Raises:
            InputError: there is one of the same data already.
        """
        bare = is_outside(logits)
        # By digest, not by name: two folders of photos may both be called `photos`.
        data = canonical(fingerprint(logits))
        there = self.outside.get(data) if bare else self.test
        if there is not None:
            raise InputError(
                f"{logits.path} and {there.path}: two files of one model on "
                f"{'the same data' if bare else 'labelled data'}: give one of them"
            )
        if bare:
            self.outside[data] = logits
        else:
            self.test = logits


def gathered(inputs: Sequence[Logits]) -> list[Model]:
    """Return the models in the order in which they come.

    Raises:
        InputError: see `Model.add`.
    """
    models: dict[str | None, Model] = {}
    for logits in inputs:
        parent = model_of(logits)
        model = Model(logits.info, parent.get("seed"), logits.path)
        models.setdefault(parent.get("digest"), model).add(logits)
    return list(models.values())


def baseline(model: Model, naturals: Sequence[Model]) -> Model:
    """Return the natural model to compare with: of the same data and architecture.

    Of several the one of the same seed, and of these the one of the same role.

    Raises:
        InputError: there is none, or no way to choose.
    """
    arch, role = model.info["arch"], model.info["role"]
    candidates = [x for x in naturals if x.info["arch"] == arch and _same_test(x, model)]
    if not candidates:
        raise InputError(
            f"{model.path}: no natural model of its architecture ({arch}) on the same data to "
            "compare with"
        )
    # The role alone settles nothing: of several seeds, each has a best and a final one.
    same_seed = [other for other in candidates if other.seed == model.seed]
    candidates = same_seed or candidates
    same_role = [other for other in candidates if other.info["role"] == role]
    candidates = same_role if same_seed and same_role else candidates
    if len(candidates) > 1:
        raise InputError(
            f"{model.path}: {len(candidates)} natural models and none is the one of seed "
            f"{model.seed} and role {role}: give one"
        )
    return candidates[0]


def _same_test(first: Model, second: Model) -> bool:
    if first.test is None or second.test is None:
        return True
    return fingerprint(first.test) == fingerprint(second.test)

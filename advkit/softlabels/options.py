"""Options of the stage that writes a teacher's labels."""

from __future__ import annotations

import re
from dataclasses import dataclass

from advkit.config.machine import Machine, Output, Sharded
from advkit.errors import UsageError, brief
from advkit.options import BATCHES, SEEDS, SIDES, declared

DTYPES = ("float32", "float16")
MOST_VIEWS = 1000
"""Views of an example: CIFAR has 162 that differ."""


@dataclass(frozen=True, kw_only=True)
class SoftlabelsOptions(Machine, Sharded, Output):
    """Options of `advkit softlabels`."""

    views: str = declared("1", "Labels", "1 (the plain image), a count K, or all")
    dtype: str = declared("float32", "Labels", "precision of the file", DTYPES)
    top_k: int | None = declared(
        None, "Labels", "keep K logits a row and the mass of the rest", limits="[1, 1e6]"
    )
    seed: int = declared(0, "Labels", "seed of the K views", limits=SEEDS)
    data: str | None = declared(None, "Data", "data set; the teacher's")
    image_size: int | None = declared(
        None, "Data", "of folder:DIR; the teacher's input size", limits=SIDES
    )
    test_fraction: float | None = declared(
        None, "Data", "of folder:DIR without test/; the teacher's", limits="(0, 1)"
    )
    skip_broken: bool = declared(
        False, "Data", "of folder:DIR: leave out images that cannot be read"
    )
    batch_size: int = declared(500, "Machine", "images in a forward pass", limits=BATCHES)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: one is impossible.
        """
        super().__post_init__()
        # At most four digits, which `int` takes whatever they are.
        counted = re.fullmatch("[0-9]{1,4}", self.views)
        if self.views != "all" and not (counted and 1 <= int(self.views) <= MOST_VIEWS):
            raise UsageError(f"--views {brief(self.views)}: a count from 1 to {MOST_VIEWS}, or all")

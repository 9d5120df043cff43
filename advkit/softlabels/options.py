"""Options of the stage that writes a teacher's labels."""

from __future__ import annotations

from dataclasses import dataclass

from advkit.config.machine import Machine, Output, Sharded
from advkit.options import declared

DTYPES = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class SoftlabelsOptions(Machine, Sharded, Output):
    """Options of `advkit softlabels`."""

    views: str = declared("1", "Labels", "1 (the plain image), a count K, or all")
    dtype: str = declared("float32", "Labels", "precision of the file", DTYPES)
    top_k: int | None = declared(None, "Labels", "keep K logits a row and the mass of the rest")
    seed: int = declared(0, "Labels", "seed of the K views")
    data: str | None = declared(None, "Data", "data set; the teacher's")
    image_size: int | None = declared(None, "Data", "of folder:DIR; the teacher's input size")
    batch_size: int = declared(500, "Machine", "images in a forward pass", limits=">= 1")

"""What soft labels cost: a training epoch against one-hot labels, and writing a large file.

Prints one JSON line: `ratio_stored` is process CPU time of a TRADES epoch with labels from a file
over the same with one-hot labels, `noise` the same epoch twice, and `peak_gib` the memory of
writing logits for many examples and classes.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from _timing import cpu_seconds, ratio
from torch import nn

from advkit import data
from advkit.artifacts.descriptions import Checkpoint
from advkit.bench import measure
from advkit.config import resolve
from advkit.images.image_set import Images, ImageSet
from advkit.runtime.reporting import Reporter
from advkit.softlabels import labelling
from advkit.training.trainer import Trainer


class Counting(nn.Module):
    """A teacher that costs nothing: logits are a fixed random projection of the pixels."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x.flatten(1))
        return logits


def described(images: ImageSet) -> Checkpoint:
    info = {
        "kind": "checkpoint",
        "digest": "none",
        "method": "natural",
        "arch": "linear",
        "role": "best",
        "seed": 0,
        "parents": [],
        "config": {},
        "data": {"name": images.name, "classes": list(images.classes)},
        "metrics": {"clean_accuracy": 0.0},
    }
    return cast(Checkpoint, info)


def write(images: ImageSet, out: Path, views: str) -> None:
    teacher = Counting(math.prod(images.shape), len(images.classes))
    labelling.Labelling(
        teacher,
        described(images),
        images,
        views=views,
        dtype="float32",
        top_k=None,
        seed=0,
        batch_size=500,
        environment={},
    ).write(out)


def epoch(images: ImageSet, folder: Path, **flags: str) -> Callable[[], None]:
    resolved = resolve.resolve(({"data": "digits", "objective": "trades", **flags}, "flag"))
    trainer = Trainer(
        resolved.settings, images, device=torch.device("cpu"), threads=1, reporter=Reporter()
    )

    def run() -> None:
        order = trainer.batches.order(0)
        for step in range(len(trainer.batches)):
            trainer.step(trainer.batches.at(order, 0, step), 0, step)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--examples", type=int, default=300_000)
    parser.add_argument("--classes", type=int, default=1_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        count, classes = given.examples, given.classes
        many = Images(
            "synthetic",
            "train",
            torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8),
            torch.arange(count) % classes,
            tuple(map(str, range(classes))),
            1,
            False,
        )
        write(many, folder / "many.h5", "1")
        size = (folder / "many.h5").stat().st_size
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        digits = data.load("digits", "train")
        write(digits, folder / "digits.h5", "all")
        soft = {"labels": "soft", "inner": "kl", "soft_labels": str(folder / "digits.h5")}
        runs = {
            "onehot": epoch(digits, folder, labels="onehot"),
            "again": epoch(digits, folder, labels="onehot"),
            "stored": epoch(digits, folder, **soft),
        }
        turns = {name: cpu_seconds(run) for name, run in runs.items()}
        seconds = measure.in_turn(turns, given.rounds)
    line = {
        "benchmark": "soft_labels",
        "ratio_stored": ratio(seconds["stored"], seconds["onehot"]),
        "noise": ratio(seconds["again"], seconds["onehot"]),
        "peak_gib": round(peak, 3),
        "file_gib": round(size / 2**30, 3),
        "examples": given.examples,
        "classes": given.classes,
        "rounds": given.rounds,
        "torch": torch.__version__,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

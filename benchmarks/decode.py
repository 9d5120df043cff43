"""Images per second of batches from an ImageNet-like folder, against torchvision's ImageFolder.

Prints one JSON line. All contenders give the same batches of float pixels: random resized crops of
--size pixels, flipped half of the time, from as many workers. `torchvision` is ImageFolder with
ToTensor in a DataLoader with persistent workers, `torchvision_bytes` the same with uint8 on the
way, `torchvision_fresh` the first with new workers every epoch. They take turns of an epoch each
and nobody works in another's turn; a ratio is a contender's wall seconds over ours, round by round,
`cpu_*` the same of the workers' CPU time where Linux tells it, and `noise` is ours in a second set
of workers. `first_ms` is the time until an epoch's first batch; `first_ms_ahead` is ours where
--pause seconds (a validation) lie between epochs, in which the next one is begun.

The folder holds JPEG files of a smooth random pattern with noise, as large as ImageNet's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import _machine
import numpy as np
import torch
from _timing import ratio
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from advkit import data
from advkit.bench import measure
from advkit.images.batches import Batches
from advkit.images.files import Files

WIDE, HIGH, NOISE, QUALITY = 500, 375, 22, 92
CLASSES = 10


class Turn(NamedTuple):
    """Seconds of an epoch, until its first batch, and CPU seconds of the workers (0: unknown)."""

    wall: float
    first: float
    cpu: float


def write(root: Path, count: int) -> None:
    """Write `count` JPEG images in class folders under train/."""
    draw = np.random.default_rng(0)
    for number in range(count):
        small = draw.integers(0, 256, (13, 17, 3), dtype=np.uint8)
        smooth = Image.fromarray(small).resize((WIDE, HIGH), Image.Resampling.BICUBIC)
        noise = draw.integers(-NOISE, NOISE + 1, (HIGH, WIDE, 3))
        pixels = (np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8)
        folder = root / "train" / f"n{number % CLASSES:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:06d}.JPEG", quality=QUALITY)


def cpu_of(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes, 0 where the system does not tell."""
    total = 0.0
    for pid in pids:
        try:
            fields = (
                Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            )
        except OSError:
            return 0.0
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


class Contender:
    """One way to get the batches of an epoch."""

    def __init__(self, batches: Callable[[int], Iterator[Tensor]]) -> None:
        self.batches, self.pids, self.epoch = batches, set[int](), 0

    def turn(self, _: int) -> Turn:
        before, cpu, began = children(), cpu_of(self.pids), time.perf_counter()
        first = 0.0
        for x in self.batches(self.epoch):
            first = first or time.perf_counter() - began
            assert x.dtype == torch.float32
        wall = time.perf_counter() - began
        self.epoch += 1
        if not self.pids:
            # Theirs that were new in this turn and live on; the first turn is not counted.
            self.pids = children() - before
        return Turn(wall, first, cpu_of(self.pids) - cpu)


def ours(batches: Batches) -> Callable[[int], Iterator[Tensor]]:
    return lambda epoch: (batch.x for batch in batches.epoch(epoch))


def theirs(loader: DataLoader[tuple[Tensor, int]]) -> Callable[[int], Iterator[Tensor]]:
    def batches(_: int) -> Iterator[Tensor]:
        for x, _labels in loader:
            yield x if x.is_floating_point() else x.float().div_(255)

    return batches


def torchvision_loader(
    root: Path, size: int, batch: int, workers: int, last: Callable[..., Tensor], keep: bool
) -> DataLoader[tuple[Tensor, int]]:
    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), last]
    folder = ImageFolder(str(root / "train"), transforms.Compose(steps))
    return DataLoader(
        folder, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=keep
    )


def ahead(batches: Batches, pause: float, rounds: int) -> float:
    """Return the median milliseconds until an epoch's first batch, after a pause."""
    seconds = []
    for epoch in range(rounds + 1):
        began = time.perf_counter()
        for step, _ in enumerate(batches.epoch(epoch)):
            if step == 0 and epoch:
                seconds.append(time.perf_counter() - began)
        time.sleep(pause)
    return round(1000 * statistics.median(seconds), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pause", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="holds train/CLASS/*.JPEG; made if not given")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = given.folder or Path(place)
        if given.folder is None:
            write(root, given.images)
        images = data.load(f"imagenet:{root}", "train", image_size=given.size)
        assert isinstance(images, Files)
        count, size = len(images.labels), given.batch_size

        def batches(epochs: int | None) -> Batches:
            every, cpu = torch.arange(count), torch.device("cpu")
            return Batches(images, every, size, 0, cpu, workers=given.workers, epochs=epochs)

        def loader(
            last: Callable[..., Tensor], keep: bool = True
        ) -> DataLoader[tuple[Tensor, int]]:
            return torchvision_loader(root, given.size, size, given.workers, last, keep)

        # With epochs=1 none is begun before its turn.
        kept = [batches(1), batches(1)]
        contenders = {
            "ours": Contender(ours(kept[0])),
            "noise": Contender(ours(kept[1])),
            "torchvision": Contender(theirs(loader(transforms.ToTensor()))),
            "torchvision_bytes": Contender(theirs(loader(transforms.PILToTensor()))),
            "torchvision_fresh": Contender(theirs(loader(transforms.ToTensor(), keep=False))),
        }
        turns = {name: contender.turn for name, contender in contenders.items()}
        told = measure.in_turn(turns, given.rounds)
        for one in kept:
            one.close()
        through = batches(None)
        first_ahead = ahead(through, given.pause, given.rounds)
        through.close()
        paths = (root / path for path in images.paths)
        mean_bytes = statistics.mean(path.stat().st_size for path in paths)
    passed = len(kept[0]) * size
    others = [name for name in told if name != "ours"]
    wall = {name: [turn.wall for turn in spent] for name, spent in told.items()}
    cpu = {name: [turn.cpu for turn in spent] for name, spent in told.items()}
    line = {
        "benchmark": "decode",
        **{f"ratio_{name}": ratio(wall[name], wall["ours"], 3) for name in others},
        **{
            f"cpu_{name}": ratio(cpu[name], cpu["ours"], 3)
            for name in others
            if min(*cpu[name], *cpu["ours"]) > 0
        },
        "images_per_second": {
            name: round(passed / statistics.median(spent), 1) for name, spent in wall.items()
        },
        "cpu_ms_per_image": {
            name: round(1000 * statistics.median(spent) / passed, 2)
            for name, spent in cpu.items()
            if min(spent) > 0
        },
        "first_ms": {
            name: round(1000 * statistics.median(turn.first for turn in spent), 1)
            for name, spent in told.items()
        },
        "first_ms_ahead": first_ahead,
        "images": count,
        "mean_bytes": round(mean_bytes),
        "size": given.size,
        "batch_size": size,
        "workers": given.workers,
        "rounds": given.rounds,
        "machine": _machine.described(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

"""Cost against size: seconds per image and memory of the stages, and of the analyses, as JSON.

`flat_*` is the CPU time per image of a stage at the largest size over that at the smallest, the
median over rounds; `memory_*` the peak memory in MiB. The nets are tiny, so that anything that
grows faster than the number of images would show; what a run costs once makes the smallest size
dearer. Analyses read one file of `--examples` × `--classes` logits, clean and adversarial, and one
of a quarter of that: memory that is bounded would not grow. (The stated aim is 1,000,000 × 1,000,
8 GB of file: `--examples 1000000`.)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import _machine
import torch
from _contest import Makers, rounds
from _timing import ratio

if TYPE_CHECKING:
    from torch import nn

    from advkit.artifacts.descriptions import Checkpoint
    from advkit.images.image_set import Images

CLASSES = 10
HELD = 100
"""Images set aside for validation, beside those trained on."""
AT_LEAST = 10_000
"""Images of a turn: small sets take several passes."""


def images(count: int, split: str = "train") -> Images:
    from advkit.images.image_set import Images

    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=draw)
    names = tuple(map(str, range(CLASSES)))
    return Images("digits", split, pixels, torch.arange(count) % CLASSES, names, 1, False)


def train(count: int, passes: int) -> Callable[[], None]:
    from advkit.config import resolve
    from advkit.runtime import memory
    from advkit.runtime.reporting import Reporter
    from advkit.training.trainer import Trainer

    memory.keep()
    torch.set_num_threads(1)
    flags = {
        "data": "digits",
        "width": 4,
        "method": "adr",
        "attack_steps": 1,
        "batch_size": 100,
        "val_size": HELD,
    }
    settings = resolve.resolve((flags, "benchmark")).settings
    trainer = Trainer(
        settings, images(count + HELD), device=torch.device("cpu"), threads=1, reporter=Reporter()
    )

    def run() -> None:
        for epoch in range(passes):
            for step, batch in enumerate(trainer.batches.epoch(epoch)):
                trainer.step(batch, epoch, step)

    return run


def _net() -> tuple[nn.Module, Checkpoint]:
    from advkit import models
    from advkit.runtime import memory

    memory.keep()
    torch.set_num_threads(1)
    statistics_ = ((0.5,), (0.25,))
    net = models.build("small-cnn", CLASSES, channels=1, statistics=statistics_, seed=0, width=4)
    info = {
        "kind": "checkpoint",
        "digest": "none",
        "method": "natural",
        "arch": "small-cnn",
        "role": "best",
        "seed": 0,
        "parents": [],
        "config": {"norm": "linf", "eps": "8/255"},
        "data": {"name": "digits", "classes": list(map(str, range(CLASSES)))},
        "model": {"input_shape": [1, 8, 8]},
        "metrics": {"clean_accuracy": 0.0},
    }
    return net.eval(), cast("Checkpoint", info)


def attack(count: int, passes: int) -> Callable[[], None]:
    from advkit.artifacts import hdf5
    from advkit.evaluation.run import Evaluation
    from advkit.evaluation.settings import AttackSettings

    net, info = _net()
    made = images(count, "test")
    settings = AttackSettings(
        "pgd", "linf", "8/255", "digits", options={"steps": 1, "step_size": "eps/4", "restarts": 1}
    )

    def run() -> None:
        with tempfile.TemporaryDirectory() as place:
            for number in range(passes):
                done = Evaluation(net, info, made, settings, environment={})
                logits = done.run(Path(place) / f"{number}.part")
                hdf5.write_logits(Path(place) / f"{number}.h5", logits)

    return run


def softlabels(count: int, passes: int) -> Callable[[], None]:
    from advkit.softlabels import labelling as engine

    net, info = _net()
    made = images(count)

    def run() -> None:
        with tempfile.TemporaryDirectory() as place:
            for number in range(passes):
                engine.Labelling(
                    net,
                    info,
                    made,
                    views="4",
                    dtype="float32",
                    top_k=None,
                    seed=0,
                    batch_size=250,
                    environment={},
                ).write(Path(place) / f"{number}.h5")

    return run


def analysis(name: str, path: str) -> Callable[[], None]:
    from advkit import registry
    from advkit.artifacts import artifact

    torch.set_num_threads(1)
    part = registry.part("analyses", name)
    module = registry.load("analyses", name)

    def run() -> None:
        one = artifact.read(Path(path), part.constants["KINDS"])
        module.analyze(given_to(name, one))

    return run


def given_to(name: str, one: Any) -> list[Any]:
    """Return what an analysis looks at together, made of one file: two models, other data."""
    if name not in ("compare", "findings", "ood"):
        return [one]
    copies = []
    for method in ("natural", "at"):
        for data in ("own", "other"):
            parents = [
                {"kind": "checkpoint", "digest": f"{method} net", "seed": 0},
                {"kind": "data", "digest": data, "name": data},
            ]
            info = {
                **one.info,
                "method": method,
                "parents": parents,
                "data": {**one.info["data"], "name": data},
            }
            outside = data == "other"
            labels = torch.full_like(one.labels, -1) if outside else one.labels
            copies.append(dataclasses.replace(one, info=info, labels=labels))
    return copies[::2] if name == "compare" else copies


def write(path: Path, examples: int, classes: int) -> None:
    """Write a logits file as `advkit attack` would, of random logits."""
    from advkit.artifacts import descriptions, hdf5, provenance

    draw = torch.Generator().manual_seed(0)
    clean = torch.randn(examples, classes, generator=draw)
    names = [str(label) for label in range(classes)]
    info = provenance.describe(
        "logits",
        config={
            "attack": "pgd",
            "norm": "linf",
            "eps": "8/255",
            "data": "random",
            "seed": 0,
            "batch_size": 250,
            "limit": None,
        },
        seed=0,
        parents=[
            {
                "kind": "checkpoint",
                "digest": "none",
                "method": "at",
                "arch": "none",
                "role": "best",
                "seed": 0,
                "temperature": 5.0,
                "parents": [],
            },
            provenance.data_parent("random", "test", "none"),
        ],
        environment={},
        attacks=["pgd"],
        method="at",
        arch="none",
        role="best",
        zero_gradient=0.0,
        trained={},
        data={"name": "random", "split": "test", "classes": names},
    )
    hdf5.write_logits(
        path,
        hdf5.Logits(
            torch.arange(examples),
            torch.arange(examples) % classes,
            clean,
            cast(descriptions.Logits, info),
            clean.roll(1, 0),
            torch.zeros(examples),
            torch.zeros(examples, dtype=torch.int8),
        ),
    )


def stages(given: argparse.Namespace) -> dict[str, object]:
    sizes = [int(word) for word in given.sizes.split(",")]
    makers: Makers = {}
    taken: dict[str, int] = {}
    for work in (train, attack, softlabels):
        for size in sizes:
            passes = max(1, AT_LEAST // size)
            name = f"{work.__name__} {size}"
            makers[name] = (work, {"count": size, "passes": passes})
            taken[name] = size * passes
    turns = rounds(makers, given.rounds)
    line: dict[str, object] = {}
    for stage in ("train", "attack", "softlabels"):
        costs = {
            size: [
                (cpu / taken[f"{stage} {size}"], peak) for cpu, _, peak in turns[f"{stage} {size}"]
            ]
            for size in sizes
        }
        first, last = ([cpu for cpu, _ in costs[size]] for size in (sizes[0], sizes[-1]))
        line[f"flat_{stage}"] = ratio(last, first)
        line[f"microseconds_{stage}"] = {
            size: round(1e6 * statistics.median(cpu for cpu, _ in costs[size]), 2) for size in sizes
        }
        line[f"memory_{stage}"] = {
            size: round(max(peak for _, peak in costs[size])) for size in sizes
        }
    return line


def analyses(given: argparse.Namespace) -> dict[str, dict[int, object]]:
    from advkit import registry

    sizes = (given.examples // 4, given.examples)
    wanted = [
        name
        for name, part in registry.parts("analyses").items()
        if "logits" in part.constants.get("KINDS", ())
        and not part.constants.get("PROBES")
        and name not in given.skip.split(",")
    ]
    line: dict[str, dict[int, object]] = {}
    with tempfile.TemporaryDirectory(dir=given.scratch) as place:
        paths = {size: Path(place) / f"{size}.h5" for size in sizes}
        for size, path in paths.items():
            rounds(
                {"write": (writer, {"path": str(path), "size": size, "classes": given.classes})}, 0
            )
        line["file_mib"] = {
            size: round(path.stat().st_size / 2**20) for size, path in paths.items()
        }
        for name in wanted:
            for size, path in paths.items():
                try:
                    cpu, _, peak = rounds({name: (once, {"name": name, "path": str(path)})}, 1)[
                        name
                    ][0]
                except EOFError:  # its error is on stderr
                    line.setdefault(name, {})[size] = None
                    continue
                line.setdefault(name, {})[size] = {
                    "seconds": round(cpu, 2),
                    "peak_mib": round(peak),
                }
    return line


def writer(path: str, size: int, classes: int) -> Callable[[], None]:
    return lambda: write(Path(path), size, classes)


def once(name: str, path: str) -> Callable[[], None]:
    """Do the work in the turn that counts only; the first does nothing."""
    turns = []

    def run() -> None:
        turns.append(1)
        if len(turns) == 2:
            analysis(name, path)()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="1000,10000,50000", help="numbers of images")
    parser.add_argument("--examples", type=int, default=100_000, help="of the logits file")
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--skip", default="embedding", help="analyses to leave out")
    parser.add_argument("--scratch", help="folder for the logits files")
    parser.add_argument("--only", choices=("stages", "analyses"))
    given = parser.parse_args()
    line: dict[str, object] = {"benchmark": "linear"}
    if given.only != "analyses":
        line |= stages(given)
    if given.only != "stages":
        line["analyses"] = analyses(given)
    line |= {"rounds": given.rounds, "examples": given.examples, "classes": given.classes}
    print(json.dumps({**line, "machine": _machine.described()}))


if __name__ == "__main__":
    main()

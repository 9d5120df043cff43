"""ADR's PGD-10 training step against the usual one, the authors' and torchattacks, as JSON lines.

The net is ResNet-18's form at width 16, images are random and of CIFAR-10's size. All contenders
do the same work from the same weights; each has a process of its own and they take turns. Ratios
are medians over rounds of CPU seconds, theirs over ours; `noise` is ours over ours, in two
processes. `ratio_*` is with batch normalisation in eval mode during the attack (advkit's default),
`ratio_*_train` in train mode (as in ADR's code). `ratio_torchattacks` is PGD alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import _machine
import _plain
import torch
from _contest import Makers, rounds
from _timing import ratio

if TYPE_CHECKING:
    from advkit.images.batches import Batch
    from advkit.training.learner import Learner

CLASSES = 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(size, 3, 32, 32, generator=draw)
    y = torch.randint(0, CLASSES, (size,), generator=draw)
    noise = torch.empty_like(x).uniform_(-_plain.EPS, _plain.EPS, generator=draw)
    return x, y, (x + noise).clamp(0, 1)


def plain(kind: str, bn: str, size: int, width: int, threads: int) -> Callable[[], object]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, y, start = batch(size)
    step = getattr(_plain, kind)(_plain.ResNet18(CLASSES, width, MEAN, STD), bn)
    return lambda: step(x, y, start)


def learner(bn: str, size: int, width: int, threads: int) -> tuple[Learner, Batch]:
    """Return a learner of advkit's as `advkit train --method adr` sets it up, and its batch."""
    from _ours import trainer

    from advkit.images.batches import Batch

    flags = {"width": width, "method": "adr", "attack_bn": bn, "batch_size": size}
    made = trainer(flags, 2 * size, threads).learner
    x, y, _ = batch(size)
    x = x.contiguous(memory_format=torch.channels_last)
    none = torch.zeros(size, dtype=torch.int64)
    return made, Batch(none, x, y, none[:, None], none)


def ours(**given: Any) -> Callable[[], object]:
    made, one = learner(**given)
    return lambda: made.learn(one, 0, 0)


def our_pgd(**given: Any) -> Callable[[], object]:
    from advkit.attacks.pgd import pgd
    from advkit.runtime import modes

    made, one = learner(**given)

    def run() -> None:
        with modes.attack_bn(made.model, "eval"):
            pgd(made.passes, one.x, one.y, made.threat, steps=_plain.STEPS, step_size=_plain.ALPHA)

    return run


def torchattacks_pgd(bn: str, size: int, width: int, threads: int) -> Callable[[], object]:
    import torchattacks  # type: ignore[import-untyped]

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, y, _ = batch(size)
    model = _plain.ResNet18(CLASSES, width, MEAN, STD).train()
    attack = torchattacks.PGD(model, _plain.EPS, _plain.ALPHA, _plain.STEPS, random_start=True)
    return lambda: attack(x, y)


def measured(given: argparse.Namespace, threads: int) -> dict[str, object]:
    shared = {"size": given.batch_size, "width": given.width, "threads": threads}
    makers: Makers = {}
    for bn in ("eval", "train") if given.train_mode else ("eval",):
        mark = "" if bn == "eval" else "_train"
        makers[f"usual{mark}"] = (plain, {"kind": "Usual", "bn": bn, **shared})
        makers[f"authors{mark}"] = (plain, {"kind": "Authors", "bn": bn, **shared})
        makers[f"ours{mark}"] = (ours, {"bn": bn, **shared})
    makers["again"] = (ours, {"bn": "eval", **shared})
    makers["torchattacks"] = (torchattacks_pgd, {"bn": "eval", **shared})
    makers["pgd"] = (our_pgd, {"bn": "eval", **shared})
    turns = rounds(makers, given.rounds)
    clock = 0 if threads == 1 else 1  # threads that wait for each other burn CPU time
    seconds = {name: [turn[clock] for turn in values] for name, values in turns.items()}
    ratios = {
        f"{name}{mark}": ratio(seconds[f"{name}{mark}"], seconds[f"ours{mark}"])
        for mark in (("", "_train") if given.train_mode else ("",))
        for name in ("usual", "authors")
    }
    ratios["torchattacks"] = ratio(seconds["torchattacks"], seconds["pgd"])
    return {
        "benchmark": "step",
        **{f"ratio_{name}": value["median"] for name, value in ratios.items()},
        "noise": ratio(seconds["again"], seconds["ours"]),
        "ranges": {name: [value["min"], value["max"]] for name, value in ratios.items()},
        "seconds": {name: round(statistics.median(values), 4) for name, values in seconds.items()},
        "clock": ("process CPU", "wall")[clock],
        "batch_size": given.batch_size,
        "width": given.width,
        "rounds": given.rounds,
        "threads_measured": threads,
        "machine": _machine.described(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="more than 1 compares wall time")
    parser.add_argument("--train-mode", action="store_true", help="attacks in train mode as well")
    given = parser.parse_args()
    print(json.dumps(measured(given, given.threads)))


if __name__ == "__main__":
    main()

"""What a query of Square takes where a net computes its window alone, as JSON: CPU time, in turn.

A round is five whole passes, the same again (`noise`) and five windows of each size. Ratios are
of the passes over the others: above 1 windows are quicker. `square` is that of all queries, but
for holding images anew when their size changes. Nets are not trained, which changes no time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial

import _machine
import torch
from _timing import cpu_seconds, ratio

from advkit import models
from advkit.bench import measure
from advkit.evaluation import folded, fused, windows
from advkit.runtime import memory

QUERIES = 5
SHARES = {16: 0.1, 32: 0.2, 64: 0.4, 128: 0.2}
"""Of AutoAttack's 5,000 queries, by the part of 0.8 of the image that a window covers; the others,
at the beginning, have wider ones and are taken for whole passes."""


def queries(
    arch: str, width: int | None, images: int, size: int
) -> tuple[dict[str, Callable[[], None]], dict[int, tuple[int, bool]]]:
    """Return the runs of a round, and the side of each part's window and whether it is used."""
    options = {} if width is None else {"width": width}
    statistics = ((0.5,) * 3,) * 2
    net = models.build(arch, 10, channels=3, statistics=statistics, seed=0, **options)
    copy = folded.folded(net)
    form = None if copy is None else fused.fused(copy)
    assert form is not None, "nothing to fuse in this net"
    x = torch.rand(images, 3, size, size).contiguous(memory_format=torch.channels_last)
    kept = torch.zeros(images, dtype=torch.bool)
    kept[::20] = True

    def whole() -> None:
        for _ in range(QUERIES):
            form(x)

    def inside(held: windows.Held, side: int) -> None:
        for _ in range(QUERIES):
            top, left = torch.randint(size - side, (2,)).tolist()
            held.logits(torch.rand(images, 3, side, side), top, left)
            held.keep(kept)

    sides = {part: round((0.8 / part) ** 0.5 * size) for part in SHARES}
    plans = {side: windows.Plan(form, x.shape[1:], side) for side in sides.values()}
    runs: dict[str, Callable[[], None]] = {"whole": whole, "noise": whole}
    for side, plan in plans.items():
        runs[str(side)] = partial(inside, windows.Held(plan, x), side)
    return runs, {part: (side, plans[side].worth(images)) for part, side in sides.items()}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--width", type=int)
    parser.add_argument("--images", type=int, default=70)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    memory.keep()  # as advkit does
    runs, sides = queries(given.arch, given.width, given.images, given.image_size)
    turns = {name: cpu_seconds(run) for name, run in runs.items()}
    taken = measure.in_turn(turns, given.rounds, warm=2)
    ratios = {name: ratio(taken["whole"], taken[name], 3) for name in taken if name != "whole"}
    # A window that is not used costs what the whole pass does.
    share = 1 - sum(SHARES.values())
    for part, (side, used) in sides.items():
        share += SHARES[part] / (ratios[str(side)]["median"] if used else 1)
    line = {
        "benchmark": "windows",
        **vars(given),
        "ratios": ratios,
        "used": [side for side, used in sides.values() if used],
        "square": round(1 / share, 3),
        "machine": _machine.described(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

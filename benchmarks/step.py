"""One PGD-10 training step of advkit against the usual one, interleaved, as one JSON line.

The usual step is that of the paper repositories: `loss.backward()` in the attack with the
parameters trainable, images and weights in NCHW. Figures are process CPU seconds on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional as F

from advkit import models, modes
from advkit.attacks.pgd import pgd
from advkit.losses import cross_entropy
from advkit.threat import Threat

EPS, SIZE, STEPS = 8 / 255, 2 / 255, 10


def net(channels_last: bool) -> torch.nn.Module:
    statistics_ = ((0.5,) * 3, (0.25,) * 3)
    built = models.build("resnet18", 10, channels=3, statistics=statistics_, seed=0, width=16)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return built.to(memory_format=layout).train()


def usual(model, optimizer, x, y) -> None:
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_(True)
        model.zero_grad()
        F.cross_entropy(model(x_adv), y).backward()
        x_adv = x_adv.detach() + SIZE * x_adv.grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    optimizer.zero_grad()
    F.cross_entropy(model(x_adv), y).backward()
    optimizer.step()


def ours(model, optimizer, x, y) -> None:
    with modes.attack_bn(model, "train"):
        x_adv = pgd(model, x, y, Threat("linf", EPS), steps=STEPS, step_size=SIZE)
    optimizer.zero_grad(set_to_none=True)
    cross_entropy(model(x_adv), y).mean().backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(given.batch_size, 3, 32, 32)
    y = torch.randint(0, 10, (given.batch_size,))
    runs = {"usual": (usual, net(False)), "ours": (ours, net(True))}
    optimizers = {k: torch.optim.SGD(m.parameters(), 0.1, 0.9) for k, (_, m) in runs.items()}
    seconds = {name: [] for name in runs}
    for round_ in range(given.rounds + 1):
        for name, (step, model) in runs.items():
            began = time.process_time()
            step(model, optimizers[name], x, y)
            if round_:  # the first round warms up
                seconds[name].append(time.process_time() - began)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [u / o for u, o in zip(seconds["usual"], seconds["ours"], strict=True)]
    line = {
        "benchmark": "step",
        "ratio_usual": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seconds": {name: round(value, 4) for name, value in middle.items()},
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "torch": torch.__version__,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

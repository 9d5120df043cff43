"""How often `analyze masking` is wrong: `make masking-campaign DATA=folder:DIR`, an hour or two.

Honest nets and nets with a planted fault, each trained from SEEDS that no threshold was chosen
on. Nets and verdicts stay in a folder, so that a campaign that was stopped goes on. Without DATA
the kinds of colour images are left out.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from advkit import data
from advkit.__main__ import main
from advkit.analyses import masking
from advkit.analyses.probing.probe import probe
from advkit.formulas.stats import wilson
from advkit.runtime.tempered import Tempered
from tests.analyses._planted import FAULTS, STUDENT, TEACHER, winning

SEEDS = range(5)
COLOUR_SEEDS = range(3)
"""They take minutes each: a ResNet-18 of width 8."""
LIMIT = 200
"""Colour images that are asked about; of the digits all 355."""
DIGITS = ["--data", "digits", "--epochs", "15"]
COLOUR = [
    "--limit",
    "1500",
    "--epochs",
    "6",
    "--width",
    "8",
    "--eps",
    "8/255",
]
LTD = ["--method", "ltd", "--temperature"]
Plant = Callable[[nn.Module], nn.Module]


class Kind(NamedTuple):
    """A kind of net: how it is trained, what is made of it, and what the verdict should be."""

    name: str
    run: str
    options: list[str]
    masked: bool = False
    plant: Plant | None = None
    norm: str = "linf"
    eps: str = "0.15"
    images: str = "digits"


def kinds(colour: str | None) -> Iterator[Kind]:
    """Return every kind, those of colour images if there are any."""
    at = [*DIGITS, "--method", "at"]
    for name in ("at", "adr", "trades", "natural"):
        yield Kind(f"{name}, digits", name, [*DIGITS, "--method", name])
    for t in ("1", "2"):
        yield Kind(f"ltd, T = {t}, digits", f"ltd{t}", [*DIGITS, *LTD, t])
    yield Kind("at in l2, digits", "at-l2", [*at, "--norm", "l2", "--eps", "0.6"],
               norm="l2", eps="0.6")  # fmt: skip
    yield Kind("natural with k-winners, digits", "natural", [*DIGITS, "--method", "natural"],
               plant=winning)  # fmt: skip
    for name, t in (("/ 1000", 1000.0), ("/ 100", 100.0), ("x 10", 0.1)):
        yield Kind(f"at, logits {name}, digits", "at", at, plant=lambda net, t=t: Tempered(net, t))
    if colour:
        for name in ("at", "trades", "natural"):
            inner = [] if name == "natural" else ["--attack-steps", "5"]
            options = ["--data", colour, *COLOUR, "--method", name, *inner]
            yield Kind(f"{name}, 32x32", f"{name}-32", options, eps="8/255", images=colour)
    for fault, (plant, _) in FAULTS.items():
        yield Kind(f"at, {fault}", "at", at, masked=True, plant=plant)
    yield Kind("defensive distillation, T = 20", "student", STUDENT, masked=True)
    yield Kind("ltd, T = 20, digits", "ltd20", [*DIGITS, *LTD, "20"], masked=True)


def trained(folder: Path, kind: Kind, seed: int) -> str:
    """Return the best checkpoint of a kind, trained if it is not there."""
    options = kind.options
    if "--temperature" in options:
        options = [
            *options,
            "--teacher",
            _made(folder, "teacher", "pretrain-teacher", TEACHER, seed),
        ]
    return _made(folder, kind.run, "train", options, seed)


def _made(folder: Path, run: str, command: str, options: list[str], seed: int) -> str:
    where = folder / f"{run}-s{seed}"
    done = main([command, *options, "--seed", str(seed), "-q", "--resume", "-o", str(where)])
    assert done == 0, f"{where}: exit {done}"
    return str(where / "best.safetensors")


def judged(folder: Path, kind: Kind, seed: int) -> dict[str, object]:
    """Return the numbers of a verdict."""
    own = probe(
        trained(folder, kind, seed), data.load(kind.images, "test"), eps=kind.eps, norm=kind.norm,
        limit=LIMIT if kind.images != "digits" else None, device=torch.device("cpu"), seed=seed,
    )  # fmt: skip
    if kind.plant:
        own = dataclasses.replace(own, model=kind.plant(own.model).eval().requires_grad_(False))
    return dict(masking.analyze([own]).numbers)


def page(kinds: list[Kind], verdicts: dict[str, dict[str, object]]) -> str:
    """Return the table in Markdown: a row a kind, and the rates below."""
    lines = [
        "| net | accuracy: clean, PGD, plain CE | masked | checks that failed |",
        "|---|---|---|---|",
    ]
    wrong: dict[bool, list[bool]] = {True: [], False: []}
    for kind in kinds:
        own = [
            verdicts[f"{kind.name} {seed}"] for seed in SEEDS if f"{kind.name} {seed}" in verdicts
        ]
        wrong[kind.masked] += [found["masked"] is not kind.masked for found in own]
        means = [
            sum(float(str(found[f"{name}_accuracy"])) for found in own) / max(1, len(own))
            for name in ("clean", "pgd_more", "plain")
        ]
        failed = sorted(
            {check for found in own for check in str(found["failed"]).split(",") if check}
        )
        count = f"{sum(found['masked'] is True for found in own)} of {len(own)}"
        figures = ", ".join(f"{mean:.2f}" for mean in means)
        lines.append(f"| {kind.name} | {figures} | {count} | {', '.join(failed) or '–'} |")
    for masked, name in ((True, "planted faults not found"), (False, "honest nets called masked")):
        low, high = wilson(sum(wrong[masked]), len(wrong[masked]))
        lines.append(f"\n{name}: {sum(wrong[masked])} of {len(wrong[masked])} "
                     f"[{low:.1%}, {high:.1%}]")  # fmt: skip
    return "\n".join(lines)


def run(folder: Path, colour: str | None) -> None:
    """Judge every kind and seed that has no verdict yet, and print the table."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / "verdicts.jsonl"
    known = ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []
    verdicts = {line["name"]: line for line in map(json.loads, known)}
    every = list(kinds(colour))
    for seed in SEEDS:
        for kind in every:
            name = f"{kind.name} {seed}"
            skipped = kind.images != "digits" and seed not in COLOUR_SEEDS
            if name not in verdicts and not skipped:
                verdicts[name] = {"name": name, **judged(folder, kind, seed)}
                with ledger.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(verdicts[name]) + "\n")
                print(name, verdicts[name]["masked"], verdicts[name]["failed"], file=sys.stderr)
    (folder / "table.md").write_text(page(every, verdicts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)

"""Write the simulated tables of docs/scaling.md; with --check, say if they are stale.

Every figure between the two marks of the page is computed here, in seconds, from a fixed seed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cluster
from cluster import Cluster, Work
from numpy.random import PCG64, Generator

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
BEGIN, END = "<!-- simulated: begin -->\n", "<!-- simulated: end -->\n"
RANKS = (1, 8, 64)
HOURS = 3600.0
GPU_MTBF = 50_000 * HOURS
"""Between failures of one GPU and its share of a machine: 419 in 54 days on 16,384 GPUs make 50,700
hours (Llama Team, "The Llama 3 Herd of Models", arXiv 2407.21783)."""
TAKEN = 4 * HOURS
"""Between two times that a machine on loan is taken away, as an example."""
RESTART = 300.0
"""Seconds until a run goes on: to be started again, to read data and state."""
CORE = 200.0
"""Images a second that one core decodes and crops at 224 pixels; see `benchmarks/decode.py`."""
CORES = (2, 4, 8, 16)
JITTERS = (0.02, 0.05, 0.1, 0.2)

CIFAR, TINY, IMAGENET = 3 * 32**2, 3 * 64**2, 3 * 224**2
LTD = Work(
    # 156 GFLOP an image, 100 TFLOP/s
    "ImageNet, ResNet-50, LTD", 320 * 156e9 / 100e12, 4000, 320, 19, 173, 25.6e6, IMAGENET, copies=2
)  # fmt: skip
WORKS = (
    # Seconds per epoch of one RTX A6000 (ADR, Table 6) over its steps
    Work("CIFAR-10, ResNet-18, AT+ADR", 83 / 382, 382, 128, 24, 67, 11.2e6, CIFAR),
    Work("CIFAR-10, WRN-34-10, AT+ADR", 610 / 382, 382, 128, 24, 113, 46.2e6, CIFAR),
    Work(
        "TinyImageNet, WRN-34-10, AT+AWP+ADR",
        5127 / 773,
        773,
        128,
        27,
        113,
        46.3e6,
        TINY,
        reduced=2,
    ),
    LTD,
    replace(LTD, name="the same, `--noise device`", numbers=0),
)


def stream(*numbers: int) -> Generator:
    """Return the generator of one figure, whatever came before it."""
    return Generator(PCG64([2026, *numbers]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return a table's lines."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def short(value: float) -> str:
    """Return a number with two digits, or all of its whole part.

    >>> short(0.0123), short(1.26), short(126.4), short(0)
    ('0.012', '1.3', '126', '0')
    """
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.2g}"


def share(value: float) -> str:
    """Return a share in percent, with two digits."""
    return f"{short(100 * value)} %"


def steps() -> Iterator[str]:
    """Tell of steps and epochs on 1, 8 and 64 GPUs."""
    rows = []
    for number, work in enumerate(WORKS):
        first = cluster.epoch(stream(0, number, 1), work, Cluster(), 1)
        for ranks in RANKS:
            told = cluster.epoch(stream(0, number, ranks), work, Cluster(), ranks)
            speed = first.seconds / told.seconds
            rows.append(
                [
                    work.name if ranks == 1 else "",
                    str(ranks),
                    short(work.batch / ranks),
                    *(short(1000 * x) for x in (told.device, told.host, told.waited)),
                    *(short(1000 * x) for x in (told.messages, told.step)),
                    short(told.validating + told.saving),
                    short(told.seconds),
                    f"{speed:.1f}",
                    told.largest if ranks > 1 else "",
                ]
            )
    head = ["run", "GPUs", "images each", "GPU, ms", "host, ms", "waiting, ms", "messages, ms"]
    head += ["step, ms", "validation and state, s", "epoch, s", "speed-up", "most is lost to"]
    yield from table(head, rows)


def stragglers() -> Iterator[str]:
    """Tell how much longer than the mean the slowest of n ranks takes."""
    rows = []
    for number, jitter in enumerate(JITTERS):
        cells = [share(jitter)]
        for ranks in RANKS[1:]:
            drawn = cluster.factors(stream(1, number, ranks), jitter, (20_000, ranks))
            cells.append(share(float(drawn.max(axis=1).mean()) - 1))
        rows.append(cells)
    yield from table(["deviation of a rank's step", "8 ranks", "64 ranks"], rows)


def restarts() -> Iterator[str]:
    """Tell what failures, restarts and the states between them take."""
    rows = []
    number = 0
    for ranks in RANKS[1:]:
        for what, mtbf in (("failures", GPU_MTBF / ranks), ("taken away", TAKEN)):
            for work in (WORKS[1], WORKS[-1]):
                told = cluster.epoch(stream(2, number, 0), work, Cluster(), ranks)
                interval, save = told.seconds - told.saving, told.saving
                given = (interval, save, RESTART, mtbf)
                number += 1
                rows.append(
                    [
                        str(ranks),
                        f"{what}, every {short(mtbf / HOURS)} h",
                        work.name.replace("the same", "ImageNet, LTD"),
                        short(interval / 60),
                        share(cluster.lost(stream(2, number, 1), *given)),
                        share(cluster.daly(*given)),
                        share(cluster.young(*given)),
                        short(cluster.optimum(save, mtbf) / 60),
                    ]
                )
    head = ["GPUs", "what ends a run", "run", "state every (an epoch), min", "time lost, simulated"]
    head += ["Daly", "Young", "Young's best interval, min"]
    yield from table(head, rows)


def decoding() -> Iterator[str]:
    """Tell how many images a GPU of an ImageNet run gets and could take."""
    rows = []
    natural = replace(WORKS[-1], name="natural training", passes=3, step=LTD.step * 3 / LTD.passes)
    for number, work in enumerate((replace(WORKS[-1], name="LTD"), natural)):
        for ranks in RANKS[1:]:
            told = cluster.epoch(stream(3, number, ranks), work, Cluster(), ranks)
            images = work.batch / ranks
            wanted = images / told.step
            cells = [work.name, str(ranks), short(wanted), short(wanted / CORE)]
            for cores in CORES:
                taken = cluster.fed(
                    stream(3, number, ranks, cores),
                    cores,
                    images / CORE,
                    told.step,
                    Cluster().jitter,
                )
                cells.append(short(images / taken))
            rows.append(cells)
    head = ["ImageNet, ResNet-50", "GPUs", "images a second each GPU takes", "cores it needs"]
    yield from table([*head, *(f"it gets from {cores} cores" for cores in CORES)], rows)


def filled(page: str) -> str:
    """Return the page with the tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [
        ("Steps and epochs", steps()),
        ("The slowest rank", stragglers()),
        ("Failures and restarts", restarts()),
        ("Decoding", decoding()),
    ]
    texts = [f"### {name}\n\n" + "\n".join(lines) + "\n\n" for name, lines in parts]
    return f"{before}{BEGIN}\n{''.join(texts)}{END}{after}"


def main() -> int:
    """Write the tables, or compare them."""
    page = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        PAGE.write_text(filled(page), encoding="utf-8")
    elif filled(page) != page:
        print("docs/scaling.md is stale: run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

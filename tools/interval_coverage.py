"""How often the study's interval holds the truth, by simulation; writes docs/results/coverage.csv.

Two nets answer N images in each of K seeds. A verdict is right where a sum of normal deviates lies
above 0: a level for each net, an image's ease (in part the same for both nets), a seed's luck (in
part the same for both), and a rest. So the true difference of accuracies is known exactly.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS.parent / "tools" / "docs"))
from study.twoway import two_way  # noqa: E402  # the tools are no package

DRAWS = 2000
OUT = DOCS / "results" / "coverage.csv"


@dataclass(frozen=True)
class Case:
    """What is drawn: counts, the nets' robust accuracies, and deviations of the latent parts.

    `image` and `seed` are shared by both nets; `own_image` and `own_seed` are each net's.
    """

    seeds: int
    images: int
    accuracy: float
    gain: float
    own_seed: float
    own_image: float = 0.5
    image: float = 1.5
    seed: float = 0.1
    rest: float = 0.6

    @property
    def levels(self) -> tuple[float, float]:
        """The latent levels that give the two accuracies."""
        parts = (self.own_seed, self.own_image, self.image, self.seed, self.rest)
        scale = float(np.sqrt(sum(part**2 for part in parts)))
        shares = (self.accuracy, self.accuracy + self.gain)
        return scale * float(norm.ppf(shares[0])), scale * float(norm.ppf(shares[1]))


CASES = (
    *(Case(8, 2000, 0.17, gain, own) for gain, own in ((0.0, 0.0), (0.015, 0.05), (0.015, 0.15))),
    *(Case(4, 2000, 0.17, gain, own) for gain, own in ((0.0, 0.0), (0.015, 0.05), (0.015, 0.15))),
    Case(8, 2000, 0.28, 0.015, 0.05),
    Case(3, 500, 0.17, 0.015, 0.05),
)


def draw(case: Case, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the effects of one study, (K, N): second net less first, in −1, 0 and 1."""
    k, n = case.seeds, case.images
    shared = case.image * generator.standard_normal(n)
    shared = shared + case.seed * generator.standard_normal((k, 1))
    right = []
    for level in case.levels:
        own = case.own_image * generator.standard_normal(n)
        luck = case.own_seed * generator.standard_normal((k, 1))
        rest = case.rest * generator.standard_normal((k, n), dtype=np.float32)
        right.append(level + shared + own + luck + rest > 0)
    effects: NDArray[np.float64] = right[1].astype(np.float64) - right[0]
    return effects


def covered(case: Case, draws: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often three intervals hold the true gain, and half the first one's mean width.

    `both` is the study's; `seeds` is Student's over the seeds' means alone, `images` the normal one
    over the images' means alone.
    """
    held, halves = {"both": 0, "seeds": 0, "images": 0}, 0.0
    for _ in range(draws):
        effects = draw(case, generator)
        estimate = two_way(effects)
        mean = float(effects.mean())
        seeds = float(effects.mean(1).std(ddof=1)) / case.seeds**0.5
        images = float(effects.mean(0).std(ddof=1)) / case.images**0.5
        half = estimate.half if estimate else 0.0
        halves += half
        ends = {"both": half, "seeds": float(t.ppf(0.975, case.seeds - 1)) * seeds,
                "images": float(norm.ppf(0.975)) * images}  # fmt: skip
        for name, each in ends.items():
            held[name] += abs(mean - case.gain) <= each
    return {name: count / draws for name, count in held.items()} | {"half": halves / draws}


def lines(draws: int, seed: int) -> Iterator[list[str]]:
    """Yield the table, its head first."""
    yield ["seeds", "images", "accuracy", "gain", "own_seed", "both", "seeds_alone", "images_alone",
           "half"]  # fmt: skip
    for place, case in enumerate(CASES):
        found = covered(case, draws, np.random.default_rng((seed, place)))
        yield [
            str(case.seeds), str(case.images), f"{case.accuracy:g}", f"{case.gain:g}",
            f"{case.own_seed:g}", f"{found['both']:.4f}", f"{found['seeds']:.4f}",
            f"{found['images']:.4f}", f"{100 * found['half']:.2f}",
        ]  # fmt: skip


def main() -> None:
    """Simulate every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    words = parser.parse_args()
    table = list(lines(words.draws, words.seed))
    with words.out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()

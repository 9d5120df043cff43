"""AutoAttack through advkit against the upstream package called directly, as one JSON line.

Both run the standard version on the same examples of adversarially trained nets, on one thread,
in turn, each in a process of its own, with the round's number as their seed. Ours keeps freed
memory, as the command line does. Upstream gets the net as any user has it (NCHW,
parameters trainable, eval mode) and the batch size that was best in a trial. `ratio` is
upstream's seconds over ours, `passes` the images that attacks asked the net about, without and
with a gradient, and in how many calls, `differ` counts verdicts that are not the same, `floor`
those that differ between upstream's own seeds, `two_processes` is the wall time of one process
over that of two which share the examples. `--share` runs a share of all iterations and queries on
both sides, for nets of which a whole run takes hours; `--own-labels` takes the net's answers for
labels, for nets that have learnt nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import _machine
import pyautoattack
import torch
from _passes import Counting
from _timing import ratio
from scipy.stats import binomtest
from torch import nn

from advkit import data, models
from advkit.artifacts.hdf5 import ROBUST
from advkit.attacks.upstream import autoattack
from advkit.bench import measure
from advkit.evaluation import passes, run, searched
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings
from advkit.images.image_set import Images, pixels
from advkit.images.split import first
from advkit.runtime import memory
from advkit.runtime.reporting import Reporter

FOLDER = ["--epochs", "15", "--eps", "8/255", "--attack-steps", "5", "--lr", "0.05"]
"""How the nets are trained on a folder; on digits with their own presets."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="digits or folder:DIR")
    parser.add_argument("--image-size", type=int, help="average a folder's images to this side")
    parser.add_argument("--archs", default="small-cnn,resnet8")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--upstream-sizes", default="50,125,250,500", help="tried for upstream")
    parser.add_argument("--batch-size", type=int, default=AttackSettings.batch_size)
    parser.add_argument("--train-limit", type=int, help="training examples")
    parser.add_argument("--train", default="", help="further options of advkit train")
    parser.add_argument("--eps", help="instead of the net's own")
    parser.add_argument("--own-labels", action="store_true", help="the net's answers are right")
    parser.add_argument("--share", type=float, default=1.0, help="of iterations and queries")
    parser.add_argument("--no-processes", action="store_true", help="leave two processes out")
    parser.add_argument("--work", type=Path, help="keeps the trained nets")
    given = parser.parse_args()
    if not given.no_processes and (given.share < 1 or given.own_labels or given.eps):
        parser.error("two processes run the command as it is: add --no-processes")
    return given


def advkit(*words: object) -> list[str]:
    return [sys.executable, "-m", "advkit", *map(str, words), "-q"]


def trained(given: argparse.Namespace, arch: str, work: Path) -> Path:
    """Return the net's checkpoint, trained now if WORK does not hold it."""
    folder = work / arch
    if not (folder / "final.safetensors").exists():
        words = ["--method", "at", "--arch", arch, "--data", given.data, "-o", folder]
        words += ["--threads", 1, *(FOLDER if given.data != "digits" else ["--epochs", 15])]
        words += ["--image-size", given.image_size] if given.image_size else []
        words += ["--limit", given.train_limit] if given.train_limit else []
        subprocess.run(advkit("train", *words, *given.train.split()), check=True, stdout=sys.stderr)
    return folder / "best.safetensors"


class Case:
    """One net and the examples that both sides judge."""

    def __init__(self, given: argparse.Namespace, path: Path) -> None:
        self.model, self.info = models.load(path)
        plain, _ = models.load(path)
        plain.to(memory_format=torch.contiguous_format)
        self.norm, self.eps = self.info["config"]["norm"], given.eps or self.info["config"]["eps"]
        size = self.info["config"].get("image_size")
        self.images = data.load(given.data, "test", root=None, image_size=size)
        self.limit = min(given.images, len(self.images.labels))
        chosen = first(self.images.labels, self.limit)
        self.x = pixels(self.images.batch(chosen), "cpu")
        self.y = self.images.labels[chosen]
        self.batch_size, self.theirs, self.share = given.batch_size, 0, given.share
        if given.own_labels:
            with torch.no_grad():
                self.y = self.model.eval()(self.x).argmax(1)
            self.images = Images(
                self.images.name,
                "test",
                self.images.batch(chosen),
                self.y,
                self.images.classes,
                self.images.pad,
                self.images.flip,
            )
        self.asked = {"upstream": Counting(plain)}

    def settings(self, seed: int) -> AttackSettings:
        return AttackSettings(
            "autoattack",
            self.norm or "linf",
            str(self.eps),
            "it",
            seed,
            self.batch_size,
            limit=self.limit,
        )

    def ours(self, seed: int) -> torch.Tensor:
        environment = {"device": "cpu", "threads": 1}
        search = searched.searched

        def counted(
            model: nn.Module, settings: AttackSettings, x: torch.Tensor, reporter: Reporter
        ) -> nn.Module:
            self.asked["ours"] = Counting(search(model, settings, x, reporter))
            return self.asked["ours"]

        class Judge(autoattack.Judge):
            """Runs a share of its iterations and queries."""

            def __init__(judge, *words: Any) -> None:
                super().__init__(*words)
                self.shorten(judge.suite)

        with (
            tempfile.TemporaryDirectory() as place,
            patch.object(run, "searched", counted),
            patch.object(autoattack, "Judge", Judge),
            # What ours does for examples without an iterate is a share of a share otherwise.
            patch.object(passes, "FILL_STEPS", max(round(self.share * passes.FILL_STEPS), 1)),
        ):
            logits = Evaluation(
                self.model, self.info, self.images, self.settings(seed), environment=environment
            ).run(Path(place) / "it.part")
        assert logits.broken_by is not None
        robust: torch.Tensor = logits.broken_by == ROBUST
        return robust

    def shorten(self, suite: pyautoattack.AutoAttack, share: float = 1.0) -> None:
        """Leave a share of the iterations and queries."""
        share *= self.share
        suite.square.n_queries = round(share * suite.square.n_queries)
        for attack in (suite.apgd, suite.apgd_targeted, suite.fab):
            attack.n_iter = round(share * attack.n_iter)

    def upstream(self, seed: int, size: int = 0, share: float = 1.0) -> torch.Tensor:
        threat = self.settings(seed).threat
        suite = pyautoattack.AutoAttack(
            self.asked["upstream"], norm=autoattack.NORM[threat.norm], eps=threat.eps, seed=seed
        )
        self.shorten(suite, share)
        _, answers = suite.run_standard_evaluation(self.x, self.y, batch_size=size or self.theirs)
        right: torch.Tensor = answers == self.y
        return right

    def choose(self, sizes: list[int]) -> dict[int, float]:
        """Find upstream's best batch size, if there is a choice, in a twentieth of the work."""
        if len(sizes) == 1:
            self.theirs = sizes[0]
            return {}
        trial = {size: timed(partial(self.upstream, 0, size, 0.05))[0] for size in sizes}
        self.theirs = min(trial, key=trial.__getitem__)
        return {size: round(seconds, 2) for size, seconds in trial.items()}


CASE: Case
"""That of this process."""


def _begin(given: argparse.Namespace, path: Path, keep: bool) -> None:
    global CASE
    torch.set_num_threads(1)
    if keep:
        memory.keep()
    CASE = Case(given, path)


Turn = tuple[float, float, torch.Tensor]
"""Process CPU seconds, wall seconds, and who stood."""


def _turn(side: str, seed: int) -> tuple[Turn, dict[str, int]]:
    CASE.asked["upstream"].taken()  # what the trial asked
    return timed(lambda: getattr(CASE, side)(seed)), CASE.asked[side].taken()


def _choose(sizes: list[int]) -> tuple[int, dict[int, float]]:
    seconds = CASE.choose(sizes)
    return CASE.theirs, seconds


def timed(run: Callable[[], torch.Tensor]) -> Turn:
    """Return process CPU seconds, wall seconds, and what it gave."""
    cpu, wall = time.process_time(), time.monotonic()
    robust = run()
    return time.process_time() - cpu, time.monotonic() - wall, robust


def mcnemar(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the exact two-sided p of paired verdicts being as often right."""
    only = int((one & ~other).sum()), int((~one & other).sum())
    return binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0


def processes(case: Case, path: Path, given: argparse.Namespace, place: Path) -> float:
    """Return one process's wall time over that of two, from start to end, one thread each."""
    words = ["attack", path, "--autoattack", "--data", given.data, "--limit", case.limit]
    words += ["--batch-size", case.batch_size, "--threads", 1, "-o", place / "it.h5"]
    seconds = []
    shared: list[list[list[str]]] = [[[]], [["--shard", "1/2"], ["--shard", "2/2"]]]
    for shards in shared:
        began = time.monotonic()
        running = [
            subprocess.Popen(advkit(*words, *shard), stdout=subprocess.DEVNULL) for shard in shards
        ]
        assert not any(process.wait() for process in running)
        seconds.append(time.monotonic() - began)
    return round(seconds[0] / seconds[1], 3)


def measured(given: argparse.Namespace, path: Path) -> dict[str, object]:
    case = Case(given, path)
    spawn = get_context("spawn")
    with (
        spawn.Pool(1, _begin, (given, path, False)) as upstream,
        spawn.Pool(1, _begin, (given, path, True)) as ours,
    ):
        sizes = [int(size) for size in given.upstream_sizes.split(",")]
        case.theirs, trial = upstream.apply(_choose, (sizes,))

        counts: dict[str, dict[str, int]] = {}

        def turn(name: str, seed: int) -> Turn:
            result: Turn
            result, counts[name] = {"upstream": upstream, "ours": ours}[name].apply(
                _turn, (name, seed)
            )
            # A run takes an hour or more: what a stop would lose is told as it comes.
            told = f"{result[0]:.1f} CPU s, {result[1]:.1f} s, robust {int(result[2].sum())}"
            print(f"{path.parent.name} {name} {seed}: {told}", file=sys.stderr)
            return result

        turns = {name: partial(turn, name) for name in ("upstream", "ours")}
        sides = measure.in_turn(turns, given.rounds, warm=0)
    cpu = {name: [turn[0] for turn in results] for name, results in sides.items()}
    wall = {name: [turn[1] for turn in results] for name, results in sides.items()}
    robust = {name: [turn[2] for turn in results] for name, results in sides.items()}
    pairs = list(zip(robust["upstream"], robust["ours"], strict=True))
    own = robust["upstream"]
    figures: dict[str, object] = {
        "n": len(case.y),
        "eps": case.eps,
        "ratio_cpu": ratio(cpu["upstream"], cpu["ours"], 3),
        "ratio_wall": ratio(wall["upstream"], wall["ours"], 3),
        "cpu_seconds": {k: round(statistics.median(v), 1) for k, v in cpu.items()},
        "wall_seconds": {k: round(statistics.median(v), 1) for k, v in wall.items()},
        "passes": counts,
        "upstream_batch_size": case.theirs,
        "upstream_trial_seconds": trial,
        "batch_size": case.batch_size,
        "robust": {k: [int(standing.sum()) for standing in v] for k, v in robust.items()},
        "differ": [int((a != b).sum()) for a, b in pairs],
        "mcnemar_p": [round(mcnemar(a, b), 4) for a, b in pairs],
        "floor": [int((a != own[0]).sum()) for a in own[1:]],
    }
    if not given.no_processes:
        with tempfile.TemporaryDirectory() as place:
            figures["two_processes"] = processes(case, path, given, Path(place))
    return figures


def main() -> None:
    given = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        paths = {arch: trained(given, arch, work) for arch in given.archs.split(",")}
        nets = {arch: measured(given, path) for arch, path in paths.items()}
    line = {
        "benchmark": "autoattack",
        "data": given.data.partition(":")[0],
        "image_size": given.image_size,
        "share": given.share,
        "nets": nets,
        "rounds": given.rounds,
        "machine": _machine.described(),
        "implementation": autoattack.package(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

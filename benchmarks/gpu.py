"""One part of `benchmarks/gpu.sh`, as one JSON line: what a GPU makes of advkit.

`step`: PGD-10 training steps of ResNet-18 at width 64, batch 128, on random images of CIFAR-10's
size; contenders take turns in one process, a turn is a step with the device's work waited for.
Ratios are medians over rounds of the usual step's seconds over theirs (`_plain.Usual` for AT, the
authors' for ADR), which run with PyTorch's own switches; `noise` is the same step twice.
`compiled`: the same for torch.compile, with and without CUDA graphs, over the step that is not
compiled. `epoch`: an epoch of ADR on 50,000 random images, against the authors' step by the number
of steps. `autoattack`: the standard version against upstream's, both in float32, on a net that is
not trained and its own answers for labels. `study`: AT and ADR on a data set for as many epochs as
fit. Figures of a CPU with `--small` say that it runs, nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import _machine
import _plain
import torch
from _ours import MEAN, STD, images, trainer
from _timing import ratio
from torch.backends import cudnn

from advkit.artifacts import checkpoint
from advkit.artifacts.hdf5 import ROBUST
from advkit.bench import measure
from advkit.config.machine import computing
from advkit.errors import AdvkitError
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings
from advkit.images.image_set import pixels
from advkit.training.trainer import Trainer

CLASSES = 10
EAGER: Mapping[str, Mapping[str, object]] = {
    "fp32": {},
    "again": {},
    "host noise": {"noise": "host"},
    "tf32": {"tf32": True},
    "bf16": {"amp": True},
}
COMPILED: Mapping[str, Mapping[str, object]] = {
    "eager": {"amp": True},
    "again": {"amp": True},
    "compiled": {"amp": True, "compile": True},
    "graphed": {"amp": True, "compile": True, "compile_mode": "reduce-overhead"},
}
"""Contenders and the options of `advkit train` that make them."""
NEVER_ON_CPU = ("compiled", "graphed")
"""Compiled on a CPU for minutes, or refused there."""
ROBUST_EPS = "1/510"
"""So small that some images of a net that is not trained reach AutoAttack's last attacks."""
Turn = Callable[[int], float]


class Bench:
    """Sizes, device and clock of a part."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.device, self.small = torch.device(given.device), given.small
        self.threads = torch.get_num_threads()
        self.width, self.size = (4, 8) if self.small else (64, 128)
        self.rounds = 2 if self.small else given.rounds
        # What attacks a net for long gets one that answers at once, where nothing is measured.
        self.arch = "small-cnn" if self.small else "resnet18"

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], object]) -> float:
        """Return wall seconds, the device's work waited for."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def trainer(self, flags: Mapping[str, object], count: int) -> Trainer:
        options = {"width": self.width, "batch_size": self.size, **flags}
        return trainer(options, count, self.threads, device=str(self.device))

    def ours(self, flags: Mapping[str, object]) -> Turn:
        """Return a step of advkit's: its batch drawn, augmented, trained on and counted."""
        made = self.trainer(flags, 4 * self.size)
        order = made.batches.order(0)

        def turn(number: int) -> float:
            step = 1 + number % 19  # the guard looks at every 20th
            return self.timed(lambda: made.step(made.batches.at(order, 0, 0), 0, step))

        return turn

    def plain(self, kind: str) -> Turn:
        torch.manual_seed(0)
        draw = torch.Generator().manual_seed(0)
        x = torch.rand(self.size, 3, 32, 32, generator=draw)
        y = torch.randint(0, CLASSES, (self.size,), generator=draw)
        noise = torch.empty_like(x).uniform_(-_plain.EPS, _plain.EPS, generator=draw)
        net = _plain.ResNet18(CLASSES, self.width, MEAN, STD).to(self.device)
        step = getattr(_plain, kind)(net)
        one = [tensor.to(self.device) for tensor in (x, y, (x + noise).clamp(0, 1))]

        def turn(_: int) -> float:
            # As people run it: PyTorch allows TF32 in convolutions, a stage of advkit does not.
            with cudnn.flags(enabled=True, allow_tf32=True):
                return self.timed(lambda: step(*one))

        return turn

    def taken(self, make: Callable[[], Turn]) -> tuple[Turn, int | None]:
        """Return a turn, warmed up, and the bytes of tensors that it holds at most."""
        if self.device.type != "cuda":
            turn = make()
            turn(0)
            return turn, None
        before = torch.cuda.memory_allocated(self.device)
        turn = make()
        for number in range(3):
            torch.cuda.reset_peak_memory_stats(self.device)
            turn(number)
        return turn, int(torch.cuda.max_memory_allocated(self.device)) - before


def steps(bench: Bench, method: str, compiled: bool) -> dict[str, object]:
    chosen = COMPILED if compiled else EAGER
    if compiled and bench.device.type == "cpu":  # most processors refuse bfloat16
        chosen = {name: {**flags, "amp": False} for name, flags in chosen.items()}
    makers: dict[str, Callable[[], Turn]] = {
        name: partial(bench.ours, {"method": method, **flags}) for name, flags in chosen.items()
    }
    base = next(iter(chosen))
    if not compiled:
        base = "usual" if method == "at" else "authors"
        makers = {base: partial(bench.plain, base.title()), **makers}
    turns, peaks, refused, ready = {}, {}, {}, {}
    for name, make in makers.items():
        if name in NEVER_ON_CPU and bench.device.type == "cpu":
            refused[name] = "left out on a CPU"
            continue
        began = time.monotonic()
        try:
            turns[name], peaks[name] = bench.taken(make)
        except AdvkitError as error:
            refused[name] = str(error)
        else:
            ready[name] = round(time.monotonic() - began, 1)
    seconds = measure.in_turn(turns, bench.rounds)
    own = next(iter(chosen))
    return {
        "method": method,
        "over": base,
        "ratios": {name: ratio(seconds[base], values) for name, values in seconds.items()},
        "noise": ratio(seconds["again"], seconds[own]),
        "seconds": {name: round(statistics.median(v), 5) for name, v in seconds.items()},
        "seconds_until_warm": ready,
        "peak_bytes": peaks,
        "refused": refused,
        "amp": {name: bool(flags.get("amp")) for name, flags in chosen.items()},
        "rounds": bench.rounds,
    }


def epoch(bench: Bench) -> dict[str, object]:
    """Time an epoch of ADR, and the authors' step."""
    count = 5 * bench.size if bench.small else 50_000
    usual = bench.plain("Authors")
    figures: dict[str, object] = {}
    for name, flags in {"fp32": {}, "bf16": {"amp": True}}.items():
        # One image of each class more, held out for validation, which is not timed.
        try:
            made = bench.trainer({"method": "adr", "val_size": CLASSES, **flags}, count + CLASSES)
        except AdvkitError as error:
            figures[name] = {"refused": str(error)}
            continue
        made.step(made.batches.at(made.batches.order(1), 1, 0), 1, 1)  # warms up

        def whole(made: Trainer = made) -> None:
            for step, batch in enumerate(made.batches.epoch(0)):
                made.step(batch, 0, step)

        taken = bench.timed(whole)
        plain = [usual(number) for number in range(2 if bench.small else 22)][1:]
        theirs = statistics.median(plain) * len(made.batches)
        figures[name] = {
            "seconds": round(taken, 3),
            "authors_seconds": round(theirs, 3),
            "ratio": round(theirs / taken, 3),
            "steps": len(made.batches),
        }
    return {"images": count, **figures}


def autoattack(bench: Bench) -> dict[str, object]:
    """Judge the same images by upstream's code and by ours, in turn."""
    import pyautoattack

    from advkit import models

    count = 2 if bench.small else 32
    made = bench.trainer({"method": "at", "arch": bench.arch}, 4 * bench.size)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "net.safetensors"
        packed = made.files.packed("best", made.learner.model, {"epoch": 1, "n": 1})
        checkpoint.put(path, packed)
        model, info = models.load(path, bench.device)
        plain, _ = models.load(path, bench.device)
        plain.to(memory_format=torch.contiguous_format)
        drawn = images(count)
        x = pixels(drawn.images, bench.device)
        with torch.no_grad():
            y = model(x).argmax(1)
        answered = replace(drawn, labels=y.cpu())
        size = min(250, count)
        settings = AttackSettings("autoattack", "linf", ROBUST_EPS, "it", 0, size, limit=count)
        robust: dict[str, torch.Tensor] = {}

        def ours() -> None:
            logits = Evaluation(
                model, info, answered, settings, environment={"device": str(bench.device)}
            ).run(Path(place) / "it.part")
            assert logits.broken_by is not None
            robust["advkit"] = logits.broken_by == ROBUST

        def upstream() -> None:
            suite = pyautoattack.AutoAttack(
                plain, norm="Linf", eps=settings.threat.eps, seed=0, device=str(bench.device)
            )
            _, answers = suite.run_standard_evaluation(x, y, batch_size=size)
            robust["upstream"] = (answers == y).cpu()

        seconds = {"advkit": bench.timed(ours), "upstream": bench.timed(upstream)}
    return {
        "images": count,
        "eps": ROBUST_EPS,
        "ratio": round(seconds["upstream"] / seconds["advkit"], 3),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "robust": {name: int(standing.sum()) for name, standing in robust.items()},
        "differ": int((robust["advkit"] != robust["upstream"]).sum()),
    }


def study(bench: Bench, data: str, seconds: float) -> dict[str, object]:
    """Train AT and ADR for as many epochs as fit, and attack both with PGD and APGD."""
    flags = ["--data", data, "--device", str(bench.device), "-q", "--json"]
    flags += [] if bench.device.type == "cpu" else ["--amp"]
    net = ["--arch", bench.arch, "--width", str(bench.width), "--seed", "0"]
    net += ["--limit", "200", "--batch-size", "16"] if bench.small else []

    def called(*words: str) -> tuple[dict[str, object], float]:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "advkit", *words], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        record = json.loads(done.stdout.splitlines()[-1])
        # Where it lay for a moment says nothing.
        told = {key: value for key, value in record.items() if key not in ("path", "checkpoint")}
        return told, time.monotonic() - began

    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        trial = Path(place) / "trial"
        _, taken = called(
            "train", *flags, *net, "--method", "adr", "--epochs", "1", "-o", str(trial)
        )
        # Both runs share what is left, but for a fifth that the attacks and starts take.
        epochs = max(1, int(0.8 * (seconds - taken) / 2 / taken))
        for method in ("at", "adr"):
            run = Path(place) / method
            words = ["--method", method, "--epochs", str(epochs), "-o", str(run)]
            trained, spent = called("train", *flags, *net, *words)
            attacked, _ = called(
                "attack", str(run / "best.safetensors"), "--attack", "apgd-ce", "-q", "--json",
                "--device", str(bench.device), "--limit", "20" if bench.small else "1000",
            )  # fmt: skip
            figures[method] = {"train": trained, "attack": attacked, "seconds": round(spent, 1)}
            print(json.dumps({"epochs": epochs, **figures}), flush=True)  # kept if time runs out
    return {"epochs": epochs, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("step", "compiled", "epoch", "autoattack", "study"))
    parser.add_argument("--method", choices=("at", "adr"), default="at")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="tiny sizes: to see that it runs")
    parser.add_argument("--data", default="", help="of the study: folder:DIR")
    parser.add_argument("--seconds", type=float, default=150, help="that the study may take")
    given = parser.parse_args()
    bench = Bench(given)
    with computing(bench.device, bench.threads):
        if given.part in ("step", "compiled"):
            figures = steps(bench, given.method, given.part == "compiled")
        elif given.part == "study":
            figures = study(bench, given.data, given.seconds)
        else:
            figures = {"epoch": epoch, "autoattack": autoattack}[given.part](bench)
    line = {
        "benchmark": f"gpu {given.part}",
        **figures,
        "device": given.device,
        "small": given.small,
        "width": bench.width,
        "batch_size": bench.size,
        "machine": _machine.described(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

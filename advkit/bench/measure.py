"""What a method costs on this machine: seconds, memory, and its share of the arithmetic limit."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from advkit import models
from advkit.bench.images import Answers, Facts, synthetic
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.formulas import folding, losses
from advkit.images.batches import Batch, Batches
from advkit.images.image_set import Images
from advkit.images.split import validation_size
from advkit.runtime import memory, modes, precision
from advkit.runtime.reporting import Reporter
from advkit.training.learner import Learner
from advkit.training.parts import augmentation_of
from advkit.training.selection import CHUNK, validation_of
from advkit.training.student import statistics_of

T = TypeVar("T")
CPU = torch.device("cpu")
META = torch.device("meta")
WARM = 2
"""Steps before the first that counts."""
_AGAIN = ""
"""Name of the first method's second learner; no method has it."""
SIDE = 2048
"""Rows of the square matrices whose product stands for the arithmetic limit."""


@dataclass(frozen=True)
class Cost:
    """What one method takes.

    `seconds` of every timed training step, `validation_seconds` of an epoch's held-out examples;
    `peak_bytes` is what the process (on a GPU: its tensors) held, None where the system does not
    tell.
    """

    seconds: tuple[float, ...]
    steps_per_epoch: int
    batch_size: int
    validation_seconds: float
    peak_bytes: int | None
    flops_per_step: int

    @property
    def seconds_per_step(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def seconds_per_epoch(self) -> float:
        """Training alone, as in ADR's Table 6."""
        return self.seconds_per_step * self.steps_per_epoch


@dataclass(frozen=True)
class Comparison:
    """Costs by method; `noise` is the first method in a second learner over itself.

    `forward` and `gradient` are the first method's seconds per image of a forward pass, and of one
    with the gradient for the image; `limit` the operations a second of a large matrix product.
    """

    costs: Mapping[str, Cost]
    noise: float
    forward: float
    gradient: float
    limit: float


class Bench:
    """One method's training on one device, ready to take steps."""

    def __init__(self, settings: Settings, facts: Facts, device: torch.device) -> None:
        self.settings, self.facts, self.device = settings, facts, device
        if self.steps_per_epoch == 0:
            raise UsageError(
                f"--batch-size {settings.batch_size}: there are {self._kept - self.validated} "
                "training examples: give that or less"
            )
        self.images = synthetic(settings, facts)
        self.learner, self.batches = self._learner(settings, device)

    def _learner(self, settings: Settings, device: torch.device) -> tuple[Learner, Batches]:
        positions = torch.arange(settings.batch_size)
        batches = Batches(
            self.images,
            positions,
            settings.batch_size,
            settings.seed,
            device,
            augmentation=augmentation_of(settings),
        )
        soft = Answers(self.images) if settings.labels == "soft" else None
        # Teachers of the student's own architecture, as in self-distillation.
        teachers = {role: _teacher(settings, self.images, device) for role in settings.teachers}
        learner = Learner(
            settings, self.images, self.steps_per_epoch, device, soft, teachers=teachers
        )
        learner.require_images(self.images.shape, settings.batch_size)
        return learner, batches

    @property
    def validated(self) -> int:
        """Examples set aside, as training does it."""
        if self.facts.held_out:
            return self.facts.held_out
        return validation_size(self.settings.val_size, self._kept)

    @property
    def _kept(self) -> int:
        own = self.facts.train - self.facts.held_out
        return min(self.settings.limit or own, own) + self.facts.held_out

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch of the whole data set."""
        full, rest = divmod(self._kept - self.validated, self.settings.batch_size)
        return full + int(rest > 0 and self.settings.last_batch == "keep")

    def step(self, number: int) -> float:
        """Train on a batch and return the wall seconds."""
        step = number % self.steps_per_epoch
        return self.timed(lambda: self._learn(self.learner, _batch(self.batches), step))

    def _learn(self, learner: Learner, batch: Batch, step: int) -> None:
        # In the last epoch: what begins later in a run (AWP, a memory's term) has begun.
        learner.learn(batch, self.settings.epochs - 1, step)

    def timed(self, work: Callable[[], object]) -> float:
        """Return the wall seconds of work, the device's own included."""
        _wait(self.device)
        began = time.perf_counter()
        work()
        _wait(self.device)
        return time.perf_counter() - began

    def validation(self) -> float:
        """Return the seconds that an epoch spends on its held-out examples."""
        count = min(CHUNK, self.validated)
        net = self.learner.passes_of(self.learner.model)
        validation = validation_of(
            self.settings, self.images, torch.arange(count), self.learner.threat
        )
        taken = self.timed(lambda: validation.measure(net, lambda: None))
        return taken / count * self.validated * (2 if self.settings.wa else 1)

    def flops(self) -> int:
        """Count one step's floating-point operations (2 a multiply-add), without doing them."""
        # The meta device computes shapes alone, and has no random numbers of its own; autocast and
        # compilation would hide operators.
        plain = dataclasses.replace(
            self.settings, amp=False, tf32=False, compile=False, noise="host"
        )
        learner, batches = self._learner(plain, META)
        # Augmentations look at the numbers that they draw, which a meta tensor lacks.
        batch = _sent(_batch(dataclasses.replace(batches, device=CPU)), META)
        with _Counting() as counted:
            # The second step: at the first, the guard would look at the loss.
            self._learn(learner, batch, 1)
        return int(counted.total)

    def passes(self, repeats: int = 3) -> tuple[float, float]:
        """Return seconds per image of a forward pass, and of one with the image's gradient."""
        net: nn.Module = self.learner.passes_of(self.learner.model)
        batch = _batch(self.batches)

        def answer() -> None:
            with torch.no_grad():
                net(batch.x)

        def steer() -> None:
            x = batch.x.clone().requires_grad_(True)
            torch.autograd.grad(losses.cross_entropy(net(x), batch.y).sum(), x)

        medians = []
        with modes.evaluating(net), modes.frozen(net), folding.settled():
            for work in (answer, steer):
                work()
                medians.append(statistics.median(self.timed(work) for _ in range(repeats)))
        return medians[0] / len(batch.y), medians[1] / len(batch.y)


def _batch(batches: Batches) -> Batch:
    """Return the batch that every step takes, augmented anew."""
    return batches.at(batches.order(0), 0, 0)


def _sent(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its images and classes on another device."""
    mix = batch.mix
    if mix is not None:
        mix = dataclasses.replace(
            mix, first=_sent(mix.first, device), second=_sent(mix.second, device)
        )
    return dataclasses.replace(batch, x=batch.x.to(device), y=batch.y.to(device), mix=mix)


def _teacher(settings: Settings, images: Images, device: torch.device) -> nn.Module:
    """Return a fixed net of the student's architecture."""
    net = models.build(
        settings.arch,
        len(images.classes),
        channels=images.shape[0],
        statistics=statistics_of(settings, images),
        seed=settings.seed + 1,
        size=images.shape[1],
        **settings.options_of("models"),
    )
    return net.to(device).eval().requires_grad_(False)


def compare(
    chosen: Mapping[str, Settings],
    facts: Facts,
    device: torch.device,
    steps: int,
    reporter: Reporter | None = None,
) -> Comparison:
    """Measure methods: memory and counts one by one, then `steps` rounds of a step of each.

    In a round each method takes one step, so that what else the machine does meets all of them.

    Raises:
        UsageError: a configuration cannot be trained on this device.
    """
    reporter = reporter or Reporter()
    reporter.begin("rounds", len(chosen) + steps)
    alone = {}
    for name, settings in chosen.items():
        alone[name] = _alone(settings, facts, device)
        reporter.advance(1)
    first = next(iter(chosen))
    rivals = {name: Bench(settings, facts, device) for name, settings in chosen.items()}
    rivals[_AGAIN] = Bench(chosen[first], facts, device)
    turns = {name: rival.step for name, rival in rivals.items()}
    seconds = in_turn(turns, steps, WARM, lambda number: reporter.advance(int(number >= WARM)))
    reporter.end()
    costs = {
        name: Cost(
            tuple(seconds[name]),
            rivals[name].steps_per_epoch,
            settings.batch_size,
            *alone[name],
        )
        for name, settings in chosen.items()
    }
    noise = statistics.median(ratios(seconds[_AGAIN], seconds[first]))
    with precision.tf32(chosen[first].tf32):
        limit = arithmetic_limit(device, chosen[first].amp)
    return Comparison(costs, noise, *rivals[first].passes(), limit)


def in_turn(
    turns: Mapping[str, Callable[[int], T]],
    rounds: int,
    warm: int = 1,
    after: Callable[[int], None] = lambda _: None,
) -> dict[str, list[T]]:
    """Let each take its turn in every round; return what the rounds after the first gave.

    Args:
        turns: what to do in a round, from its number.
        rounds: how many count.
        warm: how many come before and do not.
        after: called after each round with its number.
    """
    results: dict[str, list[T]] = {name: [] for name in turns}
    for number in range(warm + rounds):
        for name, turn in turns.items():
            result = turn(number)
            if number >= warm:
                results[name].append(result)
        after(number)
    return results


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Return the ratio round by round: what slows a round slows both its sides."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def _alone(settings: Settings, facts: Facts, device: torch.device) -> tuple[float, int | None, int]:
    """Return validation seconds, peak bytes and operations of a step."""
    # What an earlier method freed would else count as this one's.
    memory.give_back()
    measurable = _reset_peak(device)
    bench = Bench(settings, facts, device)
    for number in range(WARM):
        bench.step(number)
    peak = _peak(device) if measurable else None
    return bench.validation(), peak, bench.flops()


class _Counting(TorchDispatchMode):
    """Adds up PyTorch's own counts by operator; its FlopCounterMode cannot follow autograd.grad."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Collection[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += int(count(*args, **(kwargs or {}), out_val=result))
        return result


def arithmetic_limit(device: torch.device, amp: bool, repeats: int = 5) -> float:
    """Measure the floating-point operations a second of a large matrix product."""
    dtype = torch.bfloat16 if amp else torch.float32
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    seconds = []
    for number in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        a @ a
        _wait(device)
        if number:  # the first product loads the library and warms up
            seconds.append(time.perf_counter() - began)
    return float(2 * SIDE**3 / min(seconds))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> bool:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    return memory.reset_peak()


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return memory.peak()

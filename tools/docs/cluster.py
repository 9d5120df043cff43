"""A simulated run on several ranks: stragglers, restarts, decoding, and what does not shrink.

Times are in seconds, sizes in bytes. What is drawn comes from the generator that is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

CHUNK = 256
"""Images of a validation batch, which one rank measures (`advkit/training/selection.py`)."""
VALIDATION_PASSES = 22
"""Forward passes' worth of PGD-10 and a clean pass."""
AHEAD = 2
"""Batches that a decoding worker is ahead (`advkit/images/ahead.py`)."""


@dataclass(frozen=True)
class Cluster:
    """What is assumed of machines and network: none of it was measured but `draw`.

    `inside` and `between` are bytes a second of a ring all-reduce within a machine of `node` GPUs
    and across machines, `hop` and `host_hop` the latencies of a GPU's and of a host's message,
    `launch` seconds to start a kernel, `draw` seconds a random number on one core, `disk` bytes a
    second of a state written with its digest, `jitter` the deviation of a rank's time over its
    mean.
    """

    node: int = 8
    inside: float = 100e9
    between: float = 20e9
    hop: float = 10e-6
    host_hop: float = 50e-6
    launch: float = 5e-6
    draw: float = 12e-9
    disk: float = 1e9
    jitter: float = 0.05

    def all_reduce(self, size: float, ranks: int) -> float:
        """Return the seconds in which `ranks` sum `size` bytes: a ring's bytes, a tree's hops."""
        if ranks == 1:
            return 0.0
        rate = self.inside if ranks <= self.node else self.between
        return 2 * (ranks - 1) / ranks * size / rate + 2 * math.log2(ranks) * self.hop

    def agreed(self, ranks: int) -> float:
        """Return the seconds in which the hosts agree whether to stop, once a step."""
        return 2 * math.log2(ranks) * self.host_hop


@dataclass(frozen=True)
class Work:
    """A training run: `step` seconds of one GPU for a batch, `steps` of an epoch.

    `passes` is a step in forward passes' worth, `kernels` the kernels of one such pass,
    `parameters` of the net, `reduced` how often a step sums its gradient, `numbers` random numbers
    drawn by the host for an image, `copies` of the parameters in a saved state, `validation`
    images.
    """

    name: str
    step: float
    steps: int
    batch: int
    passes: int
    kernels: int
    parameters: float
    numbers: int
    reduced: int = 1
    copies: int = 3
    validation: int = 1024

    def host(self, cluster: Cluster) -> float:
        """Return a host's seconds a step: numbers of the whole batch, and kernels to start."""
        return self.batch * self.numbers * cluster.draw + self.launching(cluster)

    def launching(self, cluster: Cluster) -> float:
        """Return the seconds in which a step's kernels are started."""
        return self.passes * self.kernels * cluster.launch

    def messages(self, cluster: Cluster, ranks: int) -> float:
        """Return the seconds a step that ranks wait for messages, none hidden behind work."""
        if ranks == 1:
            return 0.0
        gradients = self.reduced * cluster.all_reduce(4 * self.parameters, ranks)
        statistics = cluster.all_reduce(0, ranks)
        return gradients + statistics + cluster.agreed(ranks)

    def validating(self, ranks: int) -> float:
        """Return the seconds that the busiest rank spends on validation batches after an epoch."""
        busiest = math.ceil(math.ceil(self.validation / CHUNK) / ranks)
        images = min(busiest * CHUNK, self.validation)
        return images * VALIDATION_PASSES * self.step / (self.batch * self.passes)

    def saving(self, cluster: Cluster) -> float:
        """Return the seconds in which rank 0 writes the state while the others wait."""
        return 4 * self.parameters * self.copies / cluster.disk


@dataclass(frozen=True)
class Epoch:
    """Seconds of a `step` and its parts, and of an epoch, on so many ranks.

    `device` and `host` are a rank's means, which run beside each other; `waited` is what the
    slowest rank adds; `messages`, and after an epoch `validating` and `saving`, come on top.
    """

    ranks: int
    device: float
    host: float
    waited: float
    messages: float
    validating: float
    saving: float
    steps: int

    @property
    def step(self) -> float:
        """A step."""
        return max(self.device, self.host) + self.waited + self.messages

    @property
    def seconds(self) -> float:
        """An epoch."""
        return self.steps * self.step + self.validating + self.saving

    @property
    def largest(self) -> str:
        """What adds most to the epoch that GPUs which divide all evenly would need."""
        parts = {
            "the host": max(self.host - self.device, 0) * self.steps,
            "the slowest rank": self.waited * self.steps,
            "messages": self.messages * self.steps,
            "validation": self.validating,
            "saving": self.saving,
        }
        return max(parts, key=lambda name: parts[name])


def factors(draw: Generator, jitter: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw lognormal factors of mean 1 and deviation `jitter`."""
    spread = math.sqrt(math.log1p(jitter**2))
    return draw.lognormal(-(spread**2) / 2, spread, shape)


def epoch(
    draw: Generator, work: Work, cluster: Cluster, ranks: int, simulated: int = 10_000
) -> Epoch:
    """Simulate steps in which everybody waits for the slowest rank.

    Each rank's step varies by itself. Its GPU and its host work beside each other, the host ahead
    by a step, so that a rank needs the longer of both.
    """
    device, host = work.step / ranks, work.host(cluster)
    longer = max(device, host)
    slowest = factors(draw, cluster.jitter, (simulated, ranks)).max(axis=1).mean() if longer else 1
    return Epoch(
        ranks,
        device,
        host,
        longer * (float(slowest) - 1) if ranks > 1 else 0.0,
        work.messages(cluster, ranks),
        work.validating(ranks),
        work.saving(cluster),
        work.steps,
    )


def _attempts(
    draw: Generator, n: int, length: float, mtbf: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return seconds and failures until `length` passes without a failure, (n,) each."""
    seconds, failures = np.zeros(n), np.zeros(n, dtype=np.int64)
    left = np.arange(n)
    while len(left):
        clock = draw.exponential(mtbf, len(left))
        seconds[left] += np.minimum(clock, length)
        left = left[clock < length]
        failures[left] += 1
    return seconds, failures


def lost(
    draw: Generator, interval: float, save: float, restart: float, mtbf: float, n: int = 400_000
) -> float:
    """Simulate the share of work that failures and saving add, from `n` intervals.

    Args:
        draw: where failures come from; they are exponential with mean `mtbf`.
        interval: seconds of work between two states.
        save: seconds to write a state.
        restart: seconds until a run goes on from its state, in which it may fail again.
        mtbf: mean seconds between failures of any of the machines.
        n: intervals.
    """
    seconds, failures = _attempts(draw, n, interval + save, mtbf)
    again, _ = _attempts(draw, int(failures.sum()), restart, mtbf)
    return float((seconds.sum() + again.sum()) / (n * interval) - 1)


def daly(interval: float, save: float, restart: float, mtbf: float) -> float:
    """Return the share that `lost` estimates, by its expectation.

    Source: Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
    Future Generation Computer Systems 22, 2006: the complete cost function.
    """
    return mtbf * math.exp(restart / mtbf) * math.expm1((interval + save) / mtbf) / interval - 1


def young(interval: float, save: float, restart: float, mtbf: float) -> float:
    """Return the same to first order in 1/mtbf.

    Source: Young, "A first order approximation to the optimum checkpoint interval",
    Communications of the ACM 17, 1974.
    """
    return save / interval + (interval / 2 + restart) / mtbf


def optimum(save: float, mtbf: float) -> float:
    """Return Young's interval between states, in seconds."""
    return math.sqrt(2 * save * mtbf)


def fed(
    draw: Generator, workers: int, make: float, step: float, jitter: float, steps: int = 2000
) -> float:
    """Simulate the mean seconds between steps that take their batches from decoding workers.

    Worker k makes batches k, k + workers, ..., each up to `AHEAD` batches ahead of what was taken;
    a step begins when its batch is there and the step before has ended.

    Args:
        draw: where times vary.
        workers: processes that decode for one rank.
        make: one worker's seconds for a batch.
        step: seconds of a step.
        jitter: deviation of both over their means.
        steps: how many are simulated.
    """
    making, stepping = (factors(draw, jitter, (steps,)) * mean for mean in (make, step))
    free, taken = [0.0] * workers, [0.0] * steps
    end = 0.0
    for k in range(steps):
        room = taken[k - AHEAD * workers] if k >= AHEAD * workers else 0.0
        ready = max(free[k % workers], room) + making[k]
        free[k % workers] = ready
        taken[k] = max(ready, end)
        end = taken[k] + stepping[k]
    # The first batches are waited for whatever comes; the others come in rounds of the workers.
    counted = max(steps // 2 // workers, 1) * workers
    return float((taken[-1] - taken[-1 - counted]) / counted)

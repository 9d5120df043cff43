"""What every stage is told: the machine that it works on, and where its result goes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advkit.errors import UsageError, brief
from advkit.options import StageOptions, declared
from advkit.parallel import ranks
from advkit.runtime import memory

if TYPE_CHECKING:  # the command line declares these options before torch is there
    import torch

TINY = ("small-cnn", "resnet8")
"""Architectures so small that more than one thread only gets in the way."""
LONGEST = 200
"""Bytes of a name: file systems take 255, of which locks and temporary files need some."""
PANEL, DIALOGUE = "Machine", "Output and diagnosis"
"""Headings in the help."""


@dataclass(frozen=True, kw_only=True)
class Machine(StageOptions):
    """The machine as a stage sees it."""

    data_root: str | None = declared(None, "Data", "where data sets lie (env ADVKIT_DATA)")
    device: str = declared("auto", PANEL, "auto, cpu, cuda, cuda:N or mps")
    threads: int | None = declared(
        None, PANEL, "CPU threads; 1 for tiny nets, else one a core", limits="[1, 1024]"
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: one is impossible; whether a device is there is asked when it is needed.
        """
        super().__post_init__()
        _parsed(self.device)

    @property
    def root(self) -> Path | None:
        """Where data sets lie, None where nobody said."""
        return Path(self.data_root) if self.data_root else None

    def torch_device(self) -> torch.device:
        """Choose where to compute: under torchrun each process has a CUDA device of its own.

        Raises:
            UsageError: no such device here; there is no silent fallback to the CPU.
        """
        return torch_device(self.device)

    def threads_for(self, arch: str) -> int:
        """Choose the CPU threads: given, or 1 for tiny nets; ranks of one machine share it."""
        if self.threads is not None:
            return self.threads
        return 1 if arch in TINY else ranks.cores()


@dataclass(frozen=True, kw_only=True)
class Sharded(StageOptions):
    """Which share of the work is this process's."""

    shard: str | None = declared(None, PANEL, "I/N: the I-th of N shards, in a file of its own")


@dataclass(frozen=True, kw_only=True)
class Output(StageOptions):
    """Where a result goes."""

    out: str | None = declared(None, DIALOGUE, "where the result goes")
    overwrite: bool = declared(False, DIALOGUE, "replace what lies there")

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: no file or folder can have this name.
        """
        super().__post_init__()
        require_name("-o", self.out)


def require_name(flag: str, path: str | Path | None) -> None:
    """Check that an output can have the name that an option gives it.

    Raises:
        UsageError: it is empty, or a part of it is longer than a file system takes, with what
            temporary files and locks add to it.
    """
    if path is None:
        return
    if not str(path):
        raise UsageError(f"{flag}: its name is empty, as of a variable that is not set")
    if str(path) == "-":
        raise UsageError(f"{flag} -: a result is a file; stdout has its record")
    parts = os.fsencode(os.path.abspath(path)).split(b"/")
    if not parts[-1]:
        raise UsageError(f"{flag} {path}: the root of the file system is no output")
    if max(map(len, parts)) > LONGEST:
        raise UsageError(f"{flag} {brief(path)}: a name of more than {LONGEST} bytes")


def torch_device(name: str) -> torch.device:
    """Return the device of a name; of several processes that torchrun started, each its own.

    Raises:
        UsageError: no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.world() > 1:
        name = f"cuda:{ranks.local_rank()}"
    kind, number = _parsed(name)
    # How many there are of each kind; MPS and the CPU have no number.
    there = {
        "cpu": 0 if number else 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if int(number or 0) >= there[kind]:
        raise UsageError(f"--device {name}: there is no such device here")
    if kind == "cpu":
        memory.keep_if_ours()
    return torch.device(name)


def _parsed(name: str) -> tuple[str, str]:
    """Return kind and number of a device, the number empty where there is none."""
    parts = re.fullmatch("(auto|cpu|cuda|mps)(?::([0-9]{1,4}))?", name)
    if not parts or (parts[1] == "auto" and parts[2]):
        raise UsageError(f"unknown device {brief(name)!r}: auto, cpu, cuda, cuda:N or mps")
    return parts[1], parts[2] or ""


@contextmanager
def computing(device: torch.device, threads: int) -> Iterator[None]:
    """Work with so many threads, in float32 that is float32, the same seed giving the same result.

    Threads, cuDNN's switches and torch's random streams are put back as they were found.
    """
    import torch
    from torch.backends import cuda, cudnn

    before = torch.get_num_threads()
    switches = cudnn.allow_tf32, cuda.matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.set_num_threads(threads)
            if device.type == "cuda":
                # TF32 rounds what is multiplied to ten bits, coarse beside perturbations of 8/255.
                # Benchmarking picks kernels by the clock, so that a rerun may pick others.
                _set(tf32=False, matmul_tf32=False, benchmark=False, deterministic=True)
            yield
        finally:
            if device.type == "cuda":
                _set(*switches)
            torch.set_num_threads(before)


def _set(tf32: bool, matmul_tf32: bool, benchmark: bool, deterministic: bool) -> None:
    from torch.backends import cuda, cudnn

    cudnn.allow_tf32, cuda.matmul.allow_tf32 = tf32, matmul_tf32
    cudnn.benchmark, cudnn.deterministic = benchmark, deterministic

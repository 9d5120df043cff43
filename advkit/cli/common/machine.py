"""The device and threads that a command works on, and who speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advkit.cli.common.options import Given
from advkit.errors import UsageError
from advkit.parallel import ranks
from advkit.runtime import memory
from advkit.runtime.progress import reporter
from advkit.runtime.reporting import Reporter

if TYPE_CHECKING:
    import torch

TINY = ("small-cnn", "resnet8")


def speaker(stage: str, given: Given) -> Reporter:
    """Return the reporter of a stage; of several processes that torchrun started, one speaks."""
    if ranks.rank() > 0 and not given.get("shard"):
        return Reporter()
    return reporter(stage, quiet=bool(given.get("quiet")))


def device(text: str | None) -> torch.device:
    """Choose where to compute: under torchrun each process has a CUDA device of its own.

    Raises:
        UsageError: no such device here; there is no silent fallback to the CPU.
    """
    import torch

    name = text or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.world() > 1:
        name = f"cuda:{ranks.local_rank()}"
    kind, _, number = name.partition(":")
    there = {
        "cpu": 0 if number else 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind not in there or (number and not number.isdigit()):
        raise UsageError(f"unknown device {name!r}: auto, cpu, cuda, cuda:N or mps")
    if int(number or 0) >= there[kind]:
        raise UsageError(f"--device {name}: there is no such device here")
    if kind == "cpu":
        memory.keep()
    if kind == "cuda":  # fp32 means fp32, and the same seed the same result
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return torch.device(name)


def threads(given: Given, arch: str) -> int:
    """Choose the CPU threads: given, or 1 for tiny nets, where more only get in the way.

    The processes of torchrun on one machine share its cores.
    """
    if given.get("threads") is not None:
        if given["threads"] < 1:
            raise UsageError("--threads must be at least 1")
        return int(given["threads"])
    return 1 if arch in TINY else ranks.cores()


def use_threads(count: int) -> None:
    """Set torch's CPU threads."""
    import torch

    torch.set_num_threads(count)

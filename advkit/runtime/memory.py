"""Memory beneath a step: what a CPU run frees is kept for the next one, what a GPU needs is sent.

The C library gives large blocks back to the kernel as soon as they are free, and each step gets
them anew, page by page: an eighth of the time of a training step of ResNet-18 at width 16.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line tells the allocator before torch is there
    import torch
    from torch import Tensor

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""
ALL, LARGE = 2**31 - 1, 2**30
GLIBC_MOST = 2**25
"""The largest threshold that older versions of glibc take."""


def keep() -> bool:
    """Tell glibc to keep freed memory and to serve blocks below 1 GiB from it.

    Peak memory stays what it is; what was once used is given back when the process ends. It
    changes the whole process, so that only one that owns it should call this.

    Returns:
        Whether it was done: elsewhere than on glibc there is nothing to tell.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        # Without the first threshold large blocks are mapped one by one, and unmapped when freed;
        # without the second the heap's top goes back to the kernel after each step.
        tell = ctypes.CDLL(None).mallopt
        served = bool(tell(MMAP_THRESHOLD, LARGE) or tell(MMAP_THRESHOLD, GLIBC_MOST))
        return served and bool(tell(TRIM_THRESHOLD, ALL))
    return False


class _State:
    ours: bool = False


def take_over(ours: bool = True) -> None:
    """Say whether this process is advkit's alone, so that its allocator may be told."""
    _State.ours = ours


def keep_if_ours() -> None:
    """Keep freed memory where nobody else lives in this process."""
    if _State.ours:
        keep()


def give_back() -> None:
    """Hand all freed memory to the kernel once, where glibc holds it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> bool:
    """Start measuring this process's peak memory anew; return whether Linux lets it."""
    try:
        # Linux: 5 resets the peak of resident memory (VmHWM) to what is held now.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return peak() is not None


def peak() -> int | None:
    """Return the most memory that this process held since `reset_peak`, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(line[1]) * 1024 if line else None


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without waiting for a GPU to take it.

    A copy from pinned memory joins the GPU's queue, behind the work that it still has to do; any
    other makes the process wait until that queue is empty.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))

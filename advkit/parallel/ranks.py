"""Who this process is among those that torchrun started, from the environment alone."""

from __future__ import annotations

import os
import re

from advkit.errors import UsageError


def world() -> int:
    """Return how many processes there are, 1 without torchrun.

    Raises:
        UsageError: WORLD_SIZE is not a number from 1 on.
    """
    return _number("WORLD_SIZE", 1, least=1)


def rank() -> int:
    """Return this process's number, from 0 on.

    Raises:
        UsageError: RANK is missing among several processes, or not below WORLD_SIZE.
    """
    return _place("RANK", "WORLD_SIZE", world(), None if world() > 1 else 0)


def local_world() -> int:
    """Return how many of the processes are on this machine; all, where nothing says so.

    Raises:
        UsageError: LOCAL_WORLD_SIZE is not a number from 1 on.
    """
    return _number("LOCAL_WORLD_SIZE", world(), least=1)


def local_rank() -> int:
    """Return this process's number on its machine, which is the number of its device.

    Raises:
        UsageError: LOCAL_RANK is not below LOCAL_WORLD_SIZE.
    """
    return _place("LOCAL_RANK", "LOCAL_WORLD_SIZE", local_world(), rank())


def cores() -> int:
    """Return the CPU cores that this process may use, its share where several share them."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    # Ranks of one machine share its cores.
    return max(1, cores // (local_world() if world() > 1 else 1))


def _place(name: str, among: str, count: int, default: int | None) -> int:
    number = _number(name, default)
    if number >= count:
        raise UsageError(f"{name}={number} is not below {among}={count}: start it with torchrun")
    return number


def _number(name: str, default: int | None, least: int = 0) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
        value = f"{name}={text}" if name in os.environ else f"{name} is not set and WORLD_SIZE is"
        raise UsageError(f"{value}: a number from {least} on is needed; torchrun sets it")
    return int(text)

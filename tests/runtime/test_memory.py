"""Freed memory is kept, and nothing in a step waits for the device."""

import platform
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from advkit import data
from advkit.config import resolve
from advkit.images.batches import Batches
from advkit.images.image_set import Images
from advkit.runtime.memory import moved
from advkit.training.learner import Learner

CPU, META = torch.device("cpu"), torch.device("meta")
FAULTS = """
import resource, torch
from advkit.runtime import memory
def faults(warm):
    for _ in range(warm):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def work():
    torch.ones(2**24).add(1)  # 64 MB twice
given_back = faults(1)
assert memory.keep()
print(given_back, faults(20))  # at first the heap still grows
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_kept_memory_is_not_asked_for_again():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    given_back, kept = map(int, done.stdout.split())
    assert given_back >= 256  # 131,072 pages of 4 kB, or 256 of 2 MB
    assert kept < 50


def test_elsewhere_there_is_nothing_to_tell(monkeypatch):
    from advkit.runtime import memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep() is False


class Copies(TorchDispatchMode):
    """Notes every copy from the CPU to the device that waits for it."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, device = str(func), kwargs.get("device")
        crosses = device is not None and args and isinstance(args[0], torch.Tensor)
        if "_to_copy" in name and crosses and args[0].device != torch.device(device):
            if not kwargs.get("non_blocking"):
                self.waited.append(name)
        elif "aten.copy_" in name and args[0].device != args[1].device:
            self.waited.append(name)
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    "method", ["at", "adr-awp-wa", "trades-adr", "trades", "mart", "ls", "natural"]
)
def test_a_step_never_waits_for_the_device(method):
    """On meta tensors `.item()`, `bool()` and copies back to the CPU all raise."""
    flags = {"data": "digits", "method": method, "batch_size": 16, "width": 4, "limit": 64,
             "attack_steps": 0 if method == "natural" else 2}  # fmt: skip
    digits = data.load("digits", "train")
    settings = resolve.resolve((flags, "test")).settings
    batches = Batches(digits, torch.arange(64), 16, 0, META)
    learner = Learner(settings, digits, len(batches), META)
    order, copies = batches.order(0), Copies()
    assert batches.resident is not None  # sent once, before the first step
    with copies:
        batch = batches.at(order, 0, 1)
        output = learner.learn(batch, 0, 1)
    assert batch.x.shape == (16, 1, 8, 8)
    assert output.loss.shape == ()
    assert copies.waited == []


def test_the_probe_sees_a_copy_that_waits():
    copies = Copies()
    with copies:
        torch.ones(3).to(META)
        torch.ones(3).to(META, non_blocking=True)
        moved(torch.ones(3), META)
        torch.ones(3).to(torch.float64)
    assert len(copies.waited) == 1
    with pytest.raises(RuntimeError):
        torch.ones(3, device=META).sum().item()


def test_what_is_too_large_to_stay_is_sent_batch_by_batch(monkeypatch):
    monkeypatch.setattr("advkit.images.batches.RESIDENT", 10)
    images = Images("x", "train", torch.zeros(8, 3, 4, 4, dtype=torch.uint8),
                    torch.zeros(8, dtype=torch.int64), ("a",), 1, True)  # fmt: skip
    batches = Batches(images, torch.arange(8), 4, 0, META)
    assert batches.resident is None
    assert batches.at(batches.order(0), 0, 0).x.device == META


def test_on_the_cpu_images_stay_where_they_are():
    digits = data.load("digits", "train")
    assert Batches(digits, torch.arange(64), 16, 0, CPU).resident is None
    x = torch.ones(3)
    assert moved(x, CPU) is x

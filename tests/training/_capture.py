"""What a step asks of a device: each operator with the shapes, types and devices that it meets."""

from __future__ import annotations

import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advkit import data, models
from advkit.config import resolve
from advkit.images.batches import Batches
from advkit.runtime import seeding
from advkit.training.guard import CHECK_EVERY
from advkit.training.learner import Learner

META = torch.device("meta")
WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique")
"""Operators whose answer, or its shape, the process has to wait for."""


class Recorder(TorchDispatchMode):
    """Notes every operator: its name, and (shape, dtype, device) of the tensors in and out."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [
            (tuple(leaf.shape), leaf.dtype, leaf.device.type)
            for leaf in tree_leaves((args, kwargs, result))
            if isinstance(leaf, torch.Tensor)
        ]
        self.seen.append((str(func), tuple(tensors)))
        return result

    @property
    def waits(self):
        """Operators that make the process wait for the device, as far as they do not raise."""
        names = [name.split(".")[1] for name, _ in self.seen]
        return [name for name in names if name in WAITING]

    @property
    def host_names(self):
        """Names of the operators that meet a tensor outside of the device."""
        return {name.split(".")[1] for name, _ in self.on_host()}

    def on_host(self, least=1):
        """Operators that meet a tensor of `least` numbers or more outside of the device."""
        return [
            (name, shape)
            for name, tensors in self.seen
            for shape, _, device in tensors
            if device != "meta" and math.prod(shape) >= least
        ]

    def differs(self, other):
        """The first operators in which two steps differ, None where they do not."""
        if len(self.seen) != len(other.seen):
            return len(self.seen), len(other.seen)
        pairs = zip(self.seen, other.seen, strict=True)
        return next((pair for pair in pairs if pair[0] != pair[1]), None)


def on_meta(monkeypatch):
    """Let streams on the meta device, which has no generator, be its global one."""
    make = seeding.generator

    def generator(seed, *names, device="cpu"):
        return None if torch.device(device) == META else make(seed, *names, device=device)

    monkeypatch.setattr(seeding, "generator", generator)


def learner_of(method, **more):
    """A learner of digits on the meta device, at the end of its run, and its batches."""
    flags = {"data": "digits", "method": method, "batch_size": 16, "width": 4, "limit": 64,
             "attack_steps": 0 if method == "natural" else 2, "noise": "device",
             **more}  # fmt: skip
    digits = data.load("digits", "train")
    settings = resolve.resolve((flags, "test")).settings
    batches = Batches(digits, torch.arange(64), 16, 0, META)
    soft = _answers if settings.labels == "soft" else None
    teachers = {role: _net(digits) for role in settings.teachers}
    learner = Learner(settings, digits, len(batches), META, soft, teachers=teachers)
    return learner, batches


def _answers(batch):
    """Return logits (B, C) as a live teacher or a labels file gives them."""
    return torch.zeros(len(batch.y), 10, device=META)


def _net(images):
    """Return a fixed net for a teacher."""
    net = models.build("small-cnn", 10, channels=1, statistics=images.normalisation, seed=1,
                       size=8, width=4)  # fmt: skip
    return net.to(META).eval().requires_grad_(False)


def step_of(learner, batches, step):
    """Record one step of the last epoch, its batch on the device already."""
    assert step % CHECK_EVERY  # where the guard looks at the loss
    batch = batches.at(batches.order(0), 0, step)
    with Recorder() as recorder:
        learner.learn(batch, learner.settings.epochs - 1, step)
    return recorder
